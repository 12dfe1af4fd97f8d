// reduce: the sum, mean, largest or smallest value over axes of the samples (ops/reduce.h).
#include "plan/lowering/operand.h"

namespace convlet {
namespace {

ReduceFunction function_of(const Node& node) {
  return reduce_function_named(node.name.c_str(), node.attributes.text("function"));
}

Shape infer(const Graph& graph, const Node& node) {
  return reduced_shape(node.name.c_str(), function_of(node), graph.shape(node.inputs[0]),
                       node.attributes.integers("axes"),
                       node.attributes.boolean("keepdims", false));
}

// For n rows: axes of samples come after that of the batch.
std::function<ReduceShape(std::int64_t)> shape_of(const Builder& builder, const Node& node) {
  std::vector<std::int64_t> axes = node.attributes.integers("axes");
  for (std::int64_t& axis : axes) ++axis;
  return [axes, sample = builder.graph.shape(node.inputs[0])](std::int64_t n) {
    return reduction(sample.with_front(n), axes);
  };
}

void forward(Builder& builder, const Node& node) {
  add_reduce(builder, node.name, function_of(node), builder.value(node.inputs[0]),
             builder.new_output(node), shape_of(builder, node));
}

void backward(Builder& builder, const Node& node) {
  const ReduceFunction function = function_of(node);
  const bool extreme = function == ReduceFunction::max || function == ReduceFunction::min;
  const BufferId dy = builder.gradient(node.output);
  const BufferId x = extreme ? builder.value(node.inputs[0]) : kNone;
  const BufferId y = extreme ? builder.value(node.output) : kNone;
  const BufferId dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step("reduce_backward", node.name);
  step.reads = {dy, x, y};
  step.writes = {dx};
  step.bind = [=, shape_of = shape_of(builder, node)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.reduce_backward, shape = shape_of(at.n), dy_data = at[dy],
            x_data = at[x], y_data = at[y], dx_data = at[dx]](Context& context) {
      kernel(context, shape, function, dy_data, x_data, y_data, dx_data);
    };
  };
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kReduce;
const Lowering kReduce{"reduce", 1,     1,       0,       0, {"function", "axes", "keepdims"},
                       false,    infer, forward, backward};

}  // namespace convlet
