// reshape: the same memory under another shape, forward and backward.
#include "plan/lowering.h"

namespace convlet {
namespace {

Shape infer(const Graph& graph, const Node& node) {
  const Shape& from = graph.shape(node.inputs[0]);
  Shape to;
  for (std::int64_t size : node.attributes.integers("shape")) {
    if (size <= 0)
      value_error(node.name, ": reshape expected positive sizes, got ", size, " in 'shape'");
    to.push_back(size);
  }
  if (to.elements() != from.elements())
    value_error(node.name, ": reshape expected a shape of ", from.elements(),
                " elements for samples ", from, ", got ", to);
  return to;
}

void forward(Builder& builder, const Node& node) {
  builder.set_value(node.output, builder.value(node.inputs[0]));
}

void backward(Builder& builder, const Node& node) {
  builder.add_gradient(node.inputs[0], builder.gradient(node.output));
}

}  // namespace

extern const Lowering kReshape;
const Lowering kReshape{"reshape", 1, 1, 0, 0, {"shape"}, false, infer, forward, backward};

}  // namespace convlet
