// The abstract Device: memory, a context to run kernels in, and its table of kernels.
#pragma once
#include <cstddef>
#include <string>
#include <utility>

#include "core/context.h"

namespace convlet {

struct Kernels;  // ops/kernels.h

class Device {
 public:
  virtual ~Device() = default;

  virtual std::string name() const = 0;         // "cpu", "cuda"
  virtual std::string description() const = 0;  // for people: chip, instruction set, threads
  virtual const Kernels& kernels() const = 0;
  virtual Context& context() = 0;

  // 64-byte aligned memory of this device, not initialised; Error when there is not enough.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory, std::size_t bytes) noexcept = 0;

  // Copies between this device's memory and the host's, and zeroing; in the order of the kernels'
  // runs.
  virtual void write(void* memory, const void* host, std::size_t bytes) = 0;
  virtual void read(const void* memory, void* host, std::size_t bytes) = 0;
  virtual void clear(void* memory, std::size_t bytes) = 0;
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
