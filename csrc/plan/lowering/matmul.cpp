// matmul: products of the matrices in the last two axes of samples (ops/matmul.h). Both gradients
// are such products too.
#include "plan/lowering.h"

namespace convlet {
namespace {

MatmulShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  return check_matmul(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n),
                      graph.shape(node.inputs[1]).with_front(n),
                      node.attributes.boolean("transpose_a", false),
                      node.attributes.boolean("transpose_b", false));
}

Shape infer(const Graph& graph, const Node& node) {
  for (int input : node.inputs)
    if (graph.shape(input).rank() < 2)
      value_error(node.name, ": matmul expected samples of at least 2 axes, got ",
                  graph.shape(node.inputs[0]), " and ", graph.shape(node.inputs[1]));
  const Shape a = graph.shape(node.inputs[0]).with_front(1);
  return matmul_shape(a, shape_of(graph, node, 1)).without_front();
}

template <class ShapeOf>
void add_matmul(Builder& builder, const Node& node, BufferId a, BufferId b, BufferId y,
                ShapeOf shape_of) {
  Step& step = builder.step("matmul", node.name);
  step.reads = {a, b};
  step.writes = {y};
  step.workspace = [=](const Kernels& kernels, std::int64_t n, int threads) {
    return kernels.matmul_workspace(shape_of(n), threads);
  };
  step.bind = [=](const Binding& at) -> Run {
    return [kernel = at.kernels.matmul, shape = shape_of(at.n), a_data = at[a], b_data = at[b],
            y_data = at[y], workspace = at.workspace](Context& context) {
      kernel(context, shape, a_data, b_data, y_data, workspace);
    };
  };
}

void forward(Builder& builder, const Node& node) {
  add_matmul(builder, node, builder.value(node.inputs[0]), builder.value(node.inputs[1]),
             builder.new_output(node),
             [&graph = builder.graph, &node](std::int64_t n) { return shape_of(graph, node, n); });
}

void backward(Builder& builder, const Node& node) {
  const BufferId dy = builder.gradient(node.output);
  for (int side = 0; side < 2; ++side) {
    if (!builder.needs_gradient(node.inputs[side])) continue;
    auto gradient = side == 0 ? gradient_of_a : gradient_of_b;
    const BufferId other = builder.value(node.inputs[1 - side]);
    const BufferId share = builder.new_like(node.inputs[side]);
    const bool dy_first = gradient(shape_of(builder.graph, node, 1)).dy_first;
    add_matmul(builder, node, dy_first ? dy : other, dy_first ? other : dy, share,
               [=, &graph = builder.graph, &node](std::int64_t n) {
                 return gradient(shape_of(graph, node, n)).shape;
               });
    builder.add_gradient(node.inputs[side], share);
  }
}

}  // namespace

extern const Lowering kMatmul;
const Lowering kMatmul{"matmul", 2,     2,       0,       0, {"transpose_a", "transpose_b"},
                       false,    infer, forward, backward};

}  // namespace convlet
