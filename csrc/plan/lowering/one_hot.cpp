// one_hot: (...) labels as floats -> (..., classes). It has no gradient.
#include "plan/lowering.h"

namespace convlet {
namespace {

Shape infer(const Graph& graph, const Node& node) {
  const std::int64_t classes = node.attributes.integer("classes", 0);
  if (classes < 1 || classes > std::int64_t{1} << 24)
    value_error(node.name, ": one_hot expected classes in [1, 2^24], got ", classes);
  Shape y = graph.shape(node.inputs[0]);
  y.push_back(classes);
  return y;
}

void forward(Builder& builder, const Node& node) {
  const int input = node.inputs[0];
  const BufferId x = builder.value(input), y = builder.new_output(node);
  Step& step = builder.step("one_hot", node.name);
  step.reads = {x};
  step.writes = {y};
  step.bind = [=, labels = builder.elements(input),
               classes = node.attributes.integer("classes", 0)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.one_hot, rows = at.n * labels, x_data = at[x],
            y_data = at[y]](Context& context) { kernel(context, rows, classes, x_data, y_data); };
  };
}

void backward(Builder&, const Node&) {}

}  // namespace

extern const Lowering kOneHot;
const Lowering kOneHot{"one_hot", 1, 1, 0, 0, {"classes"}, false, infer, forward, backward};

}  // namespace convlet
