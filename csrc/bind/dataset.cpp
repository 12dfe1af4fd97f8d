// Batches, data sets in a device's memory, and outputs on their way from it.
#include "plan/dataset.h"

#include <pybind11/stl.h>

#include "bind/bind.h"
#include "bind/plan.h"

namespace convlet::bind {

BoundBatch make_batch(const char* what, const std::vector<py::object>& inputs,
                      const std::vector<py::object>& targets,
                      const std::vector<py::object>& weights, const py::object& indices) {
  Call op(what, op_device());
  BoundBatch bound;
  Batch& batch = bound.batch;
  auto add = [&](const char* kind, std::size_t i, const py::object& value,
                 std::initializer_list<DType> dtypes) -> Tensor {
    // Not by concat: streams take longer than all else here.
    bound.arrays.push_back(
        array_input(op, kind + ("[" + std::to_string(i) + "]"), value, nullptr, dtypes));
    const Input& input = bound.arrays.back();
    if (input.shape().rank() == 0)
      value_error(op, ": expected ", input.name, " with a batch axis, got shape ()");
    return input.tensor;
  };
  std::initializer_list<DType> any = {DType::float32, DType::float64, DType::uint8, DType::int32,
                                      DType::int64};
  for (const py::object& value : inputs)
    batch.inputs.push_back(add("inputs", batch.inputs.size(), value, any));
  if (batch.inputs.empty()) value_error(op, ": expected an array for each input, got none");
  for (const py::object& value : targets)
    batch.targets.push_back(add("targets", batch.targets.size(), value, any));

  std::int64_t rows = batch.inputs[0].shape[0];
  for (const py::object& value : weights) {
    std::size_t i = batch.weights.size();
    if (value.is_none()) {
      batch.weights.push_back(nullptr);
      continue;
    }
    const Tensor weight = add("weights", i, value, {DType::float32});
    expect_shape(op, concat("weights[", i, ']'), "(N,)", {rows}, weight.shape);
    batch.weights.push_back(weight.as<float>());
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

namespace {

std::unique_ptr<Dataset> make_dataset(const std::string& device,
                                      const std::vector<py::object>& inputs,
                                      const std::vector<py::object>& targets) {
  Device& where = device_named("Dataset", device);
  BoundBatch batch = make_batch("Dataset", inputs, targets, {}, py::none());
  for (const auto* tensors : {&batch.batch.inputs, &batch.batch.targets})
    for (const Tensor& x : *tensors)
      if (x.shape[0] != batch.batch.n)
        value_error("Dataset: expected arrays of one length, got ", batch.batch.n, " and ",
                    x.shape[0]);
  ReleasedGil unlocked;
  return std::make_unique<Dataset>(where, batch.batch);
}

void dataset_set_order(Dataset& data, const py::object& rows) {
  Call op("Dataset.set_order", op_device());
  Input input = array_input(op, "rows", rows, "(n,)", {DType::int64});
  ReleasedGil unlocked;
  data.set_order(input.tensor.as<std::int64_t>(), input.shape()[0]);
}

void dataset_set_weights(Dataset& data, int loss, const py::object& weights) {
  const char* what = "Dataset.set_weights";
  at(what, data.samples().targets, loss);
  if (weights.is_none()) return data.set_weights(static_cast<std::size_t>(loss), nullptr);
  Call op(what, op_device());
  Input input = float_input(op, "weights", weights, "(n,)");
  expect_shape(what, "weights", "(n,)", {data.samples().n}, input.shape());
  ReleasedGil unlocked;
  data.set_weights(static_cast<std::size_t>(loss), input.f32());
}

void outputs_take(BoundOutputs& outputs, const std::vector<py::array>& arrays) {
  if (arrays.size() > outputs.bytes.size())
    value_error("Outputs.take: expected at most ", outputs.bytes.size(), " arrays, got ",
                arrays.size());
  for (py::array array : arrays) {
    if (!array.dtype().is(py::dtype::of<float>()) || !(array.flags() & py::array::c_style) ||
        !array.writeable() || static_cast<std::size_t>(array.nbytes()) != outputs.bytes.front())
      value_error("Outputs.take: expected a writeable contiguous float32 array of ",
                  outputs.bytes.front(), " bytes, got one of ", array.nbytes(), " of dtype ",
                  std::string(py::str(array.dtype())));
    outputs.bytes.pop_front();
    void* to = array.mutable_data();
    ReleasedGil unlocked;
    outputs.readback->take(to);
  }
}

}  // namespace

void bind_dataset(py::module_& module) {
  using py::arg;
  py::class_<Dataset>(module, "Dataset", "Samples in a device's memory, for Plan.start_from.")
      .def(py::init(&make_dataset), arg("device"), arg("inputs"),
           arg("targets") = std::vector<py::object>{})
      .def("set_order", dataset_set_order, arg("rows"))
      .def("set_weights", dataset_set_weights, arg("loss"), arg("weights") = py::none());
  py::class_<BoundOutputs>(module, "Outputs", "Outputs of plans on their way from a device.")
      .def(py::init([](const std::string& device) {
             return BoundOutputs{device_named("Outputs", device).readback(), {}};
           }),
           arg("device"))
      .def("take", outputs_take, arg("arrays"));
  module.def(
      "free_memory",
      [](const std::string& device) { return device_named("free_memory", device).free_memory(); },
      arg("device"), "Bytes of a device's memory that could be allocated; 0 where unknown.");
}

}  // namespace convlet::bind
