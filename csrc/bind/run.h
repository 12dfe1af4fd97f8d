// How a functional op runs: on the CPU device, with the GIL released, in workspace of its thread.
#pragma once
#include "bind/gil.h"
#include "cpu/device.h"
#include "ops/kernels.h"

namespace convlet::bind {

// Workspace of the calling thread, valid until the thread makes its next. A thread keeps up to 64
// MB from call to call: fresh memory costs more, at its first touch, than most ops.
class Workspace {
 public:
  Workspace(Device& device, std::size_t bytes);
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
  std::size_t used_ = 0;
};

// kernel(kernels, context). The table and the context are taken once per op: what another thread
// sets meanwhile takes effect at the next.
template <class Kernel>
void run(Kernel&& kernel) {
  ReleasedGil unlocked;
  Device& device = cpu_device();
  kernel(device.kernels(Precision::float32), device.context());
}

// kernel(kernels, context, workspace), with workspace of bytes(kernels, context.threads()).
template <class Bytes, class Kernel>
void run(Bytes&& bytes, Kernel&& kernel) {
  ReleasedGil unlocked;
  Device& device = cpu_device();
  const Kernels& kernels = device.kernels(Precision::float32);
  Context& context = device.context();
  Workspace workspace(device, bytes(kernels, context.threads()));
  kernel(kernels, context, workspace);
}

}  // namespace convlet::bind
