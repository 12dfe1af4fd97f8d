// DeviceArray for Python, and DLPack: an array of another library by its capsule, and one of our
// own given to another library (the array API standard's `__dlpack__`, with its streams).
#include "bind/device_array.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "bind/arrays.h"
#include "bind/bind.h"

namespace convlet::bind {

namespace {

// DLPack's C structs (dlpack.h, version 0.8).
struct DLDataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};
struct DLTensor {
  void* data;
  struct {
    std::int32_t type, id;
  } device;
  std::int32_t ndim;
  DLDataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // in elements; null where it is C-contiguous
  std::uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor tensor;
  void* manager;
  void (*deleter)(DLManagedTensor*);
};

constexpr std::int32_t kCuda = 2;  // kDLCUDA
constexpr const char *kFresh = "dltensor", *kUsed = "used_dltensor";

// numpy's name of a DLPack dtype: by code, the kinds int, uint, float, bfloat, complex, bool.
std::string name_of(const DLDataType& dtype) {
  constexpr const char* kinds[] = {"int", "uint", "float", "opaque", "bfloat", "complex", "bool"};
  const std::string kind = dtype.code < std::size(kinds) ? kinds[dtype.code] : "?";
  if (kind == "bool") return kind;
  return dtype.lanes == 1 ? concat(kind, int{dtype.bits})
                          : concat(kind, int{dtype.bits}, 'x', dtype.lanes);
}

bool is_contiguous(const DLTensor& tensor) {
  std::int64_t step = 1;
  for (int axis = tensor.ndim - 1; tensor.strides && axis >= 0; --axis) {
    if (tensor.shape[axis] == 0) return true;
    if (tensor.shape[axis] > 1 && tensor.strides[axis] != step) return false;
    step *= tensor.shape[axis];
  }
  return true;
}

// Frees what a used capsule held, when its last user is gone.
struct Held {
  DLManagedTensor* managed;
  ~Held() {
    if (managed->deleter) managed->deleter(managed);
  }
};

// An array from the capsule of another library, which has made it for `stream`.
DeviceArray from_capsule(py::capsule capsule, const std::string& device, std::uintptr_t stream,
                         const py::object& empty) {
  if (!capsule.name() || std::string(capsule.name()) != kFresh)
    type_error("from_capsule: expected a capsule \"", kFresh, "\", got \"",
               capsule.name() ? capsule.name() : "", '"');
  auto* managed = capsule.get_pointer<DLManagedTensor>();
  capsule.set_name(kUsed);
  auto* held = new Held{managed};
  py::capsule owner(held, [](void* p) { delete static_cast<Held*>(p); });
  const DLTensor& tensor = managed->tensor;
  DeviceArray array;
  array.device = device;
  array.stream = stream;
  array.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  array.dtype = name_of(tensor.dtype);
  for (int axis = 0; axis < tensor.ndim; ++axis) array.shape.push_back(tensor.shape[axis]);
  array.strides = py::none();
  if (!is_contiguous(tensor))
    array.strides = py::tuple(
        py::cast(std::vector<std::int64_t>(tensor.strides, tensor.strides + tensor.ndim)));
  array.owner = owner;
  array.empty = empty;
  array.writeable = false;  // the capsule of this version cannot say so
  array.kept = true;
  return array;
}

// A new array in a stream's order whose memory is our own: for libraries whose arrays nobody else
// may write.
DeviceArray own_array(const std::string& device_name, std::uintptr_t stream,
                      const std::vector<std::int64_t>& sizes, const std::string& dtype,
                      const py::object& empty) {
  Device& device = device_named("DeviceArray", device_name);
  DeviceArray array;
  array.device = device_name;
  array.stream = stream;
  array.dtype = dtype;
  for (std::int64_t size : sizes) array.shape.push_back(size);
  array.strides = array.owner = py::none();
  array.empty = empty;
  const auto bytes =
      static_cast<std::size_t>(array.shape.elements()) * size_of(dtype_named(dtype).value());
  // Its last owner may be on any thread, and have no stream at hand.
  array.memory = {device.stream_of(stream)->allocate(bytes),
                  [&device, stream](void* memory) { device.stream_of(stream)->release(memory); }};
  array.data = array.memory.get();
  return array;
}

DLDataType dlpack_type(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return {2, 32, 1};
    case DType::float64:
      return {2, 64, 1};
    case DType::uint8:
      return {1, 8, 1};
    case DType::int32:
      return {0, 32, 1};
    case DType::int64:
      return {0, 64, 1};
  }
  return {};
}

// What a capsule of ours points to, with what it holds.
struct Given {
  DLManagedTensor managed;
  std::shared_ptr<void> memory;
  Shape shape;
};

// stream: None is the legacy default one, -1 asks for no order, else the consumer's number.
py::capsule to_capsule(const DeviceArray& array, std::optional<std::int64_t> stream) {
  constexpr std::int64_t kLegacy = 1;
  const auto consumer = static_cast<std::uintptr_t>(stream.value_or(kLegacy));
  if (stream != -1 && consumer != array.stream)
    device_named("__dlpack__", array.device).stream_of(array.stream)->precede(consumer);
  auto* given = new Given{{}, array.memory, array.shape};
  DLTensor& tensor = given->managed.tensor;
  tensor.data = array.data;
  tensor.device = {kCuda, 0};
  tensor.ndim = given->shape.rank();
  tensor.dtype = dlpack_type(dtype_named(array.dtype).value());
  tensor.shape = const_cast<std::int64_t*>(given->shape.begin());
  given->managed.manager = given;
  given->managed.deleter = [](DLManagedTensor* managed) {
    delete static_cast<Given*>(managed->manager);
  };
  return py::capsule(&given->managed, kFresh, [](PyObject* capsule) {
    if (PyCapsule_IsValid(capsule, kFresh)) {  // nobody has used it
      auto* managed = static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, kFresh));
      managed->deleter(managed);
    }
  });
}

