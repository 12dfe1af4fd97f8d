// dropout (ops/dropout.h): in train mode what is drawn - elements, channels or whole samples - is
// kept with probability 1 - rate and divided by it; elsewhere the identity. The random numbers of a
// layer are those of the stream whose number is its output value's.
#include "plan/lowering.h"

namespace convlet {
namespace {

DropoutShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  return check_dropout((node.name + ": dropout").c_str(), graph.shape(node.inputs[0]).with_front(n),
                       node.attributes.number("rate"), node.attributes.text("noise", "element"));
}

Shape infer(const Graph& graph, const Node& node) {
  shape_of(graph, node, 1);
  return graph.shape(node.inputs[0]);
}

bool is_identity(const Builder& builder, const Node& node) {
  return builder.mode != Mode::train || node.attributes.number("rate") == 0;
}

void add_dropout(Builder& builder, const Node& node, BufferId x, BufferId y) {
  Step& step = builder.step("dropout", node.name);
  step.reads = {x};
  step.writes = {y};
  step.reuses = {{y, x}};
  step.bind = [=, &graph = builder.graph, &node,
               rate = static_cast<float>(node.attributes.number("rate")),
               stream = static_cast<std::uint64_t>(node.output)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.dropout, shape = shape_of(graph, node, at.n), random = at.random,
            x_data = at[x], y_data = at[y]](Context& context) {
      kernel(context, shape, rate, random, stream, x_data, y_data);
    };
  };
}

void forward(Builder& builder, const Node& node) {
  BufferId x = builder.value(node.inputs[0]);
  if (is_identity(builder, node)) {
    builder.set_value(node.output, x);
  } else {
    add_dropout(builder, node, x, builder.new_output(node));
  }
}

void backward(Builder& builder, const Node& node) {
  BufferId dy = builder.gradient(node.output);
  if (is_identity(builder, node)) {
    builder.add_gradient(node.inputs[0], dy);
    return;
  }
  BufferId dx = builder.new_like(node.inputs[0]);
  add_dropout(builder, node, dy, dx);
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kDropout;
const Lowering kDropout{"dropout", 1, 1, 0, 0, {"rate", "noise"}, false, infer, forward, backward};

}  // namespace convlet
