// Graph, State and Plan. Whatever touches a State's memory releases the GIL and then takes the
// State's lock, so threads that share a model run one after the other.
#include "plan/plan.h"

#include <pybind11/stl.h>

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/call.h"
#include "bind/gil.h"
#include "bind/options.h"

namespace convlet::bind {

namespace {

// ---------------------------------------------------------------- Graph

Shape shape_of(const std::vector<std::int64_t>& sizes) {
  Shape shape;
  for (std::int64_t size : sizes) shape.push_back(size);
  return shape;
}

template <class T>
const T& at(const char* what, const std::vector<T>& items, int id) {
  if (id < 0 || static_cast<std::size_t>(id) >= items.size())
    value_error(what, ": expected an index in [0,", items.size(), "), got ", id);
  return items[static_cast<std::size_t>(id)];
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

// ---------------------------------------------------------------- State

struct BoundState {
  BoundState(const Graph& g, Device& device) : graph(g), state(device, g) {}

  Graph graph;  // as it was then: what is added to the caller's later has no memory here
  State state;
  std::mutex mutex;

  const Parameter& parameter(const char* what, int id) const {
    return at(what, graph.parameters(), id);
  }
};

// f() with the GIL released and the state locked.
template <class F>
auto locked(BoundState& bound, F&& f) {
  ReleasedGil unlocked;
  std::lock_guard<std::mutex> lock(bound.mutex);
  return f();
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
  Call op(what);
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

void bind_state(py::module_& module) {
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
            if (updates < 0) value_error("State.updates: expected a count >= 0, got ", updates);
            locked(bound, [&] {
              bound.state.batches = updates * bound.state.update().accumulation_steps;
            });
          });
}

// ---------------------------------------------------------------- Plan

Mode mode_named(const std::string& name) {
  if (name == "predict") return Mode::predict;
  if (name == "test") return Mode::test;
  if (name == "train") return Mode::train;
  value_error("Plan: expected mode \"predict\", \"test\" or \"train\", got \"", name, '"');
}

AccuracyKind accuracy_named(const std::string& name) {
  if (name == "binary") return AccuracyKind::binary;
  if (name == "categorical") return AccuracyKind::categorical;
  if (name == "sparse") return AccuracyKind::sparse;
  value_error("Plan: expected metric \"binary\", \"categorical\" or \"sparse\", got \"", name, '"');
}

LossSpec loss_spec(const py::dict& values) {
  LossSpec loss;
  for (auto [key, value] : values) {
    std::string name = py::str(key);
    if (name == "kind")
      loss.kind = value.cast<std::string>();
    else if (name == "output")
      loss.output = value.cast<int>();
    else if (name == "integer_labels")
      loss.integer_labels = value.cast<bool>();
    else if (name == "from_logits")
      loss.from_logits = value.cast<bool>();
    else if (name == "label_smoothing")
      loss.label_smoothing = value.cast<float>();
    else if (name == "weight")
      loss.weight = value.cast<float>();
    else if (name == "focal_gamma")
      loss.focal_gamma = value.cast<float>();
    else if (name == "positive_weight")
      loss.positive_weight = value.cast<float>();
    else if (name == "negative_weight")
      loss.negative_weight = value.cast<float>();
    else if (name == "skip_missing")
      loss.skip_missing = value.cast<bool>();
    else if (name == "value")
      loss.value = value.cast<int>();
    else if (name == "target")
      loss.target = value.cast<int>();
    else
      value_error("Plan: unknown setting of a loss \"", name, '"');
  }
  return loss;
}

MetricSpec metric_spec(const py::dict& values) {
  MetricSpec metric{AccuracyKind::sparse};
  for (auto [key, value] : values) {
    std::string name = py::str(key);
    if (name == "kind")
      metric.kind = accuracy_named(py::str(value));
    else if (name == "output")
      metric.output = value.cast<int>();
    else
      value_error("Plan: unknown setting of a metric \"", name, '"');
  }
  return metric;
}

struct BoundPlan {
  BoundPlan(const Graph& g, std::shared_ptr<BoundState> s, const PlanOptions& options)
      : bound(std::move(s)), graph(g), plan(graph, bound->state, options) {}

