// Max and average pooling inside a plan: see ops/pool2d.h. The global ones are a window of the
// whole image.
#include "plan/lowering.h"
#include "plan/lowering/window.h"

namespace convlet {
namespace {

Pool2dOptions window_options(const Node& node) {
  const Attributes& attributes = node.attributes;
  if (attributes.has("padding") && attributes.has("pad"))
    value_error(node.name, ": ", node.op, " expected 'padding' or 'pad', got both");
  Pool2dOptions options;
  auto window = attributes.integers("pool_size", 2);
  auto stride = attributes.integers("stride", window);
  auto dilation = attributes.integers("dilation", {1, 1});
  auto pad = attributes.integers("pad", {0, 0, 0, 0});
  options.window_h = window[0], options.window_w = window[1];
  options.stride_h = stride[0], options.stride_w = stride[1];
  options.dilation_h = dilation[0], options.dilation_w = dilation[1];
  options.padding = attributes.has("pad") ? "explicit" : attributes.text("padding", "valid");
  options.pad_top = pad[0], options.pad_bottom = pad[1];
  options.pad_left = pad[2], options.pad_right = pad[3];
  options.ceil_mode = attributes.boolean("ceil_mode", false);
  options.count_include_pad = attributes.boolean("count_include_pad", false);
  return options;
}

bool is_global(const Node& node) {
  return node.op.rfind("global_", 0) == 0;
}

}  // namespace

Pool2dShape pool2d_shape(const Graph& graph, const Node& node, std::int64_t n) {
  check_rank(graph, node, 3, "(H,W,C)");
  const Shape& sample = graph.shape(node.inputs[0]);
  Pool2dOptions options;
  if (is_global(node)) {
    options.window_h = options.stride_h = sample[0];
    options.window_w = options.stride_w = sample[1];
  } else {
    options = window_options(node);
  }
  return check_pool2d(node.name.c_str(), sample.with_front(n), options);
}

namespace {

Shape infer(const Graph& graph, const Node& node) {
  Pool2dShape shape = pool2d_shape(graph, node, 1);
  if (is_global(node) && !node.attributes.boolean("keepdims", false)) return {shape.C};
  return shape.y().without_front();
}

// Kernel is the member of Kernels to call.
template <class Kernel>
void add_forward(Builder& builder, const Node& node, const char* name, Kernel Kernels::* kernel) {
  BufferId x = builder.value(node.inputs[0]), y = builder.new_output(node);
  Step& step = builder.step(name, node.name);
  step.reads = {x};
  step.writes = {y};
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [run = at.kernels.*kernel, shape = pool2d_shape(graph, node, at.n), x_data = at[x],
            y_data = at[y]](Context& context) { run(context, shape, x_data, y_data); };
  };
}

void max_forward(Builder& builder, const Node& node) {
  add_forward(builder, node, "max_pool2d", &Kernels::max_pool2d);
}

void avg_forward(Builder& builder, const Node& node) {
  add_forward(builder, node, "avg_pool2d", &Kernels::avg_pool2d);
}

void max_backward(Builder& builder, const Node& node) {
  BufferId x = builder.value(node.inputs[0]), dy = builder.gradient(node.output);
  BufferId dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step("max_pool2d_backward", node.name);
  step.reads = {dy, x};
  step.writes = {dx};
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [run = at.kernels.max_pool2d_backward, shape = pool2d_shape(graph, node, at.n),
            dy_data = at[dy], x_data = at[x],
            dx_data = at[dx]](Context& context) { run(context, shape, dy_data, x_data, dx_data); };
  };
  builder.add_gradient(node.inputs[0], dx);
}

void avg_backward(Builder& builder, const Node& node) {
  BufferId dy = builder.gradient(node.output), dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step("avg_pool2d_backward", node.name);
  step.reads = {dy};
  step.writes = {dx};
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [run = at.kernels.avg_pool2d_backward, shape = pool2d_shape(graph, node, at.n),
            dy_data = at[dy],
            dx_data = at[dx]](Context& context) { run(context, shape, dy_data, dx_data); };
  };
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kMaxPool2d, kAvgPool2d, kGlobalMaxPool2d, kGlobalAvgPool2d;
const Lowering kMaxPool2d{"max_pool2d",
                          1,
                          1,
                          0,
                          0,
                          {"pool_size", "stride", "padding", "pad", "dilation", "ceil_mode"},
                          false,
                          infer,
                          max_forward,
                          max_backward};
const Lowering kAvgPool2d{
    "avg_pool2d",
    1,
    1,
    0,
    0,
    {"pool_size", "stride", "padding", "pad", "ceil_mode", "count_include_pad"},
    false,
    infer,
    avg_forward,
    avg_backward};
const Lowering kGlobalMaxPool2d{"global_max_pool2d", 1,     1,     0,           0,
                                {"keepdims"},        false, infer, max_forward, max_backward};
const Lowering kGlobalAvgPool2d{"global_avg_pool2d", 1,     1,     0,           0,
                                {"keepdims"},        false, infer, avg_forward, avg_backward};

}  // namespace convlet
