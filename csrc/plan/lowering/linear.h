// What conv2d and dense have in common: weights, maybe a bias, an epilogue, workspace, and three
// passes.
//
// An op is a struct with its shape for n rows of the batch (shape_of), the rows over which the
// gradient of its bias is summed (bias_rows), and its kernels with their names.
#pragma once
#include "plan/lowering.h"
#include "plan/lowering/batch_norm.h"

namespace convlet {

// The bias' parameter, or -1; ValueError unless its shape is (channels,).
inline int bias_of(const Graph& graph, const Node& node, std::int64_t channels) {
  if (node.parameters.size() < 2) return -1;
  const Shape& shape = graph.parameter_shape(node.parameters[1]);
  if (shape != Shape{channels})
    value_error(node.name, ": expected a bias of shape ", Shape{channels}, ", got ", shape);
  return node.parameters[1];
}

template <class Op>
auto linear_workspace(const Builder& builder, const Node& node, Pass pass) {
  return
      [&graph = builder.graph, &node, pass](const Kernels& kernels, std::int64_t n, int threads) {
        return (kernels.*Op::workspace)(Op::shape_of(graph, node, n), pass, threads);
      };
}

// The weights and the bias, which may be kNone, that the forward of a node reads. `kept` as in
// fold_batch_norm.
inline FoldedWeights weights_of(Builder& builder, const Node& node, bool kept = true) {
  if (const Node* norm = builder.folded_into(node))
    return fold_batch_norm(builder, node, *norm, kept);
  return {builder.parameter(node.parameters[0]),
          node.parameters.size() < 2 ? kNone : builder.parameter(node.parameters[1])};
}

template <class Op>
void linear_forward(Builder& builder, const Node& node) {
  BufferId x = builder.value(node.inputs[0]);
  const FoldedWeights weights = weights_of(builder, node);
  BufferId w = weights.weight, bias = weights.bias;
  BufferId y = builder.new_output(node);
  Step& step = builder.step(Op::op, node.name);
  step.reads = {x, w, bias};
  step.writes = {y};
  step.workspace = linear_workspace<Op>(builder, node, Pass::forward);
  step.bind = [=, &graph = builder.graph, &node,
               activation = builder.epilogue_of(node)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.*Op::forward, shape = Op::shape_of(graph, node, at.n),
            x_data = at[x], w_data = at[w], bias_data = at[bias], y_data = at[y],
            workspace = at.workspace](Context& context) {
      kernel(context, shape, x_data, w_data, bias_data, activation, y_data, workspace);
    };
  };
}

// Of the parameters that need a gradient.
template <class Op>
void linear_backward_weight(Builder& builder, const Node& node) {
  if (!builder.needs_parameter_gradient(node.parameters[0])) return;
  BufferId x = builder.value(node.inputs[0]), dy = builder.gradient(node.output);
  builder.add_parameter_gradient(node.parameters[0], [&](BufferId dw) {
    Step& step = builder.step(Op::backward_weight_name, node.name);
    step.reads = {dy, x};
    step.writes = {dw};
    step.workspace = linear_workspace<Op>(builder, node, Pass::backward_weight);
    step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
      return [kernel = at.kernels.*Op::backward_weight, shape = Op::shape_of(graph, node, at.n),
              dy_data = at[dy], x_data = at[x], dw_data = at[dw], workspace = at.workspace](
                 Context& context) { kernel(context, shape, dy_data, x_data, dw_data, workspace); };
    };
  });
}

template <class Op>
void linear_backward_bias(Builder& builder, const Node& node) {
  if (node.parameters.size() < 2 || !builder.needs_parameter_gradient(node.parameters[1])) return;
  BufferId dy = builder.gradient(node.output);
  builder.add_parameter_gradient(node.parameters[1], [&](BufferId db) {
    auto rows_of = [&graph = builder.graph, &node](std::int64_t n) {
      return Op::bias_rows(Op::shape_of(graph, node, n));
    };
    Step& step = builder.step("bias_gradient", node.name);
    step.reads = {dy};
    step.writes = {db};
    step.workspace = [=](const Kernels& kernels, std::int64_t n, int) {
      return kernels.bias_gradient_workspace(rows_of(n));
    };
    step.bind = [=](const Binding& at) -> Run {
      return [kernel = at.kernels.bias_gradient, rows = rows_of(at.n), dy_data = at[dy],
              db_data = at[db], workspace = at.workspace](Context& context) {
        kernel(context, rows, dy_data, db_data, workspace);
      };
    };
  });
}

template <class Op>
void linear_backward_input(Builder& builder, const Node& node) {
  BufferId dy = builder.gradient(node.output), w = builder.parameter(node.parameters[0]);
  BufferId dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step(Op::backward_input_name, node.name);
  step.reads = {dy, w};
  step.writes = {dx};
  step.workspace = linear_workspace<Op>(builder, node, Pass::backward_input);
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [kernel = at.kernels.*Op::backward_input, shape = Op::shape_of(graph, node, at.n),
            dy_data = at[dy], w_data = at[w], dx_data = at[dx], workspace = at.workspace](
               Context& context) { kernel(context, shape, dy_data, w_data, dx_data, workspace); };
  };
  builder.add_gradient(node.inputs[0], dx);
}

template <class Op>
void linear_backward(Builder& builder, const Node& node) {
  linear_backward_weight<Op>(builder, node);
  linear_backward_bias<Op>(builder, node);
  if (builder.needs_gradient(node.inputs[0])) linear_backward_input<Op>(builder, node);
}

}  // namespace convlet
