// Builder: what an op's lowering uses to add its steps to a Program. It knows which buffer holds
// each value of the graph, and collects the gradients that flow back to it.
#pragma once
#include <functional>
#include <utility>
#include <vector>

#include "plan/fuse.h"
#include "plan/graph.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace convlet {

class Builder {
 public:
  Builder(const Graph& graph, const PlanOptions& options, const Kernels& kernels,
          const Fusion& fusion);

  const Graph& graph;
  const Mode mode;
  const bool winograd;     // PlanOptions::winograd
  const Kernels& kernels;  // what the steps will run
  Program program;

  // Of a sample of a value.
  std::int64_t elements(int value) const { return graph.shape(value).elements(); }

  BufferId new_buffer(std::int64_t sample_bytes, std::int64_t fixed_bytes = 0, bool floats = true);
  // Memory for a value or its gradient: one float32 for each element of each sample.
  BufferId new_like(int value);
  BufferId new_double();  // the output of a reduction

  // Forward. `value` is the buffer that holds a value; a view shares its input's buffer.
  BufferId value(int value) const { return values_[value]; }
  void set_value(int value, BufferId buffer) { values_[value] = buffer; }
  // The value that a node's step writes, and what is done to it on the way (see Fusion): by an
  // activation, a value that is added (-1 for none), a max pooling, a batch_norm (null for none).
  int output_of(const Node& node) const;
  Activation epilogue_of(const Node& node) const;
  int residual_of(const Node& node) const;
  const Node* pool_of(const Node& node) const;
  const Node* folded_into(const Node& node) const;
  // The graph input that a conv2d reads as bytes, -1 for none, and what it makes of them.
  int bytes_of(const Node& node) const;
  LinearScale scale_of(const Node& node) const;
  const Node* normalization_of(const Node& node) const;  // null for none
  // The value whose gradient the node's backward starts from.
  int gradient_of(const Node& node) const;
  // Memory for output_of(node).
  BufferId new_output(const Node& node);
  BufferId parameter(int id) const { return parameters_[id]; }
  // Buffers that the forward of a node leaves for its backward.
  std::vector<BufferId>& saved(const Node& node) {
    return saved_[graph.values()[node.output].producer];
  }

  // Backward. A value needs a gradient when a trainable parameter is upstream of it (train mode
  // only).
  bool needs_gradient(int value) const { return needs_gradient_[value]; }
  bool needs_parameter_gradient(int id) const;
  BufferId gradient(int value) const { return gradients_[value]; }
  // Adds one consumer's share to the gradient of a value. The buffer may be another value's
  // gradient too: it is only read from here on.
  void add_gradient(int value, BufferId share);
  // Adds one use's share to the gradient of a parameter: write(buffer) adds the step that writes
  // it.
  template <class Write>
  void add_parameter_gradient(int id, Write write) {
    BufferId own = parameter_gradient(id);
    if (!parameter_has_gradient_[id]) {
      parameter_has_gradient_[id] = true;
      write(own);
      return;
    }
    BufferId share = new_buffer(0, program.buffers[own].fixed_bytes);
    write(share);
    add_buffers(graph.parameters()[id].name, own, share, own);
  }
  bool parameter_has_gradient(int id) const { return parameter_has_gradient_[id]; }
  BufferId parameter_gradient(int id) const { return parameter_gradients_[id]; }

  // add() is called when the backward of all nodes is lowered: the steps that it adds run once for
  // every batch. What they change must heed Binding::halt.
  void after_batch(std::function<void(Builder&)> add) { batch_updates_.push_back(std::move(add)); }
  void add_batch_updates() {
    for (const auto& add : batch_updates_) add(*this);
  }

  // A new last step; the caller fills in the rest of it.
  Step& step(const char* kernel, const std::string& layer);
  // A step that runs before all others, and only when the parameters have changed since it last
  // ran: it fills memory from new_prepared.
  Step& prepare_step(const char* kernel, const std::string& layer);
  BufferId new_prepared(std::int64_t bytes);
  void insert_prepare_steps();
  void set_phase(const char* phase) { phase_ = phase; }
  // y = a + b, for buffers of one size.
  void add_buffers(const std::string& layer, BufferId a, BufferId b, BufferId y);

 private:
  std::size_t index_of(const Node& node) const {
    return static_cast<std::size_t>(graph.values()[node.output].producer);
  }

  const Fusion& fusion_;
  std::vector<Step> prepare_;
  const char* phase_ = "forward";
  std::vector<BufferId> values_, gradients_;
  std::vector<BufferId> parameters_, parameter_gradients_;
  std::vector<std::vector<BufferId>> saved_;  // by node
  std::vector<bool> needs_gradient_, parameter_has_gradient_;
  std::vector<std::function<void(Builder&)>> batch_updates_;
};

}  // namespace convlet
