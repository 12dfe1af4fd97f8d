#include "plan/graph.h"

#include <cmath>
#include <utility>

#include "plan/lowering.h"

namespace convlet {
namespace {

void check_sizes(const char* what, const std::string& name, const Shape& shape) {
  for (std::int64_t size : shape)
    if (size <= 0) value_error(what, " '", name, "': expected positive sizes, got shape ", shape);
  checked_multiply(shape.elements(), sizeof(float), what);
}

// The attributes that remain for an op whose activation has become a node of its own.
Attributes without_activation(const std::string& owner, const Attributes& attributes) {
  std::map<std::string, Attribute> values = attributes.values();
  values.erase("activation");
  return {owner, std::move(values)};
}

}  // namespace

int Graph::add_input(const std::string& name, const Shape& sample) {
  check_sizes("input", name, sample);
  values_.push_back({name, sample, -1});
  int value = static_cast<int>(values_.size()) - 1;
  inputs_.push_back(value);
  return value;
}

int Graph::add_target(const std::string& name, const Shape& sample) {
  check_sizes("target", name, sample);
  values_.push_back({name, sample, -1});
  targets_.push_back(static_cast<int>(values_.size()) - 1);
  return targets_.back();
}

int Graph::add_parameter(const std::string& name, const Shape& shape, bool trainable, float l1,
                         float l2, float rate_scale, bool weight_decay) {
  check_sizes("parameter", name, shape);
  if (!(l1 >= 0 && l2 >= 0))
    value_error("parameter '", name, "': expected l1 >= 0 and l2 >= 0, got ", l1, " and ", l2);
  if (!(rate_scale >= 0 && std::isfinite(rate_scale)))
    value_error("parameter '", name, "': expected rate_scale >= 0, got ", rate_scale);
  parameters_.push_back({name, shape, trainable, l1, l2, rate_scale, weight_decay});
  return static_cast<int>(parameters_.size()) - 1;
}

int Graph::add_node(const std::string& op, const std::string& name, const std::vector<int>& inputs,
                    const std::vector<int>& parameters, Attributes attributes) {
  const Lowering& lowering = lowering_of(name, op);
  if (!lowering.fuses_activation)
    return append({op, name, inputs, parameters, std::move(attributes), -1});
  Activation activation = activation_named(name.c_str(), attributes.text("activation", "linear"));
  int value = append({op, name, inputs, parameters, without_activation(name, attributes), -1});
  if (activation == Activation::none) return value;
  std::map<std::string, Attribute> values{{"activation", std::string(name_of(activation))}};
  return append({"activation", name, {value}, {}, Attributes(name, std::move(values)), -1});
}

int Graph::append(Node node) {
  const Lowering& lowering = lowering_of(node.name, node.op);
  auto check_ids = [&](const char* what, const std::vector<int>& ids, std::size_t size) {
    for (int id : ids)
      if (id < 0 || static_cast<std::size_t>(id) >= size)
        value_error(node.name, ": there is no ", what, " ", id, " in this graph (it has ", size,
                    ")");
  };
  check_ids("value", node.inputs, values_.size());
  check_ids("parameter", node.parameters, parameters_.size());
  check_signature(lowering, node);
  Shape output = lowering.infer(*this, node);
  check_sizes("output of", node.name, output);
  node.output = static_cast<int>(values_.size());
  values_.push_back({node.name, output, static_cast<int>(nodes_.size())});
  nodes_.push_back(std::move(node));
  return nodes_.back().output;
}

void Graph::add_output(int value) {
  if (value < 0 || static_cast<std::size_t>(value) >= values_.size())
    value_error("output: there is no value ", value, " in this graph (it has ", values_.size(),
                ")");
  outputs_.push_back(value);
}

void Graph::change_node(int index, const std::vector<int>& inputs, Attributes attributes) {
  Node& node = nodes_[static_cast<std::size_t>(index)];
  node.inputs = inputs;
  node.attributes = std::move(attributes);
  const Shape output = lowering_of(node.name, node.op).infer(*this, node);
  if (output != shape(node.output))
    value_error(node.name, ": expected an output of shape ", shape(node.output), ", got ", output);
}

}  // namespace convlet
