// dense inside a plan: see ops/dense.h for the formula. It works on the last axis of a sample of any rank.
#include "plan/lowering.h"

namespace convlet {
namespace {

DenseShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  const Shape& sample = graph.shape(node.inputs[0]);
  Shape x{n * (sample.elements() / sample.back()), sample.back()};
  return check_dense(node.name.c_str(), x, graph.parameter_shape(node.parameters[0]));
}

Shape infer(const Graph& graph, const Node& node) {
  Shape y = graph.shape(node.inputs[0]);
  if (y.rank() == 0)
    value_error(node.name, ": dense expected samples with at least one axis, got shape ()");
  DenseShape shape = shape_of(graph, node, 1);
  bias_of(graph, node, shape.O);
  y[y.rank() - 1] = shape.O;
  return y;
}

using ShapeOf = std::function<DenseShape(std::int64_t)>;

ShapeOf shapes_of(const Builder& builder, const Node& node) {
  return [&graph = builder.graph, &node](std::int64_t n) { return shape_of(graph, node, n); };
}

auto workspace_of(ShapeOf shape, Pass pass) {
  return [=](const Kernels& kernels, std::int64_t n, int threads) {
    return kernels.dense_workspace(shape(n), pass, threads);
  };
}

void forward(Builder& builder, const Node& node) {
  ShapeOf shape = shapes_of(builder, node);
  int bias_id = bias_of(builder.graph, node, shape(1).O);
  BufferId x = builder.value(node.inputs[0]), w = builder.parameter(node.parameters[0]);
  BufferId bias = bias_id < 0 ? kNone : builder.parameter(bias_id);
  BufferId y = builder.new_output(node);
  Activation activation = builder.epilogue_of(node);

  Step& step = builder.step("dense", node.name);
  step.reads = {x, w, bias};
  step.writes = {y};
  step.workspace = workspace_of(shape, Pass::forward);
  step.bind = [=](const Binding& at) -> Run {
    return [=, kernel = at.kernels.dense, s = shape(at.n), x_data = at[x], w_data = at[w],
            bias_data = at[bias], y_data = at[y], workspace = at.workspace](Context& context) {
      kernel(context, s, x_data, w_data, bias_data, activation, y_data, workspace);
    };
  };
}

void backward_weight(Builder& builder, const Node& node) {
  ShapeOf shape = shapes_of(builder, node);
  BufferId x = builder.value(node.inputs[0]), dy = builder.gradient(node.output);
  builder.add_parameter_gradient(node.parameters[0], [&](BufferId dw) {
    Step& step = builder.step("dense_backward_weight", node.name);
    step.reads = {dy, x};
    step.writes = {dw};
    step.workspace = workspace_of(shape, Pass::backward_weight);
    step.bind = [=](const Binding& at) -> Run {
      return [kernel = at.kernels.dense_backward_weight, s = shape(at.n), dy_data = at[dy],
              x_data = at[x], dw_data = at[dw], workspace = at.workspace](Context& context) {
        kernel(context, s, dy_data, x_data, dw_data, workspace);
      };
    };
  });
}

void backward_input(Builder& builder, const Node& node) {
  ShapeOf shape = shapes_of(builder, node);
  BufferId dy = builder.gradient(node.output), w = builder.parameter(node.parameters[0]);
  BufferId dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step("dense_backward_input", node.name);
  step.reads = {dy, w};
  step.writes = {dx};
  step.workspace = workspace_of(shape, Pass::backward_input);
  step.bind = [=](const Binding& at) -> Run {
    return [kernel = at.kernels.dense_backward_input, s = shape(at.n), dy_data = at[dy],
            w_data = at[w], dx_data = at[dx], workspace = at.workspace](Context& context) {
      kernel(context, s, dy_data, w_data, dx_data, workspace);
    };
  };
  builder.add_gradient(node.inputs[0], dx);
}

void backward(Builder& builder, const Node& node) {
  DenseShape shape = shape_of(builder.graph, node, 1);
  if (builder.needs_parameter_gradient(node.parameters[0])) backward_weight(builder, node);
  add_bias_gradient(builder, node, shape.N, shape.O);
  if (builder.needs_gradient(node.inputs[0])) backward_input(builder, node);
}

}  // namespace

extern const Lowering kDense;
const Lowering kDense{"dense", 1, 1, 1, 2, {}, true, infer, forward, backward};

}  // namespace convlet
