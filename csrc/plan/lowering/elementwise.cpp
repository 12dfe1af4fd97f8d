// add, multiply (two or more inputs), binary, where (all with broadcasting between samples), unary
// and scale (y = factor * x + offset).
#include "plan/lowering/operand.h"

namespace convlet {
namespace {

// The inputs joined one after the other: f(f(a, b), c), ...
void fold(Builder& builder, const Node& node, BinaryFunction function) {
  const std::vector<Operand> operands = operands_of(builder, node);
  Operand total = operands[0];
  for (std::size_t i = 1; i < operands.size(); ++i) {
    const Shape y = broadcast_shape(node.name.c_str(), {total.sample, operands[i].sample});
    total = {-1, -1, add_binary(builder, node, function, total, operands[i], y), y};
  }
  builder.set_value(node.output, total.buffer);
}

void add_forward(Builder& builder, const Node& node) {
  fold(builder, node, BinaryFunction::add);
}

void add_backward(Builder& builder, const Node& node) {
  const Shape& y = builder.graph.shape(node.output);
  for (const Operand& operand : operands_of(builder, node))
    if (needs_gradient(builder, operand))
      add_operand_gradient(builder, node, operand, builder.gradient(node.output), y);
}

void multiply_forward(Builder& builder, const Node& node) {
  fold(builder, node, BinaryFunction::multiply);
}

// The gradient of one factor is dy times all the others.
void multiply_backward(Builder& builder, const Node& node) {
  const std::vector<Operand> operands = operands_of(builder, node);
  const Shape& y = builder.graph.shape(node.output);
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (!needs_gradient(builder, operands[i])) continue;
    Operand share = {-1, -1, builder.gradient(node.output), y};
    for (std::size_t j = 0; j < operands.size(); ++j)
      if (j != i)
        share.buffer = add_binary(builder, node, BinaryFunction::multiply, share, operands[j], y);
    add_operand_gradient(builder, node, operands[i], share.buffer, y);
  }
}

BinaryFunction binary_function_of(const Node& node) {
  return binary_function_named(node.name.c_str(), node.attributes.text("function"));
}

Shape infer_binary(const Graph& graph, const Node& node) {
  binary_function_of(node);
  return infer_broadcast(graph, node);
}

void binary_forward(Builder& builder, const Node& node) {
  fold(builder, node, binary_function_of(node));
}

void binary_backward(Builder& builder, const Node& node) {
  const BinaryFunction function = binary_function_of(node);
  if (!is_differentiable(function)) return;
  const std::vector<Operand> operands = operands_of(builder, node);
  const Shape& y = builder.graph.shape(node.output);
  const BufferId dy = builder.gradient(node.output);
  for (int side = 0; side < 2; ++side) {
    if (!needs_gradient(builder, operands[side])) continue;
    BufferId share = builder.new_like(node.output);
    Step& step = builder.step("binary_backward", node.name);
    step.reads = {dy, operands[0].buffer, operands[1].buffer};
    step.writes = {share};
    step.reuses = {{share, dy}};
    step.bind = [=](const Binding& at) -> Run {
      return [=, kernel = at.kernels.binary_backward, shape = broadcast_of(operands, y, at.n),
              dy_data = at[dy], a_data = at[operands[0].buffer], b_data = at[operands[1].buffer],
              share_data = at[share]](Context& context) {
        kernel(context, shape, function, side, dy_data, a_data, b_data, share_data);
      };
    };
    add_operand_gradient(builder, node, operands[side], share, y);
  }
}

// y = where(condition, a, b), of which a or b may be kNone: zeros.
void add_where(Builder& builder, const Node& node, const std::vector<Operand>& operands,
               BufferId y) {
  const BufferId c = operands[0].buffer, a = operands[1].buffer, b = operands[2].buffer;
  Step& step = builder.step("where", node.name);
  step.reads = {c, a, b};
  step.writes = {y};
  step.reuses = {{y, a}, {y, b}};
  step.bind = [=, sample = builder.graph.shape(node.output)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.where, shape = broadcast_of(operands, sample, at.n),
            c_data = at[c], a_data = at[a], b_data = at[b], y_data = at[y]](Context& context) {
      kernel(context, shape, c_data, a_data, b_data, y_data);
    };
  };
}

