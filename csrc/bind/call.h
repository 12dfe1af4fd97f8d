// One call of a functional op: where its arrays lie, and what its kernels run on.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "bind/device_array.h"
#include "bind/gil.h"
#include "core/tensor.h"
#include "cpu/device.h"
#include "ops/kernels.h"

namespace convlet::bind {

// The device on which functional ops of this thread run with arrays of the host: the CPU, unless a
// test has chosen another. There arrays that the device does not see are copied into memory that it
// sees, and new arrays lie in it.
Device& op_device();
void set_op_device(Device& device);

// The precision of functional ops that ask for float32: that, until a test sets another one.
void set_op_precision(Precision precision);

// Workspace of the calling thread, valid until the thread makes its next. A thread keeps up to 64
// MB of the CPU's from call to call: fresh memory costs more, at its first touch, than most ops.
class Workspace {
 public:
  Workspace(Device& device, Stream* stream, std::size_t bytes);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const;

  // The next `count` values, aligned to 64 bytes; `bytes` above is the sum of their padded sizes.
  template <class T>
  T* take(std::int64_t count) {
    void* part = static_cast<char*>(data()) + used_;
    used_ += padded<T>(count);
    return static_cast<T*>(part);
  }
  template <class T>
  static std::size_t padded(std::int64_t count) {
    return (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
  }

 private:
  std::shared_ptr<void> memory_;  // on another device than the CPU
  std::size_t used_ = 0;
};

// The first array decides. With arrays of the host the op runs on op_device(), and the call returns
// when it is done. With arrays of another library in a device's memory it runs there, in the order
// of that library's stream, and the call returns as soon as the kernels are launched.
class Call {
 public:
  explicit Call(std::string op, const std::string& precision = "float32");
  // Of arrays of the host alone.
  Call(std::string op, Device& device);
  ~Call();
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // The op's name, for messages.
  operator const char*() const { return op_.c_str(); }
  friend std::ostream& operator<<(std::ostream& out, const Call& call) { return out << call.op_; }

  // The argument where it lies in a device's memory, else null; ValueError when the call's first
  // array lies elsewhere, or the call is of arrays of the host alone.
  const DeviceArray* device_array(const std::string& name, const pybind11::object& value);
  bool on_stream() const { return stream_ != nullptr; }

  // A new array of the caller's library beside the first one.
  pybind11::object new_device_array(const Shape& shape, DType dtype);

  // Where arrays of the host are not the device's: memory that both see, holding a copy; null where
  // the device sees the array.
  std::shared_ptr<void> staged(const void* host, std::size_t bytes);
  std::shared_ptr<void> visible_memory(std::size_t bytes);
  // After the run the memory, if it lives, is copied to the host's.
  void copy_back(const std::shared_ptr<void>& memory, void* host, std::size_t bytes);

  // Numbers of the host's where kernels can read them; null stays null.
  template <class T>
  const T* upload(const T* values, std::size_t count) {
    return values ? static_cast<const T*>(uploaded(values, count * sizeof(T))) : nullptr;
  }
  // The values of a tensor of this call's where the host can read them. Waits for a device.
  Tensor on_host(const Tensor& tensor);
  // The host's or, with a stream, the device's memory gets n equal values.
  void fill(const Kernels& kernels, Context& context, std::int64_t n, float value, float* memory);

  // kernel(kernels, context). The table and the context are taken once per op: what another thread
  // sets meanwhile takes effect at the next.
  template <class Kernel>
  void run(Kernel&& kernel) {
    ReleasedGil unlocked;
    kernel(kernels(), context());
    finish();
  }

  // kernel(kernels, context, workspace), with workspace of bytes(kernels, context.threads()).
  template <class Bytes, class Kernel>
  void run(Bytes&& bytes, Kernel&& kernel) {
    ReleasedGil unlocked;
    const Kernels& table = kernels();
    Context& order = context();
    Workspace workspace(*device_, stream_.get(), bytes(table, order.threads()));
    kernel(table, order, workspace);
    finish();
  }

 private:
  struct CopyBack {
    std::weak_ptr<void> memory;
    void* host;
    std::size_t bytes;
  };

  const Kernels& kernels() const;
  Context& context() { return stream_ ? stream_->context() : device_->context(); }
  const void* uploaded(const void* host, std::size_t bytes);
  void finish();

  std::string op_;
  Device* device_;
  Precision precision_;
  bool host_alone_ = false;
  std::string first_;  // the name of the first array, once there is one
  DeviceArray array_;  // the first one, where it lies in a device's memory
  std::unique_ptr<Stream> stream_;
  std::vector<std::shared_ptr<void>> uploads_;
  std::vector<pybind11::object> kept_;  // what must outlive the kernels
  std::vector<CopyBack> copies_;
};

}  // namespace convlet::bind
