// conv2d of a batch of bytes, where the device has a way for that (ByteConv2d of ops/kernels.h):
// with the scale and the normalization before it, and the activation and the max pooling after it.
#include "plan/lowering/linear.h"
#include "plan/lowering/window.h"

namespace convlet {
namespace {

auto shape_of(const Builder& builder, const Node& node) {
  return [&graph = builder.graph, &node, pool = builder.pool_of(node)](std::int64_t n) {
    return PooledConv2dShape(graph, node, pool, n);
  };
}

auto workspace_of(const Builder& builder, const Node& node, Pass pass) {
  return [=, shape = shape_of(builder, node)](const Kernels& kernels, std::int64_t n, int threads) {
    const PooledConv2dShape s = shape(n);
    return s.pool ? kernels.conv2d_pool_workspace({s.conv, *s.pool}, pass, threads)
                  : kernels.conv2d_workspace(s.conv, pass, threads);
  };
}

// The input as the kernels read it.
struct Source {
  BufferId x;
  LinearScale by;
  GivenStatistics norm;

  ByteImages images(const Binding& at) const {
    return {at.at<std::uint8_t>(x), by.factor,         by.offset,
            at[norm.mean],          at[norm.variance], norm.epsilon};
  }
};

Source source_of(const Builder& builder, const Node& node) {
  const Node* norm = builder.normalization_of(node);
  return {builder.value(builder.bytes_of(node)), builder.scale_of(node),
          norm ? given_statistics(builder, *norm) : GivenStatistics()};
}

}  // namespace

bool conv2d_bytes_forward(Builder& builder, const Node& node) {
  if (builder.bytes_of(node) < 0) return false;
  const FoldedWeights weights = weights_of(builder, node);
  BufferId w = weights.weight, bias = weights.bias;
  const Source source = source_of(builder, node);
  BufferId y = builder.new_output(node), choice = kNone;
  if (builder.pool_of(node) && builder.needs_gradient(builder.gradient_of(node))) {
    choice = builder.new_buffer(builder.elements(builder.output_of(node)), 0, false);
    builder.saved(node) = {choice};
  }
  Step& step = builder.step("conv2d_bytes", node.name);
  step.reads = {source.x, source.norm.mean, source.norm.variance, w, bias};
  step.writes = {y, choice};
  step.workspace = workspace_of(builder, node, Pass::forward);
  step.bind = [=, shape = shape_of(builder, node),
               activation = builder.epilogue_of(node)](const Binding& at) -> Run {
    return [=, kernel = at.kernels.conv2d_bytes.run, s = shape(at.n), images = source.images(at),
            w_data = at[w], bias_data = at[bias], y_data = at[y],
            choice_data = at.at<std::uint8_t>(choice), workspace = at.workspace](Context& context) {
      kernel(context, s.conv, s.pooling(), images, w_data, bias_data, activation, y_data,
             choice_data, workspace);
    };
  };
  return true;
}

bool conv2d_bytes_backward_weight(Builder& builder, const Node& node, BufferId dy,
                                  BufferId choice) {
  if (builder.bytes_of(node) < 0) return false;
  if (!builder.needs_parameter_gradient(node.parameters[0])) return true;
  const Source source = source_of(builder, node);
  builder.add_parameter_gradient(node.parameters[0], [&](BufferId dw) {
    Step& step = builder.step("conv2d_bytes_backward_weight", node.name);
    step.reads = {dy, choice, source.x, source.norm.mean, source.norm.variance};
    step.writes = {dw};
    step.workspace = workspace_of(builder, node, Pass::backward_weight);
    step.bind = [=, shape = shape_of(builder, node)](const Binding& at) -> Run {
      return
          [=, kernel = at.kernels.conv2d_bytes.backward_weight, s = shape(at.n),
           images = source.images(at), dy_data = at[dy], choice_data = at.at<std::uint8_t>(choice),
           dw_data = at[dw], workspace = at.workspace](Context& context) {
            kernel(context, s.conv, s.pooling(), dy_data, choice_data, images, dw_data, workspace);
          };
    };
  });
  return true;
}

}  // namespace convlet