  std::shared_ptr<BoundState> bound;
  Graph graph;  // as it was then
  Plan plan;
  std::atomic<std::int64_t> rows{0};  // of the last batch
};

std::unique_ptr<BoundPlan> make_plan(const Graph& graph, std::shared_ptr<BoundState> bound,
                                     const std::string& mode, std::int64_t batch,
                                     const std::vector<py::dict>& losses,
                                     const std::vector<py::dict>& metrics, bool fuse,
                                     std::uint64_t seed, const std::string& precision,
                                     bool winograd) {
  PlanOptions options;
  options.mode = mode_named(mode);
  options.batch = batch;
  for (const py::dict& loss : losses) options.losses.push_back(loss_spec(loss));
  for (const py::dict& metric : metrics) options.metrics.push_back(metric_spec(metric));
  options.fuse = fuse;
  options.seed = seed;
  options.precision = precision_named("Plan", precision);
  options.winograd = winograd;
  Graph copy = graph;
  BoundState& state = *bound;
  return locked(state,
                [&] { return std::make_unique<BoundPlan>(copy, std::move(bound), options); });
}

// A Batch and the arrays that it points into.
struct BoundBatch {
  std::vector<Input> arrays;
  std::vector<std::int64_t> indices;
  Batch batch;
};

BoundBatch make_batch(const char* what, const std::vector<py::object>& inputs,
                      const std::vector<py::object>& targets,
                      const std::vector<py::object>& weights, const py::object& indices) {
  Call op(what);
  BoundBatch bound;
  Batch& batch = bound.batch;
  auto add = [&](const char* kind, std::size_t i, const py::object& value,
                 std::initializer_list<DType> dtypes) -> Input& {
    // Not by concat: streams take longer than all else here.
    bound.arrays.push_back(
        array_input(op, kind + ("[" + std::to_string(i) + "]"), value, nullptr, dtypes));
    if (bound.arrays.back().shape().rank() == 0)
      value_error(op, ": expected ", bound.arrays.back().name, " with a batch axis, got shape ()");
    return bound.arrays.back();
  };
  std::initializer_list<DType> any = {DType::float32, DType::float64, DType::uint8, DType::int32,
                                      DType::int64};
  for (const py::object& value : inputs)
    batch.inputs.push_back(add("inputs", batch.inputs.size(), value, any).tensor);
  if (batch.inputs.empty()) value_error(op, ": expected an array for each input, got none");
  for (const py::object& value : targets)
    batch.targets.push_back(add("targets", batch.targets.size(), value, any).tensor);

  std::int64_t rows = batch.inputs[0].shape[0];
  for (const py::object& value : weights) {
    std::size_t i = batch.weights.size();
    if (value.is_none()) {
      batch.weights.push_back(nullptr);
      continue;
    }
    const Input& weight = add("weights", i, value, {DType::float32});
    expect_shape(op, weight.name, "(N,)", {rows}, weight.shape());
    batch.weights.push_back(weight.f32());
  }

  batch.n = rows;
  if (!indices.is_none()) {
    // A copy: it is checked once, whatever becomes of the caller's meanwhile.
    Input input = array_input(op, "indices", indices, "(n,)", {DType::int64});
    const std::int64_t* first = input.tensor.as<std::int64_t>();
    batch.n = input.shape()[0];
    bound.indices.assign(first, first + batch.n);
    bound.indices.resize(std::max<std::size_t>(bound.indices.size(), 1));  // never null
    batch.indices = bound.indices.data();
  }
  return bound;
}

py::array_t<double> plan_run(BoundPlan& bound, const std::vector<py::object>& inputs,
                             const std::vector<py::object>& targets,
                             const std::vector<py::object>& weights, const py::object& indices,
                             double learning_rate) {
  BoundBatch batch = make_batch("Plan.run", inputs, targets, weights, indices);
  std::vector<double> results = locked(*bound.bound, [&] {
    std::vector<double> values = bound.plan.run(batch.batch, learning_rate);
    bound.rows = batch.batch.n;
    return values;
  });
  return py::array_t<double>(static_cast<py::ssize_t>(results.size()), results.data());
}

Output output_array(const BoundPlan& bound, int value, std::int64_t rows) {
  const Shape& sample = bound.graph.values()[static_cast<std::size_t>(value)].shape;
  Call op("Plan.output");
  return float_output(op, py::none(), sample.with_front(rows), {});
}

py::list plan_predict(BoundPlan& bound, const std::vector<py::object>& inputs,
                      const py::object& indices) {
  BoundBatch batch = make_batch("Plan.predict", inputs, {}, {}, indices);
  std::vector<Output> outputs;
  for (int value : bound.graph.outputs())
    outputs.push_back(output_array(bound, value, batch.batch.n));
  locked(*bound.bound, [&] {
    bound.plan.run(batch.batch, 0.0);
    bound.rows = batch.batch.n;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      bound.plan.output(static_cast<int>(i), outputs[i].data);
  });
  py::list arrays;
  for (const Output& output : outputs) arrays.append(output.array);
  return arrays;
}

py::array plan_output(BoundPlan& bound, int i) {
  std::int64_t rows = bound.rows;
  Output out = output_array(bound, at("Plan.output", bound.graph.outputs(), i), rows);
  locked(*bound.bound, [&] {
    if (bound.rows != rows) value_error("Plan.output: another thread has run the plan meanwhile");
    bound.plan.output(i, out.data);
  });
  return out.array;
}

py::dict plan_memory(const BoundPlan& bound) {
  PlanMemory memory = locked(*bound.bound, [&] { return bound.plan.memory(); });
  py::dict bytes;
  bytes["parameters"] = memory.parameters;
  bytes["gradients"] = memory.gradients;
  bytes["optimizer"] = memory.optimizer;
  bytes["activations"] = memory.activations;
  bytes["workspace"] = memory.workspace;
  bytes["live_set"] = memory.live_set;
  return bytes;
}

py::list plan_steps(const BoundPlan& bound) {
  py::list steps;
  for (const StepInfo& step : locked(*bound.bound, [&] { return bound.plan.steps(); })) {
    py::dict row;
    row["name"] = step.name;
    row["kernel"] = step.kernel;
    row["layer"] = step.layer;
    row["seconds"] = step.seconds;
    steps.append(row);
  }
  return steps;
}

py::list plan_blocks(const BoundPlan& bound) {
  py::list blocks;
  for (const BlockInfo& block : locked(*bound.bound, [&] { return bound.plan.blocks(); })) {
    py::dict row;
    row["offset"] = block.offset;
    row["bytes"] = block.bytes;
    row["first"] = block.first;
    row["last"] = block.last;
    blocks.append(row);
  }
  return blocks;
}

void bind_compiled(py::module_& module) {
  using py::arg;
  py::class_<BoundPlan>(module, "Plan", "A graph compiled for a largest batch.")
      .def(py::init(&make_plan), arg("graph"), arg("state"), arg("mode"), arg("batch"),
           arg("losses") = std::vector<py::dict>{}, arg("metrics") = std::vector<py::dict>{},
           arg("fuse") = true, arg("seed") = 0, arg("precision") = "float32",
           arg("winograd") = true)
      .def("run", plan_run, arg("inputs"), arg("targets") = std::vector<py::object>{},
           arg("weights") = std::vector<py::object>{}, arg("indices") = py::none(),
           arg("learning_rate") = 0.0)
      .def("predict", plan_predict, arg("inputs"), arg("indices") = py::none())
      .def("output", plan_output, arg("i"))
      .def("first_non_finite",
           [](BoundPlan& bound) {
             return locked(*bound.bound, [&] { return bound.plan.first_non_finite(); });
           })
      .def("time_steps",
           [](BoundPlan& bound) { locked(*bound.bound, [&] { bound.plan.time_steps(); }); })
      .def("memory", plan_memory)
      .def("steps", plan_steps)
      .def("blocks", plan_blocks);
}

}  // namespace

void bind_plan(py::module_& module) {
  bind_graph(module);
  bind_state(module);
  bind_compiled(module);
}

}  // namespace convlet::bind
