// conv2d inside a plan: see ops/conv2d.h for the formula.
#include "plan/lowering.h"

namespace convlet {
namespace {

Conv2dOptions options_of(const Node& node) {
  const Attributes& attributes = node.attributes;
  if (attributes.has("padding") && attributes.has("pad"))
    value_error(node.name, ": conv2d expected 'padding' or 'pad', got both");
  Conv2dOptions options;
  auto stride = attributes.integers("stride", {1, 1});
  auto dilation = attributes.integers("dilation", {1, 1});
  auto pad = attributes.integers("pad", {0, 0, 0, 0});
  options.stride_h = stride[0], options.stride_w = stride[1];
  options.dilation_h = dilation[0], options.dilation_w = dilation[1];
  options.padding = attributes.has("pad") ? "explicit" : attributes.text("padding", "valid");
  options.pad_top = pad[0], options.pad_bottom = pad[1];
  options.pad_left = pad[2], options.pad_right = pad[3];
  options.groups = attributes.integer("groups", 1);
  return options;
}

Conv2dShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  return check_conv2d(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n),
                      graph.parameter_shape(node.parameters[0]), options_of(node));
}

Shape infer(const Graph& graph, const Node& node) {
  check_rank(graph, node, 3, "(H,W,C)");
  Conv2dShape shape = shape_of(graph, node, 1);
  bias_of(graph, node, shape.K);
  return shape.y().without_front();
}

using ShapeOf = std::function<Conv2dShape(std::int64_t)>;

// The shape for any number of rows; the graph outlives the steps.
ShapeOf shapes_of(const Builder& builder, const Node& node) {
  return [&graph = builder.graph, &node](std::int64_t n) { return shape_of(graph, node, n); };
}

auto workspace_of(ShapeOf shape, Pass pass) {
  return [=](const Kernels& kernels, std::int64_t n, int threads) {
    return kernels.conv2d_workspace(shape(n), pass, threads);
  };
}

void forward(Builder& builder, const Node& node) {
  ShapeOf shape = shapes_of(builder, node);
  int bias_id = bias_of(builder.graph, node, shape(1).K);
  BufferId x = builder.value(node.inputs[0]), w = builder.parameter(node.parameters[0]);
  BufferId bias = bias_id < 0 ? kNone : builder.parameter(bias_id);
  BufferId y = builder.new_output(node);
  Activation activation = builder.epilogue_of(node);

  Step& step = builder.step("conv2d", node.name);
  step.reads = {x, w, bias};
  step.writes = {y};
  step.workspace = workspace_of(shape, Pass::forward);
  step.bind = [=](const Binding& at) -> Run {
    return [=, kernel = at.kernels.conv2d, s = shape(at.n), x_data = at[x], w_data = at[w],
            bias_data = at[bias], y_data = at[y], workspace = at.workspace](Context& context) {
      kernel(context, s, x_data, w_data, bias_data, activation, y_data, workspace);
    };
  };
}

void backward_weight(Builder& builder, const Node& node) {
  ShapeOf shape = shapes_of(builder, node);
  BufferId x = builder.value(node.inputs[0]), dy = builder.gradient(node.output);
  builder.add_parameter_gradient(node.parameters[0], [&](BufferId dw) {
    Step& step = builder.step("conv2d_backward_weight", node.name);
    step.reads = {dy, x};
    step.writes = {dw};
    step.workspace = workspace_of(shape, Pass::backward_weight);
    step.bind = [=](const Binding& at) -> Run {
      return [kernel = at.kernels.conv2d_backward_weight, s = shape(at.n), dy_data = at[dy],
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
  Step& step = builder.step("conv2d_backward_input", node.name);
  step.reads = {dy, w};
  step.writes = {dx};
  step.workspace = workspace_of(shape, Pass::backward_input);
  step.bind = [=](const Binding& at) -> Run {
    return [kernel = at.kernels.conv2d_backward_input, s = shape(at.n), dy_data = at[dy],
            w_data = at[w], dx_data = at[dx], workspace = at.workspace](Context& context) {
      kernel(context, s, dy_data, w_data, dx_data, workspace);
    };
  };
  builder.add_gradient(node.inputs[0], dx);
}

void backward(Builder& builder, const Node& node) {
  Conv2dShape shape = shape_of(builder.graph, node, 1);
  if (builder.needs_parameter_gradient(node.parameters[0])) backward_weight(builder, node);
  add_bias_gradient(builder, node, shape.P * shape.Q, shape.K);
  if (builder.needs_gradient(node.inputs[0])) backward_input(builder, node);
}

}  // namespace

extern const Lowering kConv2d;
const Lowering kConv2d{"conv2d", 1, 1, 1, 2, {"stride", "padding", "pad", "dilation", "groups"},
                       true,     infer, forward, backward};

}  // namespace convlet
