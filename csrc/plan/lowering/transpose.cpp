// transpose: the axes of samples in another order. Its gradient is the reverse order.
#include "plan/lowering.h"

namespace convlet {
namespace {

Shape infer(const Graph& graph, const Node& node) {
  return transposed_shape(node.name.c_str(), graph.shape(node.inputs[0]),
                          node.attributes.integers("permutation"));
}

// `order`: of the axes of samples, which come after that of the batch.
void add_transpose(Builder& builder, const Node& node, const Shape& sample,
                   const std::vector<std::int64_t>& order, BufferId x, BufferId y) {
  std::vector<std::int64_t> batch_order{0};
  for (std::int64_t axis : order) batch_order.push_back(axis + 1);
  Step& step = builder.step("strided_copy", node.name);
  step.reads = {x};
  step.writes = {y};
  step.bind = [=](const Binding& at) -> Run {
    return [kernel = at.kernels.strided_copy,
            shape = transposed(sample.with_front(at.n), batch_order), x_data = at[x],
            y_data = at[y]](Context& context) { kernel(context, shape, x_data, y_data); };
  };
}

void forward(Builder& builder, const Node& node) {
  add_transpose(builder, node, builder.graph.shape(node.inputs[0]),
                node.attributes.integers("permutation"), builder.value(node.inputs[0]),
                builder.new_output(node));
}

void backward(Builder& builder, const Node& node) {
  const std::vector<std::int64_t> order = node.attributes.integers("permutation");
  std::vector<std::int64_t> reverse(order.size());
  for (std::size_t i = 0; i < order.size(); ++i)
    reverse[static_cast<std::size_t>(order[i])] = static_cast<std::int64_t>(i);
  const BufferId dx = builder.new_like(node.inputs[0]);
  add_transpose(builder, node, builder.graph.shape(node.output), reverse,
                builder.gradient(node.output), dx);
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kTranspose;
const Lowering kTranspose{"transpose",     1,     1,     0,       0,
                          {"permutation"}, false, infer, forward, backward};

}  // namespace convlet
