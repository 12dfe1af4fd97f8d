// Activations that are not the epilogue of another step.
#include "plan/lowering.h"

namespace convlet {
namespace {

Shape infer(const Graph& graph, const Node& node) {
  alpha_of(node);
  return graph.shape(node.inputs[0]);
}

void forward(Builder& builder, const Node& node) {
  int input = node.inputs[0];
  Activation activation = activation_of(node);
  if (activation == Activation::none) {
    builder.set_value(node.output, builder.value(input));
    return;
  }
  add_elementwise(builder, "activation", node.name, builder.elements(input), builder.value(input),
                  builder.new_output(node),
                  [=, alpha = alpha_of(node)](Context& context, const Kernels& kernels,
                                              std::int64_t n, const float* x, float* y) {
                    kernels.activation(context, n, activation, alpha, x, y);
                  });
}

void backward(Builder& builder, const Node& node) {
  int input = node.inputs[0];
  Activation activation = activation_of(node);
  BufferId dy = builder.gradient(node.output);
  if (activation == Activation::none) {
    builder.add_gradient(input, dy);
    return;
  }
  BufferId other = builder.value(gradient_from_output(activation) ? node.output : input);
  BufferId dx = builder.new_like(input);
  Step& step = builder.step("activation_backward", node.name);
  step.reads = {dy, other};
  step.writes = {dx};
  step.reuses = {{dx, dy}};
  step.bind = [=, elements = builder.elements(input),
               alpha = alpha_of(node)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.activation_backward, n = at.n * elements, dy_data = at[dy],
            other_data = at[other], dx_data = at[dx]](Context& context) {
      kernel(context, n, activation, alpha, dy_data, other_data, dx_data);
    };
  };
  builder.add_gradient(input, dx);
}

}  // namespace

extern const Lowering kActivation;
const Lowering kActivation{"activation", 1,     1,       0,       0, {"activation", "alpha"},
                           false,        infer, forward, backward};

}  // namespace convlet
