// A conv2d with its activation and the max pooling after it as one: see ops/conv2d_pool.h.
#include "plan/lowering/linear.h"
#include "plan/lowering/window.h"

namespace convlet {
namespace {

auto shape_of(const Builder& builder, const Node& node) {
  return [&graph = builder.graph, &node, &pool = *builder.pool_of(node)](std::int64_t n) {
    return conv2d_pool_shape(conv2d_shape(graph, node, n), pool2d_shape(graph, pool, n));
  };
}

auto workspace_of(const Builder& builder, const Node& node, Pass pass) {
  return [=, shape = shape_of(builder, node)](const Kernels& kernels, std::int64_t n, int threads) {
    return kernels.conv2d_pool_workspace(shape(n), pass, threads);
  };
}

// The gradient of the output and the forward's choices.
struct OutputGradient {
  BufferId dy, choice;
};

void backward_weight(Builder& builder, const Node& node, OutputGradient g) {
  BufferId x = builder.value(node.inputs[0]);
  builder.add_parameter_gradient(node.parameters[0], [&](BufferId dw) {
    Step& step = builder.step("conv2d_pool_backward_weight", node.name);
    step.reads = {g.dy, g.choice, x};
    step.writes = {dw};
    step.workspace = workspace_of(builder, node, Pass::backward_weight);
    step.bind = [=, shape = shape_of(builder, node)](const Binding& at) -> Run {
      return [kernel = at.kernels.conv2d_pool_backward_weight, shape = shape(at.n),
              dy_data = at[g.dy], choice = at.at<std::uint8_t>(g.choice), x_data = at[x],
              dw_data = at[dw], workspace = at.workspace](Context& context) {
        kernel(context, shape, dy_data, choice, x_data, dw_data, workspace);
      };
    };
  });
}

void backward_bias(Builder& builder, const Node& node, OutputGradient g) {
  builder.add_parameter_gradient(node.parameters[1], [&](BufferId db) {
    Step& step = builder.step("conv2d_pool_backward_bias", node.name);
    step.reads = {g.dy, g.choice};
    step.writes = {db};
    step.workspace = [shape = shape_of(builder, node)](const Kernels& kernels, std::int64_t n,
                                                       int) {
      const Pool2dShape pool = shape(n).pool;
      return kernels.bias_gradient_workspace({pool.N * pool.P * pool.Q, pool.C});
    };
    step.bind = [=, shape = shape_of(builder, node)](const Binding& at) -> Run {
      return [kernel = at.kernels.conv2d_pool_backward_bias, shape = shape(at.n),
              dy_data = at[g.dy], choice = at.at<std::uint8_t>(g.choice), db_data = at[db],
              workspace = at.workspace](Context& context) {
        kernel(context, shape, dy_data, choice, db_data, workspace);
      };
    };
  });
}

void backward_input(Builder& builder, const Node& node, OutputGradient g) {
  BufferId w = builder.parameter(node.parameters[0]), dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step("conv2d_pool_backward_input", node.name);
  step.reads = {g.dy, g.choice, w};
  step.writes = {dx};
  step.workspace = workspace_of(builder, node, Pass::backward_input);
  step.bind = [=, shape = shape_of(builder, node)](const Binding& at) -> Run {
    return [kernel = at.kernels.conv2d_pool_backward_input, shape = shape(at.n), dy_data = at[g.dy],
            choice = at.at<std::uint8_t>(g.choice), w_data = at[w], dx_data = at[dx],
            workspace = at.workspace](Context& context) {
      kernel(context, shape, dy_data, choice, w_data, dx_data, workspace);
    };
  };
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

void conv2d_pool_forward(Builder& builder, const Node& node) {
  const FoldedWeights weights = weights_of(builder, node);
  BufferId w = weights.weight, bias = weights.bias;
  BufferId x = builder.value(node.inputs[0]), y = builder.new_output(node), choice = kNone;
  if (builder.needs_gradient(builder.gradient_of(node))) {
    choice = builder.new_buffer(builder.elements(builder.output_of(node)), 0, false);
    builder.saved(node) = {choice};
  }
  Step& step = builder.step("conv2d_pool", node.name);
  step.reads = {x, w, bias};
  step.writes = {y, choice};
  step.workspace = workspace_of(builder, node, Pass::forward);
  step.bind = [=, shape = shape_of(builder, node),
               activation = builder.epilogue_of(node)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.conv2d_pool, shape = shape(at.n), x_data = at[x], w_data = at[w],
            bias_data = at[bias], y_data = at[y], choice_data = at.at<std::uint8_t>(choice),
            workspace = at.workspace](Context& context) {
      kernel(context, shape, x_data, w_data, bias_data, activation, y_data, choice_data, workspace);
    };
  };
}

void conv2d_pool_backward(Builder& builder, const Node& node) {
  const OutputGradient g = {builder.gradient(builder.gradient_of(node)), builder.saved(node)[0]};
  if (!conv2d_bytes_backward_weight(builder, node, g.dy, g.choice) &&
      builder.needs_parameter_gradient(node.parameters[0]))
    backward_weight(builder, node, g);
  if (node.parameters.size() > 1 && builder.needs_parameter_gradient(node.parameters[1]))
    backward_bias(builder, node, g);
  if (builder.needs_gradient(node.inputs[0])) backward_input(builder, node, g);
}

}  // namespace convlet
