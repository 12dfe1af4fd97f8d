// attention inside a plan: see ops/attention.h. Where a gradient is needed the forward keeps the
// log of the sum of each query's exponentials, from which the backward makes the probabilities
// again. Dropout of the probabilities is for train mode; its random numbers are those of the stream
// whose number is the output value's.
#include "plan/lowering.h"

namespace convlet {
namespace {

double dropout_of(const Node& node) {
  double rate = node.attributes.number("dropout", 0.0);
  if (!(rate >= 0 && rate < 1))
    value_error(node.name, ": attention expected a dropout in [0,1), got ", rate);
  return rate;
}

AttentionShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  AttentionOptions options;
  options.heads = node.attributes.integer("heads", 1);
  if (node.attributes.has("scale")) options.scale = node.attributes.number("scale");
  options.causal = node.attributes.boolean("causal", false);
  return check_attention(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n),
                         graph.shape(node.inputs[1]).with_front(n),
                         graph.shape(node.inputs[2]).with_front(n), options);
}

Shape infer(const Graph& graph, const Node& node) {
  dropout_of(node);
  return shape_of(graph, node, 1).y().without_front();
}

// The dropout of one node's probabilities.
struct Dropout {
  float rate;
  std::uint64_t stream;
};

Dropout active_dropout(const Builder& builder, const Node& node) {
  const bool train = builder.mode == Mode::train;
  return {train ? static_cast<float>(dropout_of(node)) : 0.0f,
          static_cast<std::uint64_t>(node.output)};
}

auto workspace(const Builder& builder, const Node& node, Pass pass) {
  return
      [&graph = builder.graph, &node, pass](const Kernels& kernels, std::int64_t n, int threads) {
        return kernels.attention_workspace(shape_of(graph, node, n), pass, threads);
      };
}

void forward(Builder& builder, const Node& node) {
  const BufferId q = builder.value(node.inputs[0]), k = builder.value(node.inputs[1]);
  const BufferId v = builder.value(node.inputs[2]), y = builder.new_output(node);
  BufferId lse = kNone;
  if (builder.needs_gradient(node.output)) {
    const Shape sample = shape_of(builder.graph, node, 1).lse();
    lse = builder.new_buffer(sample.elements() * std::int64_t{sizeof(float)});
    builder.saved(node) = {lse};
  }
  Step& step = builder.step("attention", node.name);
  step.reads = {q, k, v};
  step.writes = {y, lse};
  step.workspace = workspace(builder, node, Pass::forward);
  step.bind = [=, &graph = builder.graph, &node,
               drop = active_dropout(builder, node)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.attention, shape = shape_of(graph, node, at.n),
            random = at.random, q_data = at[q], k_data = at[k], v_data = at[v], y_data = at[y],
            lse_data = at[lse], workspace = at.workspace](Context& context) {
      kernel(context, shape, drop.rate, random, drop.stream, q_data, k_data, v_data, y_data,
             lse_data, workspace);
    };
  };
}

// All three gradients come of one step, also those that nobody needs.
void backward(Builder& builder, const Node& node) {
  const BufferId q = builder.value(node.inputs[0]), k = builder.value(node.inputs[1]);
  const BufferId v = builder.value(node.inputs[2]), y = builder.value(node.output);
  const BufferId dy = builder.gradient(node.output), lse = builder.saved(node)[0];
  const BufferId dq = builder.new_like(node.inputs[0]), dk = builder.new_like(node.inputs[1]);
  const BufferId dv = builder.new_like(node.inputs[2]);
  Step& step = builder.step("attention_backward", node.name);
  step.reads = {dy, q, k, v, y, lse};
  step.writes = {dq, dk, dv};
  step.workspace = workspace(builder, node, Pass::backward_input);
  step.bind = [=, &graph = builder.graph, &node,
               drop = active_dropout(builder, node)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.attention_backward, shape = shape_of(graph, node, at.n),
            random = at.random, q_data = at[q], k_data = at[k], v_data = at[v], y_data = at[y],
            dy_data = at[dy], lse_data = at[lse], dq_data = at[dq], dk_data = at[dk],
            dv_data = at[dv], workspace = at.workspace](Context& context) {
      kernel(context, shape, drop.rate, random, drop.stream, dy_data, q_data, k_data, v_data,
             y_data, lse_data, dq_data, dk_data, dv_data, workspace);
    };
  };
  const BufferId gradients[] = {dq, dk, dv};
  for (int i = 0; i < 3; ++i)
    if (builder.needs_gradient(node.inputs[i])) builder.add_gradient(node.inputs[i], gradients[i]);
}

}  // namespace

extern const Lowering kAttention;
const Lowering kAttention{
    "attention", 3,     3,       0,       0, {"heads", "scale", "causal", "dropout"},
    false,       infer, forward, backward};

}  // namespace convlet
