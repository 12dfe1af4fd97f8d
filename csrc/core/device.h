// The abstract Device: memory, a context to run kernels in, and its table of kernels.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "core/context.h"

namespace convlet {

struct Kernels;  // ops/kernels.h

// What the factors of a product are rounded to before they are multiplied by the kernels of conv2d,
// dense and matmul, forward and backward. Sums, all other arithmetic, and every value in memory are
// float32 whatever the precision.
enum class Precision { float32, tf32, bfloat16 };

const char* name_of(Precision precision);
// ValueError that lists the names, unless `name` is one of them.
Precision precision_named(const char* what, const std::string& name);

// Work in the order of a stream that another library has made. While it lives, its device is the
// calling thread's.
class Stream {
 public:
  virtual ~Stream() = default;
  virtual Context& context() = 0;

  // Memory for what the stream gets from now on. It goes back in the stream's order too, so nobody
  // waits. Error when there is not enough.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;

  // Copies; `host` may change after the call, and read returns when it is done. An Error while the
  // stream is captured: a replay would find other values there, or none.
  virtual void write(void* memory, const void* host, std::size_t bytes) = 0;
  virtual void read(const void* memory, void* host, std::size_t bytes) = 0;
  virtual void clear(void* memory, std::size_t bytes) = 0;

  // Error when a launch has failed; waits for nothing.
  virtual void check() = 0;
  // What another stream gets from now on follows what this one has got so far.
  virtual void precede(std::uintptr_t other) = 0;
  // Says whether what this stream has got so far is done.
  virtual std::function<bool()> mark() = 0;
};

// Kernel calls that can be made again at the price of one: on a GPU a captured graph.
class Recording {
 public:
  virtual ~Recording() = default;
  virtual void replay() = 0;
};

// Values on their way to the host, which goes on and takes them later.
class Readback {
 public:
  virtual ~Readback() = default;
  // Copies in the order of the kernels' runs.
  virtual void send(const void* memory, std::size_t bytes) = 0;
  // The oldest that was sent and not yet taken; waits for it. Also where an error in a kernel
  // before it comes out.
  virtual void take(void* host) = 0;
};

// Values on their way to a device whose kernels run meanwhile: while they read what was sent last,
// the host fills and sends the next.
class Upload {
 public:
  virtual ~Upload() = default;
  // Host memory to fill.
  virtual char* fill(std::size_t bytes) = 0;
  // Sends it: where kernels find it that are called from now on and before the next fill().
  virtual const char* send() = 0;
};

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;  // "cpu", "cuda"
  // For people: chip, instruction set, threads, and what `precision` means here; Error as kernels.
  virtual std::string description(Precision precision) const = 0;
  // The table for a precision; Error with the reason and the fix where this device has none.
  virtual const Kernels& kernels(Precision precision) const = 0;
  virtual Context& context() = 0;
  // Whether kernels may be given pointers into the host's memory.
  virtual bool sees_host_memory() const = 0;

  // Bytes that could be allocated; 0 where that is not known.
  virtual std::size_t free_memory() const { return 0; }
  // 64-byte aligned memory of this device, not initialised; Error when there is not enough.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory, std::size_t bytes) noexcept = 0;
  // The same, of memory that the host may use too while no kernel of this device runs.
  virtual void* allocate_visible(std::size_t bytes) { return allocate(bytes); }

  // Copies between this device's memory and the host's, and zeroing; in the order of the kernels'
  // runs.
  virtual void write(void* memory, const void* host, std::size_t bytes) = 0;
  virtual void read(const void* memory, void* host, std::size_t bytes) = 0;
  virtual void clear(void* memory, std::size_t bytes) = 0;
  // As it is here, for a device whose kernels are done when their call returns.
  virtual std::unique_ptr<Readback> readback();
  // Null where kernels see the host's memory.
  virtual std::unique_ptr<Upload> upload() { return nullptr; }

  // What calls() launches in context(), recorded and not run; null where this device does not
  // record. calls() may launch and clear, nothing else. `name` is for people who look at it.
  virtual std::unique_ptr<Recording> record(const std::string& name,
                                            const std::function<void()>& calls) {
    (void)name, (void)calls;
    return nullptr;
  }

  // Whether p points into memory that this device's kernels can use.
  virtual bool sees(const void* p) const = 0;
  // A stream of another library's, by the number that the library gives; null where the device has
  // no streams. And the number of the device's own.
  virtual std::unique_ptr<Stream> stream_of(std::uintptr_t number) {
    (void)number;
    return nullptr;
  }
  virtual std::uintptr_t own_stream() const { return 0; }
};

// Owned memory of a device, released at the end of its scope.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(Device& device, std::size_t bytes)
      : device_(&device), data_(bytes ? device.allocate(bytes) : nullptr), bytes_(bytes) {}
  DeviceMemory(DeviceMemory&& other) noexcept { swap(other); }
  DeviceMemory& operator=(DeviceMemory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~DeviceMemory() {
    if (data_) device_->release(data_, bytes_);
  }

  char* data() const { return static_cast<char*>(data_); }
  std::size_t bytes() const { return bytes_; }

 private:
  void swap(DeviceMemory& other) noexcept {
    std::swap(device_, other.device_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  Device* device_ = nullptr;
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

}  // namespace convlet
