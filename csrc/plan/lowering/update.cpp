// The end of a train step: regularizers' gradients, clipping, and the optimizer over the flat
// buffers.
#include "plan/lowering.h"

namespace convlet {
namespace {

// A trainable parameter that no loss depends on has gradient zero.
void add_clear(Builder& builder, Device& device, int id) {
  const Parameter& parameter = builder.graph.parameters()[id];
  BufferId gradient = builder.parameter_gradient(id);
  Step& step = builder.step("clear", parameter.name);
  step.writes = {gradient};
  step.bind = [=, &device,
               bytes = static_cast<std::size_t>(parameter.shape.elements()) *
                       sizeof(float)](const Binding& at) -> Run {
    return [=, &device, data = at[gradient]](Context&) { device.clear(data, bytes); };
  };
}

void add_regularizer(Builder& builder, int id) {
  const Parameter& parameter = builder.graph.parameters()[id];
  BufferId p = builder.parameter(id), g = builder.parameter_gradient(id);
  Step& step = builder.step("regularizer_gradient", parameter.name);
  step.reads = {p, g};
  step.writes = {g};
  step.bind = [=, n = parameter.shape.elements(), l1 = parameter.l1,
               l2 = parameter.l2](const Binding& at) -> Run {
    return [=, kernel = at.kernels.regularizer_gradient, p_data = at[p],
            g_data = at[g]](Context& context) { kernel(context, n, l1, l2, p_data, g_data); };
  };
}

// Limits the norm of `count` floats that begin at the gradient of parameter `id`.
void add_clip(Builder& builder, int id, const std::string& layer, std::int64_t count, float limit) {
  BufferId g = builder.parameter_gradient(id), norm = builder.new_double();
  Step& square = builder.step("sum_of_squares", layer);
  square.reads = {g};
  square.writes = {norm};
  square.bind = [=](const Binding& at) -> Run {
    return [=, kernel = at.kernels.sum_of_squares, data = at[g],
            out = at.at<double>(norm)](Context& context) { kernel(context, count, data, out); };
  };
  Step& clip = builder.step("clip_by_norm", layer);
  clip.reads = {g, norm};
  clip.writes = {g};
  clip.bind = [=](const Binding& at) -> Run {
    return [=, kernel = at.kernels.clip_by_norm, data = at[g], squared = at.at<double>(norm)](
               Context& context) { kernel(context, count, limit, squared, data); };
  };
}

void add_optimizer(Builder& builder, State& state, int first) {
  Step& step = builder.step("optimizer", "");
  step.reads = {builder.parameter(first), builder.parameter_gradient(first)};
  step.writes = {builder.parameter(first)};
  step.bind = [&state, first](const Binding& at) -> Run {
    std::vector<float*> slots;
    for (int slot = 0; slot < state.slots(); ++slot) slots.push_back(state.slot(slot, first));
    return [kernel = at.kernels.optimizer, n = state.trainable_elements(), spec = state.optimizer(),
            update = at.update, p = state.parameter(first), g = state.gradient(first),
            slots](Context& context) { kernel(context, n, spec, update, p, g, slots.data()); };
  };
}

}  // namespace

void lower_update(Builder& builder, State& state) {
  builder.set_phase("update");
  const std::vector<Parameter>& parameters = builder.graph.parameters();
  std::vector<int> trainable;  // in the order of the flat buffers, which the first one begins
  for (std::size_t id = 0; id < parameters.size(); ++id)
    if (parameters[id].trainable) trainable.push_back(static_cast<int>(id));
  if (trainable.empty()) return;

  for (int id : trainable)
    if (!builder.parameter_has_gradient(id)) add_clear(builder, state.device(), id);
  for (int id : trainable)
    if (parameters[id].l1 != 0 || parameters[id].l2 != 0) add_regularizer(builder, id);
  if (state.clip_norm() > 0)
    for (int id : trainable)
      add_clip(builder, id, parameters[id].name, parameters[id].shape.elements(),
               state.clip_norm());
  if (state.global_clip_norm() > 0)
    add_clip(builder, trainable[0], "", state.trainable_elements(), state.global_clip_norm());
  add_optimizer(builder, state, trainable[0]);
}

}  // namespace convlet
