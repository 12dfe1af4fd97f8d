// parameter: a parameter as a value, the same for every sample: position embeddings, class tokens,
// the factors of a layer scale. Ops that broadcast read it where it lies (operand.h); for others it
// is repeated over the batch.
#include "plan/lowering/operand.h"

namespace convlet {
namespace {

Shape infer(const Graph& graph, const Node& node) {
  return graph.parameter_shape(node.parameters[0]);
}

// Whether anything needs the repeated value.
bool is_repeated(const Builder& builder, const Node& node) {
  for (int output : builder.graph.outputs())
    if (output == node.output) return true;
  for (const Node& reader : builder.graph.nodes())
    for (int input : reader.inputs)
      if (input == node.output && !reads_parameters_in_place(reader.op)) return true;
  return false;
}

void forward(Builder& builder, const Node& node) {
  if (!is_repeated(builder, node)) return;
  const BufferId p = builder.parameter(node.parameters[0]), y = builder.new_output(node);
  Step& step = builder.step("strided_copy", node.name);
  step.reads = {p};
  step.writes = {y};
  step.bind = [=, sample = builder.graph.shape(node.output)](const Binding& at) -> Run {
    return [kernel = at.kernels.strided_copy,
            shape = broadcast_to(sample.with_front(at.n), {sample}), p_data = at[p],
            y_data = at[y]](Context& context) { kernel(context, shape, p_data, y_data); };
  };
}

void backward(Builder& builder, const Node& node) {
  if (!builder.needs_parameter_gradient(node.parameters[0])) return;
  const BufferId dy = builder.gradient(node.output);
  builder.add_parameter_gradient(node.parameters[0], [&](BufferId gradient) {
    add_reduce(builder, node.name, ReduceFunction::sum, dy, gradient,
               [sample = builder.graph.shape(node.output)](std::int64_t n) {
                 return reduction_to(sample.with_front(n), sample);
               });
  });
}

}  // namespace

extern const Lowering kParameter;
const Lowering kParameter{"parameter", 0, 0, 1, 1, {}, false, infer, forward, backward};

}  // namespace convlet
