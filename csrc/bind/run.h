// How a functional op runs: on the chosen device, with the GIL released, in workspace of its
// thread.
#pragma once
#include <cstring>
#include <memory>
#include <optional>
#include <string>

#include "bind/gil.h"
#include "cpu/device.h"
#include "ops/kernels.h"

namespace convlet::bind {

// The device that functional ops of this thread run on: the CPU, unless another was chosen. There
// arrays that the device does not see are copied into memory that it sees, and new arrays lie in
// it. With a stream, kernels follow what another library has put into it.
Device& op_device();
Context& op_context();
void set_op_device(Device& device, std::optional<std::uintptr_t> stream);

// Memory of op_device() that the host sees too; null where that is the CPU, which sees all memory.
std::shared_ptr<void> visible_memory(std::size_t bytes);
// The same, holding a copy of the host's; null too where the device sees that.
std::shared_ptr<void> staged(const void* host, std::size_t bytes);
// When the next op of this thread has run, while the memory lives, it is copied to the host's.
void copy_back(const std::shared_ptr<void>& memory, void* host, std::size_t bytes);
void finish_copies();

// Numbers of the host's where the kernels of an op can read them; null stays null.
template <class T>
class Staged {
 public:
  Staged(const T* values, std::size_t count)
      : memory_(values ? staged(values, count * sizeof(T)) : nullptr),
        data_(memory_ ? static_cast<const T*>(memory_.get()) : keep(values, count)) {}
  const T* data() const { return data_; }

 private:
  const T* keep(const T* values, std::size_t count) {
    if (!values) return nullptr;
    memory_ = std::shared_ptr<T[]>(new T[count]);
    if (count) std::memcpy(memory_.get(), values, count * sizeof(T));
    return static_cast<const T*>(memory_.get());
  }

  std::shared_ptr<void> memory_;
  const T* data_;
};

// Workspace of the calling thread, valid until the thread makes its next. A thread keeps up to 64
// MB of the CPU's from call to call: fresh memory costs more, at its first touch, than most ops.
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
  std::shared_ptr<void> visible_;  // on another device than the CPU
  std::size_t used_ = 0;
};

// The precision of functional ops: float32, until a test sets another one for the process.
Precision op_precision();
void set_op_precision(Precision precision);

// kernel(kernels, context). The table and the context are taken once per op: what another thread
// sets meanwhile takes effect at the next.
template <class Kernel>
void run(Kernel&& kernel) {
  ReleasedGil unlocked;
  Device& device = op_device();
  Context& context = op_context();
  kernel(device.kernels(op_precision()), context);
  context.wait();
  finish_copies();
}

// kernel(kernels, context, workspace), with workspace of bytes(kernels, context.threads()).
template <class Bytes, class Kernel>
void run(Bytes&& bytes, Kernel&& kernel) {
  ReleasedGil unlocked;
  Device& device = op_device();
  const Kernels& kernels = device.kernels(op_precision());
  Context& context = op_context();
  Workspace workspace(device, bytes(kernels, context.threads()));
  kernel(kernels, context, workspace);
  context.wait();
  finish_copies();
}

}  // namespace convlet::bind
