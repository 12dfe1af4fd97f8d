#include "bind/call.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <iterator>
#include <utility>

#include "bind/bind.h"

namespace convlet::bind {

namespace {

namespace py = pybind11;

constexpr std::size_t kKept = std::size_t{64} << 20;

thread_local DeviceMemory kept;
thread_local Device* chosen = nullptr;

std::atomic<Precision> precision_of_ops{Precision::float32};

std::shared_ptr<void> visible(Device& device, std::size_t bytes) {
  return {device.allocate_visible(bytes),
          [&device, bytes](void* memory) { device.release(memory, bytes); }};
}

// Released in the stream's order, and before the stream's end.
std::shared_ptr<void> in_order(Stream& stream, std::size_t bytes) {
  return {stream.allocate(bytes), [&stream](void* memory) { stream.release(memory); }};
}

// Arrays that kernels may still be reading, and what says when they are done. Guarded by the GIL.
struct InUse {
  std::function<bool()> done;
  std::vector<py::object> arrays;
};
std::vector<InUse>& in_use() {
  static auto* arrays = new std::vector<InUse>;  // outlives the interpreter
  return *arrays;
}

void keep_until_done(Stream& stream, std::vector<py::object> arrays) {
  std::vector<InUse> over;  // ends last: what a library does then may call an op
  auto first = std::partition(in_use().begin(), in_use().end(),
                              [](const InUse& use) { return !use.done(); });
  std::move(first, in_use().end(), std::back_inserter(over));
  in_use().erase(first, in_use().end());
  in_use().push_back({stream.mark(), std::move(arrays)});
}

}  // namespace

Device& op_device() {
  return chosen ? *chosen : cpu_device();
}

void set_op_device(Device& device) {
  chosen = &device;
}

void set_op_precision(Precision precision) {
  precision_of_ops = precision;
}

Workspace::Workspace(Device& device, Stream* stream, std::size_t bytes) {
  if (&device != &cpu_device()) {
    memory_ = stream ? in_order(*stream, bytes) : visible(device, bytes);
    return;
  }
  if (kept.bytes() >= bytes) return;
  kept = DeviceMemory();  // the old block goes before the new one comes
  kept = DeviceMemory(device, bytes);
}

Workspace::~Workspace() {
  if (kept.bytes() > kKept) kept = DeviceMemory();
}

void* Workspace::data() const {
  return memory_ ? memory_.get() : kept.data();
}

Call::Call(std::string op, const std::string& precision)
    : op_(std::move(op)), device_(&op_device()), precision_(precision_named(*this, precision)) {
  if (precision_ == Precision::float32) precision_ = precision_of_ops;
}

Call::Call(std::string op, Device& device)
    : op_(std::move(op)), device_(&device), precision_(Precision::float32), host_alone_(true) {}

Call::~Call() {
  if (stream_ && !kept_.empty()) keep_until_done(*stream_, std::move(kept_));
}

const DeviceArray* Call::device_array(const std::string& name, const py::object& value) {
  // The first test is much the quicker.
  const bool there = !py::isinstance<py::array>(value) && py::isinstance<DeviceArray>(value);
  if (there && host_alone_)
    value_error(op_, ": expected ", name, " in the memory of the host, got an array in a GPU's");
  if (first_.empty()) {
    first_ = name;
    if (there) {
      array_ = value.cast<const DeviceArray&>();
      device_ = &device_named(op_.c_str(), array_.device);
      stream_ = device_->stream_of(array_.stream);
    }
  } else if (there != on_stream()) {
    value_error(op_, ": expected all arrays in one place, got ", there ? first_ : name,
                " in the memory of the host and ", there ? name : first_, " in that of a GPU");
  }
  if (!there) return nullptr;
  const auto& array = value.cast<const DeviceArray&>();
  if (array.device != array_.device || array.stream != array_.stream ||
      !array.empty.is(array_.empty))
    value_error(op_, ": expected arrays of one library on one stream, got another one for ", name,
                " than for ", first_);
  if (array.kept) kept_.push_back(array.owner);
  return &array;
}

const Kernels& Call::kernels() const {
  try {
    return device_->kernels(precision_);
  } catch (const Error& error) {
    value_error(op_, ": ", error.what());
  }
}

py::object Call::new_device_array(const Shape& shape, DType dtype) {
  py::tuple sizes(shape.rank());
  for (int axis = 0; axis < shape.rank(); ++axis) sizes[axis] = shape[axis];
  return array_.empty(array_, sizes, name_of(dtype));
}

std::shared_ptr<void> Call::visible_memory(std::size_t bytes) {
  return device_ == &cpu_device() ? nullptr : visible(*device_, bytes);
}

std::shared_ptr<void> Call::staged(const void* host, std::size_t bytes) {
  if (device_->sees(host)) return nullptr;
  std::shared_ptr<void> memory = visible_memory(bytes);
  if (memory) {
    device_->write(memory.get(), host, bytes);
    device_->context().wait();  // checks on the host read it too
  }
  return memory;
}

void Call::copy_back(const std::shared_ptr<void>& memory, void* host, std::size_t bytes) {
  copies_.push_back({memory, host, bytes});
}

const void* Call::uploaded(const void* host, std::size_t bytes) {
  std::shared_ptr<void> memory;
  if (stream_) {
    memory = in_order(*stream_, bytes);
    stream_->write(memory.get(), host, bytes);
  } else {
    memory = staged(host, bytes);
    if (!memory) {
      memory = std::shared_ptr<char[]>(new char[bytes]);
      if (bytes) std::memcpy(memory.get(), host, bytes);
    }
  }
  uploads_.push_back(memory);
  return memory.get();
}

Tensor Call::on_host(const Tensor& tensor) {
  if (!stream_) return tensor;
  const auto bytes = static_cast<std::size_t>(tensor.shape.elements()) * size_of(tensor.dtype);
  std::shared_ptr<void> memory = std::shared_ptr<char[]>(new char[bytes]);
  {
    ReleasedGil unlocked;
    stream_->read(tensor.data, memory.get(), bytes);
  }
  uploads_.push_back(memory);
  return {memory.get(), tensor.dtype, tensor.shape};
}

void Call::fill(const Kernels& kernels, Context& context, std::int64_t n, float value,
                float* memory) {
  if (!stream_) {
    std::fill(memory, memory + n, value);
    return;
  }
  stream_->clear(memory, static_cast<std::size_t>(n) * sizeof(float));
  kernels.scale(context, n, 0.0f, value, memory, memory);
}

void Call::finish() {
  if (stream_) {
    stream_->check();
    return;
  }
  device_->context().wait();
  for (const CopyBack& copy : copies_)
    if (std::shared_ptr<void> memory = copy.memory.lock())
      std::memcpy(copy.host, memory.get(), copy.bytes);
  copies_.clear();
}

}  // namespace convlet::bind
