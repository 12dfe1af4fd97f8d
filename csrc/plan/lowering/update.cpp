// The end of a train step: what nodes keep of the batch, regularizers' gradients, clipping, and the
// optimizer over the flat buffers. Steps that change more than gradients heed Binding::halt.
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

// The sum of the gradients since the last update: this batch's are added.
void add_to_sum(Builder& builder, State& state, int first) {
  BufferId g = builder.parameter_gradient(first);
  Step& step = builder.step("add_gradients", "");
  step.reads = {g};
  step.bind = [&state, first, g](const Binding& at) -> Run {
    return [kernel = at.kernels.add_gradients, n = state.trainable_elements(), halt = at.halt,
            data = at[g], sum = state.slot(state.gradient_sum_slot(), first)](Context& context) {
      kernel(context, n, halt, data, sum);
    };
  };
}

// The gradients become the mean of the sum, which is cleared.
void add_mean_of_sum(Builder& builder, State& state, int first) {
  BufferId g = builder.parameter_gradient(first);
  Step& step = builder.step("take_gradients", "");
  step.writes = {g};
  step.bind = [&state, first, g](const Binding& at) -> Run {
    const float share = 1.0f / static_cast<float>(state.update().accumulation_steps);
    return [=, kernel = at.kernels.take_gradients, n = state.trainable_elements(), halt = at.halt,
            data = at[g], sum = state.slot(state.gradient_sum_slot(), first)](Context& context) {
      kernel(context, n, share, halt, sum, data);
    };
  };
}

void add_optimizer(Builder& builder, State& state, const UpdateGroup& group) {
  const int first = group.parameters[0];
  Step& step = builder.step("optimizer", "");
  for (int id : group.parameters) {
    step.reads.push_back(builder.parameter_gradient(id));
    step.writes.push_back(builder.parameter(id));
  }
  step.bind = [&state, group, first](const Binding& at) -> Run {
    OptimizerSpec spec = state.update().optimizer;
    spec.rate_scale = group.rate_scale;
    if (!group.weight_decay) spec.weight_decay = 0.0f;
    std::vector<float*> slots;
    for (int slot = 0; slot < optimizer_slots(spec); ++slot)
      slots.push_back(state.slot(slot, first));
    return [=, kernel = at.kernels.optimizer, n = group.elements, update = at.update,
            halt = at.halt, p = state.parameter(first), g = state.gradient(first)](
               Context& context) { kernel(context, n, spec, update, halt, p, g, slots.data()); };
  };
}

void add_average(Builder& builder, State& state, int first) {
  BufferId p = builder.parameter(first);
  Step& step = builder.step("weight_average", "");
  step.reads = {p};
  step.bind = [&state, first, p](const Binding& at) -> Run {
    return [kernel = at.kernels.weight_average, n = state.trainable_elements(), update = at.update,
            halt = at.halt, data = at[p], average = state.slot(state.average_slot(), first)](
               Context& context) { kernel(context, n, update, halt, data, average); };
  };
}

}  // namespace

void lower_gradients(Builder& builder, State& state) {
  for (const UpdateGroup& group : state.groups())
    for (int id : group.parameters)
      if (!builder.parameter_has_gradient(id)) add_clear(builder, state.device(), id);
  if (state.gradient_sum_slot() >= 0 && !state.groups().empty())
    add_to_sum(builder, state, state.groups()[0].parameters[0]);
  builder.set_phase("update");
  builder.add_batch_updates();
}

void lower_update(Builder& builder, State& state) {
  builder.set_phase("update");
  if (state.groups().empty()) return;
  const int first = state.groups()[0].parameters[0];  // where the flat buffers begin
  const UpdateRule& rule = state.update();
  if (rule.accumulation_steps > 1) add_mean_of_sum(builder, state, first);
  for (const UpdateGroup& group : state.groups()) {
    for (int id : group.parameters) {
      const Parameter& parameter = builder.graph.parameters()[id];
      if (parameter.l1 != 0 || parameter.l2 != 0) add_regularizer(builder, id);
      if (rule.clip_norm > 0)
        add_clip(builder, id, parameter.name, parameter.shape.elements(), rule.clip_norm);
    }
  }
  if (rule.global_clip_norm > 0)
    add_clip(builder, first, "", state.trainable_elements(), rule.global_clip_norm);
  for (const UpdateGroup& group : state.groups()) add_optimizer(builder, state, group);
  if (rule.average) add_average(builder, state, first);
}

}  // namespace convlet
