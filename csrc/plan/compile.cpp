#include "plan/compile.h"

#include "plan/builder.h"
#include "plan/fuse.h"
#include "plan/lowering.h"

namespace convlet {
namespace {

void check_options(const Graph& graph, const State& state, const PlanOptions& options) {
  if (options.batch < 1) value_error("plan: expected a batch of at least 1, got ", options.batch);
  if (graph.outputs().empty()) value_error("plan: the graph has no outputs");
  if (options.mode == Mode::predict && !(options.losses.empty() && options.metrics.empty()))
    value_error("plan: mode predict takes no losses and metrics; use mode test");
  if (options.mode != Mode::train) return;
  if (options.losses.empty()) value_error("plan: mode train needs at least one loss");
  if (!state.has_update())
    value_error("plan: mode train needs an optimizer; call State.set_optimizer first");
}

}  // namespace

Program compile(const Graph& graph, State& state, const PlanOptions& options,
                const std::vector<bool>& bytes) {
  check_options(graph, state, options);
  state.check_fits(graph);
  const std::vector<ResolvedLoss> losses = resolve_losses(graph, options.losses);
  const Kernels& kernels = state.device().kernels(options.precision);
  const Fusion fusion = fuse(graph, options, kernels, losses, bytes);
  const std::vector<Node>& nodes = graph.nodes();
  Builder builder(graph, options, kernels, fusion);
  Program& program = builder.program;

  program.takes_bytes = fusion.takes_bytes;
  for (std::size_t i = 0; i < graph.inputs().size(); ++i) {
    const int value = graph.inputs()[i];
    const bool as_bytes = fusion.takes_bytes[i] && bytes[i];
    BufferId id =
        as_bytes ? builder.new_buffer(builder.elements(value), 0, false) : builder.new_like(value);
    program.buffers[id].before = program.buffers[id].kept = true;
    builder.set_value(value, id);
    program.inputs.push_back(id);
  }
  make_targets(builder, losses);
  for (std::size_t i = 0; i < nodes.size(); ++i)
    if (fusion.live[i] && !fusion.absorbed[i])
      lowering_of(nodes[i].name, nodes[i].op).forward(builder, nodes[i]);
  builder.insert_prepare_steps();
  lower_losses(builder, losses, fusion);
  lower_metrics(builder, losses, options.metrics);
  lower_penalties(builder);
  program.forward_steps = program.steps.size();
  if (options.mode != Mode::predict) lower_results(builder, losses);
  program.result_steps = program.steps.size();

  if (options.mode == Mode::train) {
    builder.set_phase("backward");
    for (std::size_t i = nodes.size(); i-- > 0;) {
      int output = builder.gradient_of(nodes[i]);
      if (!fusion.absorbed_backward[i] && builder.needs_gradient(output) &&
          builder.gradient(output) != kNone)
        lowering_of(nodes[i].name, nodes[i].op).backward(builder, nodes[i]);
    }
    lower_gradients(builder, state);
    program.batch_steps = program.steps.size();
    lower_update(builder, state);
  }
  for (int value : graph.outputs()) {
    program.outputs.push_back(builder.value(value));
    program.buffers[builder.value(value)].kept = true;
  }
  program.probe = builder.new_buffer(0, sizeof(std::int64_t), false);
  program.buffers[program.probe].before = program.buffers[program.probe].kept = true;
  return std::move(builder.program);
}

}  // namespace convlet
