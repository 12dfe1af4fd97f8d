// Graph and State. Whatever touches a State's memory releases the GIL and then takes the State's
// lock, so threads that share a model run one after the other.
#include <pybind11/stl.h>

#include <limits>
#include <optional>

#include "bind/bind.h"
#include "bind/options.h"
#include "bind/plan.h"

namespace convlet::bind {

namespace {

Shape shape_of(const std::vector<std::int64_t>& sizes) {
  Shape shape;
  for (std::int64_t size : sizes) shape.push_back(size);
  return shape;
}

Attribute attribute(const std::string& node, const std::string& name, const py::handle& value) {
  try {
    if (py::isinstance<py::bool_>(value)) return value.cast<bool>();
    if (py::isinstance<py::str>(value)) return value.cast<std::string>();
    if (PyIndex_Check(value.ptr())) return value.cast<std::int64_t>();
    if (PyNumber_Check(value.ptr()) && !PySequence_Check(value.ptr())) return value.cast<double>();
    return value.cast<std::vector<std::int64_t>>();
  } catch (const py::cast_error&) {
    type_error(node, ": expected attribute ", name,
               " to be a bool, a 64-bit integer, a float, a string or a list of integers, got ",
               std::string(py::repr(value)));
  }
}

int add_node(Graph& graph, const std::string& op, const std::string& name,
             const std::vector<int>& inputs, const std::vector<int>& parameters,
             const py::dict& attributes) {
  std::map<std::string, Attribute> values;
  for (auto [key, value] : attributes) {
    std::string attribute_name = py::str(key);
    values[attribute_name] = attribute(name, attribute_name, value);
  }
  return graph.add_node(op, name, inputs, parameters, Attributes(name, std::move(values)));
}

void bind_graph(py::module_& module) {
  using py::arg;
  py::class_<Graph>(module, "Graph", "A model before it is compiled; shapes are per sample.")
      .def(py::init<>())
      .def(
          "input",
          [](Graph& graph, const std::string& name, const std::vector<std::int64_t>& shape) {
            return graph.add_input(name, shape_of(shape));
          },
          arg("name"), arg("shape"))
      .def(
          "target",
          [](Graph& graph, const std::string& name, const std::vector<std::int64_t>& shape) {
            return graph.add_target(name, shape_of(shape));
          },
          arg("name"), arg("shape"))
      .def(
          "parameter",
          [](Graph& graph, const std::string& name, const std::vector<std::int64_t>& shape,
             bool trainable, float l1, float l2, float rate_scale, bool weight_decay) {
            return graph.add_parameter(name, shape_of(shape), trainable, l1, l2, rate_scale,
                                       weight_decay);
          },
          arg("name"), arg("shape"), arg("trainable") = true, arg("l1") = 0.0f, arg("l2") = 0.0f,
          arg("rate_scale") = 1.0f, arg("weight_decay") = true)
      .def("node", add_node, arg("op"), arg("name"), arg("inputs"),
           arg("parameters") = std::vector<int>{}, arg("attributes") = py::dict())
      .def("output", &Graph::add_output, arg("value"))
      .def(
          "shape",
          [](const Graph& graph, int value) {
            return to_tuple(at("Graph.shape", graph.values(), value).shape);
          },
          arg("value"))
      .def(
          "parameter_shape",
          [](const Graph& graph, int parameter) {
            return to_tuple(at("Graph.parameter_shape", graph.parameters(), parameter).shape);
          },
          arg("parameter"));
}

// data() gives the device's memory of a parameter, a gradient or a slot.
template <class Data>
py::array read(BoundState& bound, const Shape& shape, Data&& data) {
  Call op("State");
  Output out = float_output(op, py::none(), shape, {});
  locked(bound, [&] { bound.state.get(data(), out.data, shape.elements()); });
  return out.array;
}

template <class Data>
void write(BoundState& bound, const char* what, const Parameter& parameter,
           const py::object& values, Data&& data) {
  Call op(what, op_device());
  Input input = float_input(op, "values", values, nullptr);
  expect_shape(what, "values", parameter.name.c_str(), parameter.shape, input.shape());
  locked(bound, [&] { bound.state.set(data(), input.f32(), parameter.shape.elements()); });
}

void check_slot(const char* what, const BoundState& bound, int slot, const Parameter& parameter) {
  int slots = bound.state.slots();
  if (slot < 0 || slot >= slots)
    value_error(what, ": expected a slot in [0,", slots, "), got ", slot);
  if (!parameter.trainable)
    value_error(what, ": expected a trainable parameter, got ", parameter.name);
}

py::array get_gradient(BoundState& bound, int id) {
  const Parameter& parameter = bound.parameter("State.gradient", id);
  if (!parameter.trainable || !bound.state.gradient(id))
    value_error("State.gradient: expected a parameter that a plan trains, got ", parameter.name);
  return read(bound, parameter.shape, [&] { return bound.state.gradient(id); });
}

void bind_parameters(py::module_& module) {
  using py::arg;
  py::class_<BoundState, std::shared_ptr<BoundState>>(
      module, "State", "Parameters, gradients and optimizer state of a graph on a device.")
      .def(py::init([](const Graph& graph, const std::optional<std::string>& device) {
             return std::make_shared<BoundState>(
                 graph, device ? device_named("State", *device) : op_device());
           }),
           arg("graph"), arg("device") = py::none())
      .def(
          "get",
          [](BoundState& bound, int id) {
            return read(bound, bound.parameter("State.get", id).shape,
                        [&] { return bound.state.parameter(id); });
          },
          arg("parameter"))
      .def(
          "set",
          [](BoundState& bound, int id, const py::object& values) {
            write(bound, "State.set", bound.parameter("State.set", id), values,
                  [&] { return bound.state.parameter(id); });
          },
          arg("parameter"), arg("values"))
      .def("gradient", get_gradient, arg("parameter"))
      .def(
          "set_optimizer",
          [](BoundState& bound, const py::dict& spec) {
            UpdateRule rule = update_rule(spec);
            locked(bound, [&] { bound.state.set_update(rule); });
          },
          arg("spec"))
      .def("slot_names",
           [](const BoundState& bound) {
             std::vector<std::string> names;
             for (int slot = 0; slot < bound.state.slots(); ++slot)
               names.push_back(bound.state.slot_name(slot));
             return names;
           })
      .def(
          "get_slot",
          [](BoundState& bound, int slot, int id) {
            const Parameter& parameter = bound.parameter("State.get_slot", id);
            check_slot("State.get_slot", bound, slot, parameter);
            return read(bound, parameter.shape, [&] { return bound.state.slot(slot, id); });
          },
          arg("slot"), arg("parameter"))
      .def(
          "set_slot",
          [](BoundState& bound, int slot, int id, const py::object& values) {
            const Parameter& parameter = bound.parameter("State.set_slot", id);
            check_slot("State.set_slot", bound, slot, parameter);
            write(bound, "State.set_slot", parameter, values,
                  [&] { return bound.state.slot(slot, id); });
          },
          arg("slot"), arg("parameter"), arg("values"))
      .def_property(
          "batches", [](const BoundState& bound) { return bound.state.batches; },
          [](BoundState& bound, std::int64_t batches) {
            if (batches < 0) value_error("State.batches: expected a count >= 0, got ", batches);
            locked(bound, [&] { bound.state.batches = batches; });
          })
      .def_property(
          "updates", [](const BoundState& bound) { return bound.state.updates(); },
          [](BoundState& bound, std::int64_t updates) {
            locked(bound, [&] {
              const std::int64_t each = bound.state.update().accumulation_steps;
              if (updates < 0 || updates > std::numeric_limits<std::int64_t>::max() / each)
                value_error("State.updates: expected a count >= 0 of updates of ", each,
                            " batches, fewer than 2^63 of these, got ", updates);
              bound.state.batches = updates * each;
            });
          });
}

}  // namespace

void bind_state(py::module_& module) {
  bind_graph(module);
  bind_parameters(module);
}

}  // namespace convlet::bind
