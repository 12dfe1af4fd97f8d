// batch_norm inside a plan: see ops/batch_norm.h for the formula. In train mode it takes the
// statistics of the batch, and the moving averages follow them in the update, so that a loss that
// is not finite changes nothing. With `training` false, and in the other modes, the moving averages
// are the statistics.
#include "plan/lowering/batch_norm.h"

namespace convlet {
namespace {

constexpr double kMomentum = 0.99, kEpsilon = 1e-3;  // Keras' defaults

BatchNormShape shape_of(const Graph& graph, const Node& node, bool training, std::int64_t n) {
  return check_batch_norm(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n), training,
                          node.attributes.number("epsilon", kEpsilon));
}

// The same inside a plan: whether it takes the batch's statistics, and the fused activation.
std::function<BatchNormShape(std::int64_t)> shape_in(const Builder& builder, const Node& node);

// The parameters of a node by what they are; gamma and beta may be -1.
struct Parameters {
  int gamma = -1, beta = -1, mean, variance;
};

Parameters parameters_of(const Node& node) {
  Parameters p;
  std::size_t next = 0;
  if (node.attributes.boolean("scale", true)) p.gamma = node.parameters[next++];
  if (node.attributes.boolean("center", true)) p.beta = node.parameters[next++];
  p.mean = node.parameters[next++];
  p.variance = node.parameters[next];
  return p;
}

Shape infer(const Graph& graph, const Node& node) {
  const Shape& sample = graph.shape(node.inputs[0]);
  if (sample.rank() == 0)
    value_error(node.name, ": batch_norm expected samples with an axis of channels, got shape ()");
  const std::int64_t channels = shape_of(graph, node, true, 1).C;
  check_momentum(node.name.c_str(), node.attributes.number("momentum", kMomentum));
  node.attributes.boolean("training", true);
  const int expected =
      2 + node.attributes.boolean("scale", true) + node.attributes.boolean("center", true);
  if (static_cast<int>(node.parameters.size()) != expected)
    value_error(node.name, ": batch_norm expected ", expected,
                " parameters (gamma if 'scale', beta if 'center', moving mean, moving variance), ",
                "got ", node.parameters.size());
  for (int id : node.parameters)
    if (graph.parameter_shape(id) != Shape{channels})
      value_error(node.name, ": batch_norm expected parameters of shape ", Shape{channels},
                  ", got ", graph.parameter_shape(id));
  const Parameters p = parameters_of(node);
  for (int id : {p.mean, p.variance})
    if (graph.parameters()[id].trainable)
      value_error(node.name, ": batch_norm expected moving averages that are not trainable, got '",
                  graph.parameters()[id].name, "'");
  return sample;
}

bool uses_batch(const Node& node, Mode mode) {
  return mode == Mode::train && node.attributes.boolean("training", true);
}

BufferId optional_parameter(const Builder& builder, int id) {
  return id < 0 ? kNone : builder.parameter(id);
}

void add_statistics(Builder& builder, const Node& node, BufferId x, BufferId mean,
                    BufferId variance) {
  auto rows_of = [&graph = builder.graph, &node](std::int64_t n) -> RowsShape {
    const BatchNormShape s = shape_of(graph, node, true, n);
    return {s.N, s.C};
  };
  Step& step = builder.step("channel_statistics", node.name);
  step.reads = {x};
  step.writes = {mean, variance};
  step.workspace = [=](const Kernels& kernels, std::int64_t n, int) {
    return kernels.channel_statistics_workspace(rows_of(n));
  };
  step.bind = [=](const Binding& at) -> Run {
    return [kernel = at.kernels.channel_statistics, rows = rows_of(at.n), x_data = at[x],
            mean_data = at[mean], variance_data = at[variance],
            workspace = at.workspace](Context& context) {
      kernel(context, rows, x_data, mean_data, variance_data, workspace);
    };
  };
}

// moving = momentum * moving + (1 - momentum) * batch, where the loss is finite.
void follow(Builder& builder, const Node& node, BufferId batch, int moving) {
  builder.after_batch([=, &node](Builder& b) {
    const BufferId average = b.parameter(moving);
    Step& step = b.step("moving_average", node.name);
    step.reads = {batch, average};
    step.writes = {average};
    step.bind = [=, n = b.graph.parameter_shape(moving).elements(),
                 momentum =
                     node.attributes.number("momentum", kMomentum)](const Binding& at) -> Run {
      return [=, kernel = at.kernels.moving_average, from = at[batch], to = at[average],
              halt = at.halt](Context& context) { kernel(context, n, momentum, halt, from, to); };
    };
  });
}

// The buffers with the mean and the variance that a node normalises by.
std::vector<BufferId> statistics(Builder& builder, const Node& node, BufferId x) {
  const Parameters p = parameters_of(node);
  if (!uses_batch(node, builder.mode))
    return {builder.parameter(p.mean), builder.parameter(p.variance)};
  const std::int64_t bytes =
      builder.graph.parameter_shape(p.mean).elements() * std::int64_t{sizeof(float)};
  const BufferId mean = builder.new_buffer(0, bytes), variance = builder.new_buffer(0, bytes);
  add_statistics(builder, node, x, mean, variance);
  follow(builder, node, mean, p.mean);
  follow(builder, node, variance, p.variance);
  return {mean, variance};
}

std::function<BatchNormShape(std::int64_t)> shape_in(const Builder& builder, const Node& node) {
  return [&graph = builder.graph, &node, training = uses_batch(node, builder.mode),
          activation = builder.epilogue_of(node)](std::int64_t n) {
    BatchNormShape shape = shape_of(graph, node, training, n);
    shape.activation = activation;
    return shape;
  };
}

BufferId residual_in(const Builder& builder, const Node& node) {
  const int residual = builder.residual_of(node);
  return residual < 0 ? kNone : builder.value(residual);
}

void forward(Builder& builder, const Node& node) {
  const Parameters p = parameters_of(node);
  const BufferId x = builder.value(node.inputs[0]), residual = residual_in(builder, node);
  const std::vector<BufferId> saved = statistics(builder, node, x);
  const BufferId mean = saved[0], variance = saved[1];
  const BufferId gamma = optional_parameter(builder, p.gamma);
  const BufferId beta = optional_parameter(builder, p.beta);
  const BufferId y = builder.new_output(node);
  builder.saved(node) = saved;
  Step& step = builder.step("batch_norm", node.name);
  step.reads = {x, mean, variance, gamma, beta, residual};
  step.writes = {y};
  step.reuses = {{y, x}, {y, residual}};
  step.workspace = [shape = shape_in(builder, node)](const Kernels& kernels, std::int64_t n, int) {
    return kernels.batch_norm_workspace(shape(n));
  };
  step.bind = [=, shape = shape_in(builder, node)](const Binding& at) -> Run {
    const BatchNormInputs inputs = {at[x],     at[mean], at[variance],
                                    at[gamma], at[beta], at[residual]};
    return [inputs, kernel = at.kernels.batch_norm, s = shape(at.n), y_data = at[y],
            workspace = at.workspace](Context& context) {
      kernel(context, s, inputs, y_data, workspace);
    };
  };
}

struct GradientBuffers {
  BufferId dx, dgamma, dbeta, dresidual;
};

void add_backward(Builder& builder, const Node& node, GradientBuffers d) {
  const Parameters p = parameters_of(node);
  const BufferId x = builder.value(node.inputs[0]);
  const BufferId dy = builder.gradient(builder.gradient_of(node));
  const BufferId mean = builder.saved(node)[0], variance = builder.saved(node)[1];
  const BufferId gamma = optional_parameter(builder, p.gamma);
  const BufferId beta = optional_parameter(builder, p.beta);
  // Without a residual the activation's input is made again from x.
  const bool reads_y =
      builder.residual_of(node) >= 0 && builder.epilogue_of(node) != Activation::none;
  const BufferId y = reads_y ? builder.value(builder.output_of(node)) : kNone;
  Step& step = builder.step("batch_norm_backward", node.name);
  step.reads = {dy, x, y, mean, variance, gamma, beta};
  step.writes = {d.dx, d.dgamma, d.dbeta, d.dresidual};
  step.reuses = {{d.dresidual, dy}, {d.dx, x}, {d.dx, dy}, {d.dx, y}, {d.dresidual, y}};
  step.workspace = [shape = shape_in(builder, node)](const Kernels& kernels, std::int64_t n, int) {
    return kernels.batch_norm_backward_workspace(shape(n));
  };
  step.bind = [=, shape = shape_in(builder, node)](const Binding& at) -> Run {
    const BatchNormInputs inputs = {at[x], at[mean], at[variance], at[gamma], at[beta], nullptr};
    const BatchNormGradients gradients = {at[d.dx], at[d.dgamma], at[d.dbeta], at[d.dresidual]};
    return [inputs, gradients, kernel = at.kernels.batch_norm_backward, s = shape(at.n),
            dy_data = at[dy], y_data = at[y], workspace = at.workspace](Context& context) {
      kernel(context, s, inputs, dy_data, y_data, gradients, workspace);
    };
  };
}

void backward(Builder& builder, const Node& node) {
  const Parameters p = parameters_of(node);
  const int input = node.inputs[0], residual = builder.residual_of(node);
  const bool to_residual = residual >= 0 && builder.needs_gradient(residual);
  GradientBuffers d{kNone, kNone, kNone, kNone};
  if (builder.needs_gradient(input)) d.dx = builder.new_like(input);
  if (to_residual && builder.epilogue_of(node) != Activation::none)
    d.dresidual = builder.new_like(residual);

  auto with_gradient = [&](int id, auto&& next) {
    if (id < 0 || !builder.needs_parameter_gradient(id)) return next(kNone);
    builder.add_parameter_gradient(id, next);
  };
  if (builder.needs_gradient(node.output) || d.dresidual != kNone)
    with_gradient(p.gamma, [&](BufferId dgamma) {
      with_gradient(p.beta, [&](BufferId dbeta) {
        d.dgamma = dgamma;
        d.dbeta = dbeta;
        add_backward(builder, node, d);
      });
    });
  if (d.dx != kNone) builder.add_gradient(input, d.dx);
  // Without an activation between, the residual's share is dy itself.
  if (to_residual)
    builder.add_gradient(
        residual, d.dresidual != kNone ? d.dresidual : builder.gradient(builder.gradient_of(node)));
}

}  // namespace