void where_forward(Builder& builder, const Node& node) {
  add_where(builder, node, operands_of(builder, node), builder.new_output(node));
}

void where_backward(Builder& builder, const Node& node) {
  const std::vector<Operand> operands = operands_of(builder, node);
  const Shape& y = builder.graph.shape(node.output);
  const Operand dy = {-1, -1, builder.gradient(node.output), y}, none = {-1, -1, kNone, y};
  for (int side = 1; side < 3; ++side) {
    if (!needs_gradient(builder, operands[side])) continue;
    BufferId share = builder.new_like(node.output);
    add_where(builder, node, {operands[0], side == 1 ? dy : none, side == 1 ? none : dy}, share);
    add_operand_gradient(builder, node, operands[side], share, y);
  }
}

UnaryFunction unary_function_of(const Node& node) {
  return unary_function_named(node.name.c_str(), node.attributes.text("function"));
}

Shape infer_unary(const Graph& graph, const Node& node) {
  unary_function_of(node);
  return graph.shape(node.inputs[0]);
}

void unary_forward(Builder& builder, const Node& node) {
  const int input = node.inputs[0];
  add_elementwise(builder, "unary", node.name, builder.elements(input), builder.value(input),
                  builder.new_output(node),
                  [function = unary_function_of(node)](Context& context, const Kernels& kernels,
                                                       std::int64_t n, const float* x, float* y) {
                    kernels.unary(context, n, function, x, y);
                  });
}

void unary_backward(Builder& builder, const Node& node) {
  const int input = node.inputs[0];
  const UnaryFunction function = unary_function_of(node);
  if (!is_differentiable(function)) return;
  BufferId dy = builder.gradient(node.output);
  BufferId other = builder.value(gradient_from_output(function) ? node.output : input);
  BufferId dx = builder.new_like(input);
  Step& step = builder.step("unary_backward", node.name);
  step.reads = {dy, other};
  step.writes = {dx};
  step.reuses = {{dx, dy}};
  step.bind = [=, elements = builder.elements(input)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.unary_backward, n = at.n * elements, dy_data = at[dy],
            other_data = at[other], dx_data = at[dx]](Context& context) {
      kernel(context, n, function, dy_data, other_data, dx_data);
    };
  };
  builder.add_gradient(input, dx);
}

Shape infer_scale(const Graph& graph, const Node& node) {
  node.attributes.number("factor");
  node.attributes.number("offset", 0);
  return graph.shape(node.inputs[0]);
}

void add_scale(Builder& builder, const Node& node, LinearScale by, BufferId x, BufferId y) {
  add_elementwise(
      builder, "scale", node.name, builder.elements(node.output), x, y,
      [=](Context& context, const Kernels& kernels, std::int64_t n, const float* x_data,
          float* y_data) { kernels.scale(context, n, by.factor, by.offset, x_data, y_data); });
}

void scale_forward(Builder& builder, const Node& node) {
  add_scale(builder, node, linear_scale_of(node), builder.value(node.inputs[0]),
            builder.new_output(node));
}

void scale_backward(Builder& builder, const Node& node) {
  BufferId dx = builder.new_like(node.inputs[0]);
  add_scale(builder, node, {linear_scale_of(node).factor, 0.0f}, builder.gradient(node.output), dx);
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kAdd, kMultiply, kBinary, kWhere, kUnary, kScale;
const Lowering kAdd{"add", 2,     kAnyNumber,      0,           0,
                    {},    false, infer_broadcast, add_forward, add_backward};
const Lowering kMultiply{
    "multiply",       2, kAnyNumber, 0, 0, {}, false, infer_broadcast, multiply_forward,
    multiply_backward};
const Lowering kBinary{
    "binary", 2, 2, 0, 0, {"function"}, false, infer_binary, binary_forward, binary_backward};
const Lowering kWhere{"where",       3, 3, 0, 0, {}, false, infer_broadcast, where_forward,
                      where_backward};
const Lowering kUnary{"unary",       1, 1, 0, 0, {"function"}, false, infer_unary, unary_forward,
                      unary_backward};
const Lowering kScale{
    "scale", 1, 1, 0, 0, {"factor", "offset"}, false, infer_scale, scale_forward, scale_backward};

}  // namespace convlet
