// conv2d inside a plan: see ops/conv2d.h for the formula.
#include "plan/lowering/linear.h"
#include "plan/lowering/window.h"

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

}  // namespace

Conv2dShape conv2d_shape(const Graph& graph, const Node& node, std::int64_t n) {
  return check_conv2d(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n),
                      graph.parameter_shape(node.parameters[0]), options_of(node));
}

PooledConv2dShape::PooledConv2dShape(const Graph& graph, const Node& node, const Node* pool_node,
                                     std::int64_t n)
    : conv(conv2d_shape(graph, node, n)) {
  if (!pool_node) return;
  const Conv2dPoolShape both = conv2d_pool_shape(conv, pool2d_shape(graph, *pool_node, n));
  conv = both.conv;
  pool = both.pool;
}

namespace {

struct Conv2d {
  static constexpr const char* op = "conv2d";
  static constexpr const char* backward_input_name = "conv2d_backward_input";
  static constexpr const char* backward_weight_name = "conv2d_backward_weight";
  static constexpr auto workspace = &Kernels::conv2d_workspace;
  static constexpr auto forward = &Kernels::conv2d;
  static constexpr auto backward_input = &Kernels::conv2d_backward_input;
  static constexpr auto backward_weight = &Kernels::conv2d_backward_weight;

  static Conv2dShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
    return conv2d_shape(graph, node, n);
  }
  static RowsShape bias_rows(const Conv2dShape& s) { return {s.N * s.P * s.Q, s.K}; }
};

Shape infer(const Graph& graph, const Node& node) {
  check_rank(graph, node, 3, "(H,W,C)");
  Conv2dShape shape = Conv2d::shape_of(graph, node, 1);
  bias_of(graph, node, shape.K);
  return shape.y().without_front();
}

void forward(Builder& builder, const Node& node) {
  if (conv2d_bytes_forward(builder, node) || prepared_conv2d_forward(builder, node)) return;
  if (builder.pool_of(node)) return conv2d_pool_forward(builder, node);
  linear_forward<Conv2d>(builder, node);
}

void backward(Builder& builder, const Node& node) {
  if (builder.pool_of(node)) return conv2d_pool_backward(builder, node);
  if (!conv2d_bytes_backward_weight(builder, node, builder.gradient(node.output), kNone))
    linear_backward_weight<Conv2d>(builder, node);
  linear_backward_bias<Conv2d>(builder, node);
  if (builder.needs_gradient(node.inputs[0]) && !winograd_backward_input(builder, node))
    linear_backward_input<Conv2d>(builder, node);
}

}  // namespace

extern const Lowering kConv2d;
const Lowering kConv2d{
    "conv2d", 1,     1,       1,       2, {"stride", "padding", "pad", "dilation", "groups"},
    true,     infer, forward, backward};

}  // namespace convlet
