// One update of a parameter by an optimizer, and the optimizer's numbers from a dict.
#include <pybind11/stl.h>

#include "bind/bind.h"
#include "bind/call.h"
#include "bind/options.h"

namespace convlet::bind {

namespace {

template <class T>
T number(const std::string& name, const py::handle& value) {
  try {
    return value.cast<T>();
  } catch (const py::cast_error&) {
    type_error("optimizer: expected ", name, " to be a ",
               std::is_same_v<T, bool> ? "bool" : "number", ", got ", std::string(py::repr(value)));
  }
}

OptimizerKind optimizer_named(const std::string& name) {
  if (name == "sgd") return OptimizerKind::sgd;
  if (name == "rmsprop") return OptimizerKind::rmsprop;
  if (name == "adam") return OptimizerKind::adam;
  value_error("optimizer: expected kind \"sgd\", \"rmsprop\" or \"adam\", got \"", name, '"');
}

void optimizer_update(const py::dict& values, double learning_rate, std::int64_t t,
                      const py::object& p_value, const py::object& g_value,
                      const std::vector<py::object>& state_values) {
  Call op("optimizer_update");
  UpdateRule rule = update_rule(values);
  if (rule.clip_norm != 0 || rule.global_clip_norm != 0 || rule.accumulation_steps != 1 ||
      rule.average)
    value_error(op, ": expected no norms, accumulation or average (those are a plan's), got ",
                std::string(py::repr(values)));
  if (t < 1) value_error(op, ": expected t >= 1, got ", t);
  Output p = float_in_place(op, "p", p_value);
  Input g = float_input(op, "g", g_value, nullptr);
  const Shape shape = p.shape;
  expect_shape(op, "g", "", shape, g.shape());
  std::size_t slots = static_cast<std::size_t>(optimizer_slots(rule.optimizer));
  if (state_values.size() != slots)
    value_error(op, ": expected ", slots, " arrays of state, got ", state_values.size());

  std::vector<float*> state;
  std::vector<Output> written{p};
  for (const py::object& value : state_values) {
    Output slot = float_output(op, value, shape, {&g});
    for (const Output& other : written)
      if (slot.extent.overlaps(other.extent))
        value_error(op, ": expected p and the state to be apart, got arrays that share memory");
    written.push_back(slot);
    state.push_back(slot.data);
  }
  if (p.extent.overlaps(g.extent))
    value_error(op, ": expected p and g to be apart, got arrays that share memory");

  const OptimizerStep numbers = optimizer_step(rule.optimizer, learning_rate, t);
  const OptimizerStep* step = op.upload(&numbers, 1);
  std::int64_t n = shape.elements();
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.optimizer(context, n, rule.optimizer, step, nullptr, p.data, g.f32(), state.data());
  });
}

}  // namespace

UpdateRule update_rule(const py::dict& values) {
  UpdateRule rule;
  OptimizerSpec& spec = rule.optimizer;
  for (auto [key, value] : values) {
    std::string name = py::str(key);
    if (name == "kind")
      spec.kind = optimizer_named(py::str(value));
    else if (name == "momentum")
      spec.momentum = number<float>(name, value);
    else if (name == "nesterov")
      spec.nesterov = number<bool>(name, value);
    else if (name == "rho")
      spec.rho = number<float>(name, value);
    else if (name == "centered")
      spec.centered = number<bool>(name, value);
    else if (name == "beta_1")
      spec.beta_1 = number<float>(name, value);
    else if (name == "beta_2")
      spec.beta_2 = number<float>(name, value);
    else if (name == "epsilon")
      spec.epsilon = number<float>(name, value);
    else if (name == "weight_decay")
      spec.weight_decay = number<float>(name, value);
    else if (name == "clip_value")
      spec.clip_value = number<float>(name, value);
    else if (name == "clip_norm")
      rule.clip_norm = number<float>(name, value);
    else if (name == "global_clip_norm")
      rule.global_clip_norm = number<float>(name, value);
    else if (name == "accumulation_steps")
      rule.accumulation_steps = number<std::int64_t>(name, value);
    else if (name == "average")
      rule.average = number<bool>(name, value);
    else if (name == "average_momentum")
      rule.average_momentum = number<float>(name, value);
    else
      value_error("optimizer: unknown setting \"", name, '"');
  }
  check_optimizer(spec);
  return rule;
}

void bind_optimizer(py::module_& module) {
  using py::arg;
  module.def("optimizer_update", optimizer_update, arg("spec"), arg("learning_rate"), arg("t"),
             arg("p"), arg("g"), arg("state"));
}

}  // namespace convlet::bind
