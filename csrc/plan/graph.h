// Graph: what a model is before it is compiled. Values flow along edges, nodes compute them,
// parameters are trained. Every shape here is per sample: the batch axis is added by a Plan. Shapes
// are inferred and checked as nodes are added, by the same checks that the functional ops use.
#pragma once
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "core/tensor.h"

namespace convlet {

using Attribute = std::variant<bool, std::int64_t, double, std::string, std::vector<std::int64_t>>;

// A node's attributes, by name. The getters raise a ValueError that names the node when an
// attribute is missing or has another type; those with a fallback accept a missing one.
class Attributes {
 public:
  Attributes() = default;
  Attributes(std::string owner, std::map<std::string, Attribute> values)
      : owner_(std::move(owner)), values_(std::move(values)) {}

  const std::map<std::string, Attribute>& values() const { return values_; }
  bool has(const char* name) const { return values_.count(name) != 0; }
  bool boolean(const char* name, bool fallback) const;
  std::int64_t integer(const char* name, std::int64_t fallback) const;
  double number(const char* name) const;
  double number(const char* name, double fallback) const;
  std::string text(const char* name) const;
  std::string text(const char* name, const std::string& fallback) const;
  std::vector<std::int64_t> integers(const char* name) const;
  // Exactly `count` numbers.
  std::vector<std::int64_t> integers(const char* name, std::size_t count) const;
  std::vector<std::int64_t> integers(const char* name, std::vector<std::int64_t> fallback) const;

 private:
  const Attribute& at(const char* name) const;
  [[noreturn]] void wrong_type(const char* name, const char* expected) const;

  std::string owner_;
  std::map<std::string, Attribute> values_;
};

struct Value {
  std::string name;  // of the node or input that makes it
  Shape shape;       // per sample
  int producer;      // node index, or -1 for an input or a target
};

struct Parameter {
  std::string name;  // "conv2d/kernel"
  Shape shape;
  bool trainable;
  float l1, l2;
  float rate_scale;   // the learning rate's factor for this parameter
  bool weight_decay;  // whether the optimizer's weight decay applies to it
};

struct Node {
  std::string op;
  std::string name;             // of the layer; two nodes of one layer share it
  std::vector<int> inputs;      // value ids
  std::vector<int> parameters;  // parameter ids
  Attributes attributes;
  int output;  // value id
};

class Graph {
 public:
  int add_input(const std::string& name, const Shape& sample);
  // A value that holds the targets of a loss of kind "value" (see LossSpec): nodes may compute with
  // it, and only such a loss may depend on it.
  int add_target(const std::string& name, const Shape& sample);
  int add_parameter(const std::string& name, const Shape& shape, bool trainable, float l1, float l2,
                    float rate_scale = 1.0f, bool weight_decay = true);
  // The value that the new node makes. ValueError that begins with the node's name for an unknown
  // op, attributes, inputs or parameters that do not fit. An op with the attribute "activation"
  // (conv2d, dense) becomes two nodes, the second an activation; a plan fuses them again where it
  // may.
  int add_node(const std::string& op, const std::string& name, const std::vector<int>& inputs,
               const std::vector<int>& parameters, Attributes attributes);
  void add_output(int value);
  // Gives node `index` other inputs and attributes, of which it makes an output of the same shape.
  void change_node(int index, const std::vector<int>& inputs, Attributes attributes);

  const std::vector<Value>& values() const { return values_; }
  const std::vector<Parameter>& parameters() const { return parameters_; }
  const std::vector<Node>& nodes() const { return nodes_; }
  const std::vector<int>& inputs() const { return inputs_; }
  const std::vector<int>& targets() const { return targets_; }
  const std::vector<int>& outputs() const { return outputs_; }

  const Shape& shape(int value) const { return values_[value].shape; }
  const Shape& parameter_shape(int parameter) const { return parameters_[parameter].shape; }

 private:
  int append(Node node);

  std::vector<Value> values_;
  std::vector<Parameter> parameters_;
  std::vector<Node> nodes_;
  std::vector<int> inputs_, targets_, outputs_;
};

}  // namespace convlet
