// Losses, metrics and regularizers' penalties: the steps between the forward and the backward of
// the nodes.
#include "plan/lowering.h"

namespace convlet {
namespace {

constexpr std::int64_t kFloat = sizeof(float);

// Memory that the batch fills, and that first_non_finite reads again after the step.
BufferId new_batch_buffer(Builder& builder, std::int64_t sample_bytes, bool floats) {
  BufferId id = builder.new_buffer(sample_bytes, 0, floats);
  builder.program.buffers[id].before = builder.program.buffers[id].kept = true;
  return id;
}

// Room for one more reduction in Program::values: where it begins, in doubles.
std::int64_t new_value(Builder& builder, std::int64_t& count) {
  constexpr std::int64_t kEach = 1 + kReductionParts;
  Program& program = builder.program;
  if (program.values == kNone) program.values = builder.new_buffer(0, 0, false);
  const ResultCounts& counts = program.counts;
  const std::int64_t offset = (counts.losses + counts.metrics + counts.penalties) * kEach;
  program.buffers[program.values].fixed_bytes =
      (offset + kEach) * static_cast<std::int64_t>(sizeof(double));
  ++count;
  return offset;
}

// The value at `offset` = the sum of `rows` values per sample.
void add_sum(Builder& builder, const std::string& layer, std::int64_t rows, BufferId x,
             std::int64_t offset) {
  Step& step = builder.step("sum", layer);
  step.reads = {x};
  step.writes = {builder.program.values};
  step.bind = [=, values = builder.program.values](const Binding& at) -> Run {
    return
        [kernel = at.kernels.sum, n = at.n * rows, data = at[x],
         out = at.at<double>(values) + offset](Context& context) { kernel(context, n, data, out); };
  };
}

BatchTarget new_target(Builder& builder, const ResolvedLoss& loss) {
  const Shape& sample = builder.graph.shape(loss.output);
  BatchTarget target;
  target.output = builder.graph.values()[loss.output].name;
  target.shape = sample;
  target.integer_labels = loss.spec.integer_labels;
  target.skip_missing = loss.spec.skip_missing;
  if (loss.elementwise.kind == ElementwiseLoss::value)
    target.shape = builder.graph.shape(loss.spec.target);
  if (loss.softmax) target.rows = sample.elements() / sample.back();
  if (target.integer_labels) {
    target.shape = Shape();
    for (int axis = 0; axis + 1 < sample.rank(); ++axis) target.shape.push_back(sample[axis]);
    target.classes = sample.back();
  }
  target.data = new_batch_buffer(builder, target.shape.elements() * kFloat, !target.integer_labels);
  target.scale = new_batch_buffer(builder, target.rows * kFloat, true);
  if (loss.elementwise.kind == ElementwiseLoss::value)
    builder.set_value(loss.spec.target, target.data);
  return target;
}

struct LossBuffers {
  BufferId input, target, scale, rows, gradient, probabilities;
};

void add_softmax_loss(Builder& builder, const ResolvedLoss& loss, const BatchTarget& target,
                      const LossBuffers& b) {
  std::int64_t classes = builder.graph.shape(loss.input).back();
  SoftmaxCrossEntropyShape shape{};
  shape.C = classes;
  shape.integer_labels = target.integer_labels;
  shape.label_smoothing = loss.spec.label_smoothing;
  shape.focal_gamma = loss.spec.focal_gamma;
  shape.focal_alpha = loss.spec.positive_weight;
  Step& step = builder.step("softmax_cross_entropy", target.output);
  step.reads = {b.input, b.target, b.scale};
  step.writes = {b.rows, b.gradient, b.probabilities};
  step.reuses = {{b.gradient, b.input}};
  step.bind = [=, rows = target.rows](const Binding& at) -> Run {
    SoftmaxCrossEntropyShape s = shape;
    s.N = at.n * rows;
    return [=, kernel = at.kernels.softmax_cross_entropy, logits = at[b.input],
            labels = at.at<void>(b.target), scale = at[b.scale], row_losses = at[b.rows],
            gradient = at[b.gradient], probabilities = at[b.probabilities]](Context& context) {
      kernel(context, s, logits, labels, nullptr, scale, row_losses, gradient, probabilities);
    };
  };
}

void add_elementwise_loss(Builder& builder, const ResolvedLoss& loss, const BatchTarget& target,
                          const LossBuffers& b) {
  Step& step = builder.step("elementwise_loss", target.output);
  step.reads = {b.input, b.target, b.scale};
  step.writes = {b.rows, b.gradient};
  step.reuses = {{b.gradient, b.input}};
  step.bind = [=, spec = loss.elementwise,
               elements = builder.elements(loss.input)](const Binding& at) -> Run {
    return
        [=, kernel = at.kernels.elementwise_loss, shape = RowsShape{at.n, elements},
         prediction = at[b.input],
         values = at[spec.kind == ElementwiseLoss::value ? b.input : b.target], scale = at[b.scale],
         row_losses = at[b.rows], gradient = at[b.gradient]](Context& context) {
          kernel(context, shape, spec, prediction, values, scale, row_losses, gradient, nullptr);
        };
  };
}

// The gradient that a loss' kernel wrote, times the loss' weight in the total.
BufferId weighted(Builder& builder, const ResolvedLoss& loss, BufferId gradient) {
  if (loss.spec.weight == 1.0f) return gradient;
  BufferId y = builder.new_like(loss.input);
  add_elementwise(builder, "scale", builder.graph.values()[loss.output].name,
                  builder.elements(loss.input), gradient, y,
                  [weight = loss.spec.weight](Context& context, const Kernels& kernels,
                                              std::int64_t n, const float* from, float* to) {
                    kernels.scale(context, n, weight, 0.0f, from, to);
                  });
  return y;
}

const ResolvedLoss* loss_of_output(const std::vector<ResolvedLoss>& losses, int output,
                                   std::size_t* index) {
  for (*index = 0; *index < losses.size(); ++*index)
    if (losses[*index].spec.output == output) return &losses[*index];
  return nullptr;
}

const char* name_of(AccuracyKind kind) {
  switch (kind) {
    case AccuracyKind::binary:
      return "binary";
    case AccuracyKind::categorical:
      return "categorical";
    case AccuracyKind::sparse:
      return "sparse";
  }
  return "?";
}

}  // namespace

void make_targets(Builder& builder, const std::vector<ResolvedLoss>& losses) {
  for (const ResolvedLoss& loss : losses)
    builder.program.targets.push_back(new_target(builder, loss));
}

void lower_losses(Builder& builder, const std::vector<ResolvedLoss>& losses, const Fusion& fusion) {
  builder.set_phase("loss");
  for (std::size_t i = 0; i < losses.size(); ++i) {
    const ResolvedLoss& loss = losses[i];
    const BatchTarget& target = builder.program.targets[i];
    LossBuffers buffers{};
    buffers.input = builder.value(loss.input);
    buffers.target = target.data;
    buffers.scale = target.scale;
    buffers.rows = builder.new_buffer(target.rows * kFloat);
    buffers.gradient = builder.needs_gradient(loss.input) ? builder.new_like(loss.input) : kNone;
    buffers.probabilities = kNone;
    if (fusion.writes_probabilities[i]) {
      buffers.probabilities = builder.new_like(loss.output);
      builder.set_value(loss.output, buffers.probabilities);
    }
    if (loss.softmax) {
      add_softmax_loss(builder, loss, target, buffers);
    } else {
      add_elementwise_loss(builder, loss, target, buffers);
    }
    add_sum(builder, target.output, target.rows, buffers.rows,
            new_value(builder, builder.program.counts.losses));
    if (buffers.gradient != kNone)
      builder.add_gradient(loss.input, weighted(builder, loss, buffers.gradient));
  }
}

void lower_metrics(Builder& builder, const std::vector<ResolvedLoss>& losses,
                   const std::vector<MetricSpec>& metrics) {
  builder.set_phase("metric");
  for (std::size_t i = 0; i < metrics.size(); ++i) {
    const MetricSpec& spec = metrics[i];
    const std::string where = concat("metrics[", i, "] (", name_of(spec.kind), ")");
    std::size_t index = 0;
    const ResolvedLoss* loss = loss_of_output(losses, spec.output, &index);
    if (!loss)
      value_error(where, ": output ", spec.output, " has no loss to take the targets from");
    if (loss->spec.integer_labels != (spec.kind == AccuracyKind::sparse))
      value_error(where, ": the loss of output ", spec.output, " takes ",
                  loss->spec.integer_labels
                      ? "integer labels; use the sparse accuracy"
                      : "targets of the output's shape; use the categorical or"
                        " binary accuracy");
    const Shape& sample = builder.graph.shape(loss->output);
    const Shape& truth = builder.program.targets[index].shape;
    if (loss->elementwise.kind == ElementwiseLoss::value && truth != sample)
      value_error(where, ": expected targets of the output's shape ", sample, ", got ", truth);
    bool binary = spec.kind == AccuracyKind::binary;
    if (sample.rank() == 0 && !binary)
      value_error(where, ": expected an output with an axis of classes, got shape ()");
    std::int64_t classes = binary ? sample.elements() : sample.back();
    std::int64_t rows = sample.elements() / classes;
    BufferId prediction = builder.value(loss->output);
    BufferId labels = builder.program.targets[index].data;
    BufferId correct = builder.new_buffer(rows * kFloat);
    const std::string& layer = builder.graph.values()[loss->output].name;

    Step& step = builder.step("accuracy", layer);
    step.reads = {prediction, labels};
    step.writes = {correct};
    step.bind = [=, kind = spec.kind](const Binding& at) -> Run {
      return [=, kernel = at.kernels.accuracy, shape = RowsShape{at.n * rows, classes},
              p_data = at[prediction], l_data = at.at<void>(labels), out = at[correct]](
                 Context& context) { kernel(context, shape, kind, p_data, l_data, out); };
    };
    add_sum(builder, layer, rows, correct, new_value(builder, builder.program.counts.metrics));
    builder.program.metric_rows.push_back(rows);
  }
}

void lower_penalties(Builder& builder) {
  builder.set_phase("loss");
  const std::vector<Parameter>& parameters = builder.graph.parameters();
  for (std::size_t id = 0; id < parameters.size(); ++id) {
    const Parameter& parameter = parameters[id];
    if (!parameter.trainable || (parameter.l1 == 0 && parameter.l2 == 0)) continue;
    BufferId p = builder.parameter(static_cast<int>(id));
    const std::int64_t offset = new_value(builder, builder.program.counts.penalties);
    Step& step = builder.step("regularizer_penalty", parameter.name);
    step.reads = {p};
    step.writes = {builder.program.values};
    step.bind = [=, values = builder.program.values, n = parameter.shape.elements(),
                 l1 = parameter.l1, l2 = parameter.l2](const Binding& at) -> Run {
      return [=, kernel = at.kernels.regularizer_penalty, data = at[p],
              out = at.at<double>(values) + offset](Context& context) {
        kernel(context, n, l1, l2, data, out);
      };
    };
  }
}

void lower_results(Builder& builder, const std::vector<ResolvedLoss>& losses) {
  Program& program = builder.program;
  const ResultCounts counts = program.counts;
  for (const ResolvedLoss& loss : losses) program.loss_weights.push_back(loss.spec.weight);
  const BufferId weights = builder.new_buffer(0, counts.losses * kFloat);
  program.buffers[weights].before = program.buffers[weights].kept = true;
  program.loss_weights_data = weights;
  program.results = builder.new_buffer(
      0, (1 + counts.losses + counts.metrics) * static_cast<std::int64_t>(sizeof(double)), false);
  program.buffers[program.results].kept = true;
  Step& step = builder.step("step_results", "");
  step.reads = {program.values, weights};
  step.writes = {program.results};
  step.bind = [=, values = program.values, results = program.results](const Binding& at) -> Run {
    return [=, kernel = at.kernels.step_results, weight_data = at[weights],
            from = at.at<double>(values), to = at.at<double>(results), halt = at.halt](
               Context& context) { kernel(context, counts, weight_data, from, to, halt); };
  };
}

}  // namespace convlet
