// Plan; state.cpp has Graph and State, dataset.cpp what batches are made of.
#include "bind/plan.h"

#include <pybind11/stl.h>

#include "bind/bind.h"
#include "plan/dataset.h"

namespace convlet::bind {

namespace {

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
};

std::unique_ptr<BoundPlan> make_plan(const Graph& graph, std::shared_ptr<BoundState> bound,
                                     const std::string& mode, std::int64_t batch,
                                     const std::vector<py::dict>& losses,
                                     const std::vector<py::dict>& metrics, bool fuse,
                                     std::uint64_t seed, const std::string& precision,
                                     std::optional<bool> winograd) {
  PlanOptions options;
  options.mode = mode_named(mode);
  options.batch = batch;
  for (const py::dict& loss : losses) options.losses.push_back(loss_spec(loss));
  for (const py::dict& metric : metrics) options.metrics.push_back(metric_spec(metric));
  options.fuse = fuse;
  options.seed = seed;
  options.precision = precision_named("Plan", precision);
  options.winograd = winograd.value_or(options.mode != Mode::train);
  Graph copy = graph;
  BoundState& state = *bound;
  return locked(state,
                [&] { return std::make_unique<BoundPlan>(copy, std::move(bound), options); });
}

std::int64_t plan_start_from(BoundPlan& bound, const Dataset& data, std::int64_t first,
                             std::int64_t n, double learning_rate) {
  return locked(*bound.bound, [&] { return bound.plan.start(data, first, n, learning_rate); });
}

void plan_send_outputs(BoundPlan& bound, BoundOutputs& outputs) {
  const std::int64_t rows = locked(*bound.bound, [&] {
    bound.plan.send_outputs(*outputs.readback);
    return bound.plan.rows();
  });
  for (int value : bound.graph.outputs())
    outputs.bytes.push_back(static_cast<std::size_t>(
        bound.graph.shape(value).with_front(rows).elements() * std::int64_t{sizeof(float)}));
}

std::int64_t plan_start(BoundPlan& bound, const std::vector<py::object>& inputs,
                        const std::vector<py::object>& targets,
                        const std::vector<py::object>& weights, const py::object& indices,
                        double learning_rate) {
  BoundBatch batch = make_batch("Plan.start", inputs, targets, weights, indices);
  return locked(*bound.bound, [&] { return bound.plan.start(batch.batch, learning_rate); });
}

py::array_t<double> plan_finish(BoundPlan& bound, std::int64_t step) {
  std::vector<double> results = locked(*bound.bound, [&] { return bound.plan.finish(step); });
  return py::array_t<double>(static_cast<py::ssize_t>(results.size()), results.data());
}

py::array_t<double> plan_run(BoundPlan& bound, const std::vector<py::object>& inputs,
                             const std::vector<py::object>& targets,
                             const std::vector<py::object>& weights, const py::object& indices,
                             double learning_rate) {
  BoundBatch batch = make_batch("Plan.run", inputs, targets, weights, indices);
  std::vector<double> results =
      locked(*bound.bound, [&] { return bound.plan.run(batch.batch, learning_rate); });
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
    for (std::size_t i = 0; i < outputs.size(); ++i)
      bound.plan.output(static_cast<int>(i), outputs[i].data);
  });
  py::list arrays;
  for (const Output& output : outputs) arrays.append(output.array);
  return arrays;
}

py::array plan_output(BoundPlan& bound, int i) {
  const std::int64_t rows = locked(*bound.bound, [&] { return bound.plan.rows(); });
  Output out = output_array(bound, at("Plan.output", bound.graph.outputs(), i), rows);
  locked(*bound.bound, [&] {
    if (bound.plan.rows() != rows)
      value_error("Plan.output: another thread has run the plan meanwhile");
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
           arg("winograd") = py::none())
      .def("run", plan_run, arg("inputs"), arg("targets") = std::vector<py::object>{},
           arg("weights") = std::vector<py::object>{}, arg("indices") = py::none(),
           arg("learning_rate") = 0.0)
      .def("start", plan_start, arg("inputs"), arg("targets") = std::vector<py::object>{},
           arg("weights") = std::vector<py::object>{}, arg("indices") = py::none(),
           arg("learning_rate") = 0.0)
      .def("start_from", plan_start_from, arg("dataset"), arg("first"), arg("n"),
           arg("learning_rate") = 0.0)
      .def("finish", plan_finish, arg("step"))
      .def("send_outputs", plan_send_outputs, arg("to"))
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
  bind_state(module);
  bind_dataset(module);
  bind_compiled(module);
}

}  // namespace convlet::bind
