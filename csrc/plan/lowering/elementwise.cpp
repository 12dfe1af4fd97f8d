// add, multiply (two or more inputs of one shape) and scale (y = factor * x + offset).
#include "plan/lowering.h"

namespace convlet {
namespace {

Shape infer_same(const Graph& graph, const Node& node) {
  const Shape& first = graph.shape(node.inputs[0]);
  for (std::size_t i = 1; i < node.inputs.size(); ++i)
    if (graph.shape(node.inputs[i]) != first)
      value_error(node.name, ": ", node.op, " expected inputs of one shape, got ", first, " and ",
                  graph.shape(node.inputs[i]));
  return first;
}

void add_forward(Builder& builder, const Node& node) {
  BufferId sum = builder.value(node.inputs[0]);
  for (std::size_t i = 1; i < node.inputs.size(); ++i) {
    BufferId next = builder.new_like(node.output);
    builder.add_buffers(node.name, sum, builder.value(node.inputs[i]), next);
    sum = next;
  }
  builder.set_value(node.output, sum);
}

void add_backward(Builder& builder, const Node& node) {
  for (int input : node.inputs)
    if (builder.needs_gradient(input)) builder.add_gradient(input, builder.gradient(node.output));
}

// A new buffer with a * b, of the shape of the node's output.
BufferId product(Builder& builder, const Node& node, BufferId a, BufferId b) {
  BufferId y = builder.new_like(node.output);
  Step& step = builder.step("multiply", node.name);
  step.reads = {a, b};
  step.writes = {y};
  step.reuses = {{y, a}, {y, b}};
  step.bind = [=, elements = builder.elements(node.output)](const Binding& at) -> Run {
    return [kernel = at.kernels.multiply, n = at.n * elements, a_data = at[a], b_data = at[b],
            y_data = at[y]](Context& context) { kernel(context, n, a_data, b_data, y_data); };
  };
  return y;
}

void multiply_forward(Builder& builder, const Node& node) {
  BufferId y = builder.value(node.inputs[0]);
  for (std::size_t i = 1; i < node.inputs.size(); ++i)
    y = product(builder, node, y, builder.value(node.inputs[i]));
  builder.set_value(node.output, y);
}

// The gradient of one factor is dy times all the others.
void multiply_backward(Builder& builder, const Node& node) {
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    if (!builder.needs_gradient(node.inputs[i])) continue;
    BufferId dx = builder.gradient(node.output);
    for (std::size_t j = 0; j < node.inputs.size(); ++j)
      if (j != i) dx = product(builder, node, dx, builder.value(node.inputs[j]));
    builder.add_gradient(node.inputs[i], dx);
  }
}

Shape infer_scale(const Graph& graph, const Node& node) {
  node.attributes.number("factor");
  node.attributes.number("offset", 0);
  return graph.shape(node.inputs[0]);
}

void add_scale(Builder& builder, const Node& node, float offset, BufferId x, BufferId y) {
  float factor = static_cast<float>(node.attributes.number("factor"));
  add_elementwise(
      builder, "scale", node.name, builder.elements(node.output), x, y,
      [=](Context& context, const Kernels& kernels, std::int64_t n, const float* x_data,
          float* y_data) { kernels.scale(context, n, factor, offset, x_data, y_data); });
}

void scale_forward(Builder& builder, const Node& node) {
  add_scale(builder, node, static_cast<float>(node.attributes.number("offset", 0)),
            builder.value(node.inputs[0]), builder.new_output(node));
}

void scale_backward(Builder& builder, const Node& node) {
  BufferId dx = builder.new_like(node.inputs[0]);
  add_scale(builder, node, 0.0f, builder.gradient(node.output), dx);
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kAdd, kMultiply, kScale;
const Lowering kAdd{"add", 2, kAnyNumber, 0, 0, {}, false, infer_same, add_forward, add_backward};
const Lowering kMultiply{
    "multiply", 2, kAnyNumber, 0, 0, {}, false, infer_same, multiply_forward, multiply_backward};
const Lowering kScale{
    "scale", 1, 1, 0, 0, {"factor", "offset"}, false, infer_scale, scale_forward, scale_backward};

}  // namespace convlet