FoldedWeights fold_batch_norm(Builder& builder, const Node& linear, const Node& norm, bool kept) {
  const Parameters p = parameters_of(norm);
  const BufferId w = builder.parameter(linear.parameters[0]);
  const BufferId bias =
      linear.parameters.size() < 2 ? kNone : builder.parameter(linear.parameters[1]);
  const BufferId mean = builder.parameter(p.mean), variance = builder.parameter(p.variance);
  const BufferId gamma = optional_parameter(builder, p.gamma);
  const BufferId beta = optional_parameter(builder, p.beta);
  BatchNormShape shape = shape_of(builder.graph, norm, false, 1);
  const std::int64_t elements = builder.graph.parameter_shape(linear.parameters[0]).elements();
  shape.N = elements / shape.C;
  const std::int64_t bytes = elements * std::int64_t{sizeof(float)};
  const FoldedWeights folded{kept ? builder.new_prepared(bytes) : builder.new_buffer(0, bytes),
                             builder.new_prepared(shape.C * std::int64_t{sizeof(float)})};
  Step& step = builder.prepare_step("fold_batch_norm", norm.name);
  step.reads = {w, bias, mean, variance, gamma, beta};
  step.writes = {folded.weight, folded.bias};
  step.workspace = [shape](const Kernels& kernels, std::int64_t, int) {
    return kernels.batch_norm_workspace(shape);
  };
  step.bind = [=](const Binding& at) -> Run {
    const BatchNormInputs inputs = {at[w], at[mean], at[variance], at[gamma], at[beta], nullptr};
    return [=, kernel = at.kernels.fold_batch_norm, old_bias = at[bias],
            new_weight = at[folded.weight], new_bias = at[folded.bias],
            workspace = at.workspace](Context& context) {
      kernel(context, shape, inputs, old_bias, new_weight, new_bias, workspace);
    };
  };
  return folded;
}

bool only_normalises(const Node& norm, Mode mode) {
  const Parameters p = parameters_of(norm);
  return p.gamma < 0 && p.beta < 0 && !uses_batch(norm, mode);
}

GivenStatistics given_statistics(const Builder& builder, const Node& norm) {
  const Parameters p = parameters_of(norm);
  return {builder.parameter(p.mean), builder.parameter(p.variance),
          shape_of(builder.graph, norm, false, 1).epsilon};
}

extern const Lowering kBatchNorm;
const Lowering kBatchNorm{"batch_norm",
                          1,
                          1,
                          2,
                          4,
                          {"scale", "center", "momentum", "epsilon", "training"},
                          false,
                          infer,
                          forward,
                          backward};

}  // namespace convlet