// A number beside an array, for broadcasting.
py::object scalar_beside(const py::object& array, float value) {
  Call op("scalar");
  op.device_array("like", array);
  Output y = new_array(op, {});
  op.run([&](const Kernels& kernels, Context& context) {
    op.fill(kernels, context, 1, value, y.data);
  });
  return y.array;
}

py::array to_host(const DeviceArray& array) {
  const DType dtype = dtype_named(array.dtype).value();
  py::array result(py::dtype(array.dtype),
                   std::vector<py::ssize_t>(array.shape.begin(), array.shape.end()));
  device_named("numpy", array.device)
      .stream_of(array.stream)
      ->read(array.data, result.mutable_data(),
             static_cast<std::size_t>(array.shape.elements()) * size_of(dtype));
  return result;
}

void from_host(const DeviceArray& array, const py::array& values) {
  if (!values.dtype().is(py::dtype(array.dtype)) || !(values.flags() & py::array::c_style) ||
      values.size() != array.shape.elements())
    value_error("copy_from: expected a C-contiguous array of dtype ", array.dtype, " and shape ",
                array.shape);
  device_named("copy_from", array.device)
      .stream_of(array.stream)
      ->write(array.data, values.data(), static_cast<std::size_t>(values.nbytes()));
}

}  // namespace

void bind_device_array(py::module_& module) {
  using py::arg;
  py::class_<DeviceArray>(module, "DeviceArray", "An array in a device's memory, for ops.")
      .def(py::init([](const std::string& device, std::uintptr_t stream, std::uintptr_t pointer,
                       const std::string& dtype, const std::vector<std::int64_t>& shape,
                       const py::object& strides, bool writeable, const py::object& owner,
                       const py::object& empty) {
             DeviceArray array;
             array.device = device;
             array.stream = stream;
             array.data = reinterpret_cast<void*>(pointer);
             array.dtype = dtype;
             for (std::int64_t size : shape) array.shape.push_back(size);
             array.strides = strides;
             array.writeable = writeable;
             array.owner = owner;
             array.empty = empty;
             return array;
           }),
           arg("device"), arg("stream"), arg("pointer"), arg("dtype"), arg("shape"), arg("strides"),
           arg("writeable"), arg("owner"), arg("empty"))
      .def_static("from_capsule", from_capsule, arg("capsule"), arg("device"), arg("stream"),
                  arg("empty"))
      .def_static("own", own_array, arg("device"), arg("stream"), arg("shape"), arg("dtype"),
                  arg("empty"))
      .def_readonly("device", &DeviceArray::device)
      .def_readonly("stream", &DeviceArray::stream)
      .def_readonly("dtype", &DeviceArray::dtype)
      .def_readonly("owner", &DeviceArray::owner)
      .def_readonly("strides", &DeviceArray::strides)
      .def_property_readonly("shape",
                             [](const DeviceArray& array) { return to_tuple(array.shape); })
      .def_property_readonly("ndim", [](const DeviceArray& array) { return array.shape.rank(); })
      .def_property_readonly(
          "pointer",
          [](const DeviceArray& array) { return reinterpret_cast<std::uintptr_t>(array.data); })
      .def("numpy", to_host, "A copy on the host.")
      .def("copy_from", from_host, arg("values"))
      .def("scalar", scalar_beside, arg("value"), "A number as an array without axes beside it.")
      .def(
          "__dlpack__",
          [](const DeviceArray& array, std::optional<std::int64_t> stream, const py::object&,
             const py::object&, const py::object&) { return to_capsule(array, stream); },
          py::kw_only(), arg("stream") = py::none(), arg("max_version") = py::none(),
          arg("dl_device") = py::none(), arg("copy") = py::none())
      .def("__dlpack_device__", [](const DeviceArray&) { return std::make_pair(kCuda, 0); });
  py::class_<Recording>(module, "Recording", "Ops of the device's own stream as one graph.")
      .def("replay", [](Recording& recording) {
        ReleasedGil unlocked;
        recording.replay();
      });
  module.def(
      "record",
      [](const std::string& device, const py::function& calls) {
        return device_named("record", device).record("ops", [&] { calls(); });
      },
      arg("device"), arg("calls"),
      "What calls() makes ops do with arrays on the device's own stream, recorded and not run; "
      "None "
      "where nothing is recorded");
  module.def(
      "wait",
      [](const std::string& device) {
        ReleasedGil unlocked;
        device_named("wait", device).context().wait();
      },
      arg("device"), "Returns when the device's own stream is done");
  module.def(
      "own_stream",
      [](const std::string& device) { return device_named("own_stream", device).own_stream(); },
      arg("device"), "The number of the device's own stream");
  module.def(
      "sees",
      [](const std::string& device, std::uintptr_t pointer) {
        return device_named("sees", device).sees(reinterpret_cast<const void*>(pointer));
      },
      arg("device"), arg("pointer"), "Whether kernels of the device can use this memory");
}

}  // namespace convlet::bind
