// conv2d with weights laid out for it, where the device has a way for that (PreparedConv2d of
// ops/kernels.h): once for many batches, or, in training, in each step and only by Winograd's
// convolution, for the forward and the gradient of the input.
#include "plan/lowering/linear.h"
#include "plan/lowering/window.h"

namespace convlet {
namespace {

auto shapes_of(const Builder& builder, const Node& node) {
  return [&graph = builder.graph, &node, pool = builder.pool_of(node)](std::int64_t n) {
    return PooledConv2dShape(graph, node, pool, n);
  };
}

bool serves(const Builder& builder, const Node& node, const PreparedConv2d& way) {
  const PooledConv2dShape shapes = shapes_of(builder, node)(1);
  return way.run && way.bytes(shapes.conv, shapes.pooling()) > 0;
}

// Adds the step that prepares the weights when they have changed: in training, just before they are
// used, so that their memory is free after that.
BufferId prepare_weights(Builder& builder, const Node& node, const PreparedConv2d& way,
                         const char* name, BufferId w) {
  const PooledConv2dShape shapes = shapes_of(builder, node)(1);
  const auto bytes = static_cast<std::int64_t>(way.bytes(shapes.conv, shapes.pooling()));
  const bool train = builder.mode == Mode::train;
  const BufferId prepared = train ? builder.new_buffer(0, bytes) : builder.new_prepared(bytes);
  Step& step = train ? builder.step(name, node.name) : builder.prepare_step(name, node.name);
  step.reads = {w};
  step.writes = {prepared};
  step.bind = [=, prepare = way.prepare, shape = shapes.conv](const Binding& at) -> Run {
    return [=, w_data = at[w], to = at[prepared]](Context& context) {
      prepare(context, shape, w_data, to);
    };
  };
  return prepared;
}

void add_forward(Builder& builder, const Node& node, const PreparedConv2d& way, const char* name) {
  const FoldedWeights weights = weights_of(builder, node, false);
  const BufferId w = prepare_weights(builder, node, way, name, weights.weight);
  const BufferId x = builder.value(node.inputs[0]), bias = weights.bias;
  const int added = builder.residual_of(node);
  const BufferId residual = added < 0 ? kNone : builder.value(added);
  const BufferId y = builder.new_output(node);
  Step& step = builder.step(name, node.name);
  step.reads = {x, w, bias, residual};
  step.writes = {y};
  if (residual != x && way.in_place(shapes_of(builder, node)(1).conv))
    step.reuses = {{y, residual}};
  step.workspace = [shapes = shapes_of(builder, node), workspace = way.workspace](
                       const Kernels&, std::int64_t n, int threads) {
    const PooledConv2dShape s = shapes(n);
    return workspace(s.conv, s.pooling(), threads);
  };
  step.bind = [=, run = way.run, shapes = shapes_of(builder, node),
               activation = builder.epilogue_of(node)](const Binding& at) -> Run {
    return
        [=, s = shapes(at.n), x_data = at[x], w_data = at[w], bias_data = at[bias],
         residual_data = at[residual], y_data = at[y], workspace = at.workspace](Context& context) {
          run(context, s.conv, s.pooling(), x_data, w_data, bias_data, residual_data, activation,
              y_data, workspace);
        };
  };
}

}  // namespace

bool prepared_conv2d_forward(Builder& builder, const Node& node) {
  const bool train = builder.mode == Mode::train;
  if (train && builder.pool_of(node)) return false;  // its backward needs the choices
  const Kernels& kernels = builder.kernels;
  if (builder.winograd && serves(builder, node, kernels.conv2d_winograd))
    add_forward(builder, node, kernels.conv2d_winograd, "conv2d_winograd");
  else if (!train && serves(builder, node, kernels.conv2d_packed))
    add_forward(builder, node, kernels.conv2d_packed, "conv2d_packed");
  else
    return false;
  return true;
}

bool winograd_backward_input(Builder& builder, const Node& node) {
  const PreparedConv2d& way = builder.kernels.conv2d_winograd_backward_input;
  if (!builder.winograd || !serves(builder, node, way)) return false;
  const char* name = "conv2d_winograd_backward_input";
  const BufferId w =
      prepare_weights(builder, node, way, name, builder.parameter(node.parameters[0]));
  const BufferId dy = builder.gradient(node.output), dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step(name, node.name);
  step.reads = {dy, w};
  step.writes = {dx};
  step.workspace = [&graph = builder.graph, &node, workspace = way.workspace](
                       const Kernels&, std::int64_t n, int threads) {
    return workspace(conv2d_shape(graph, node, n), nullptr, threads);
  };
  step.bind = [=, &graph = builder.graph, &node, run = way.run](const Binding& at) -> Run {
    return [=, shape = conv2d_shape(graph, node, at.n), dy_data = at[dy], w_data = at[w],
            dx_data = at[dx], workspace = at.workspace](Context& context) {
      run(context, shape, nullptr, dy_data, w_data, nullptr, nullptr, Activation::none, dx_data,
          workspace);
    };
  };
  builder.add_gradient(node.inputs[0], dx);
  return true;
}

}  // namespace convlet
