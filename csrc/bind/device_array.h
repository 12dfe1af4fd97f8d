// Arrays of other libraries in a device's memory.
#pragma once
#include <pybind11/pybind11.h>

#include <memory>
#include <string>

#include "core/device.h"
#include "core/shape.h"

namespace convlet::bind {

// What ops know of such an array. Its library keeps the memory and gives new arrays.
struct DeviceArray {
  std::string device;     // "cuda"
  std::uintptr_t stream;  // the order in which it is used
  void* data;
  std::string dtype;  // numpy's name, also of one that no op takes
  Shape shape;
  pybind11::object strides;  // None where it is C-contiguous; for messages
  pybind11::object owner;    // the library's array
  pybind11::object empty;    // empty(self, shape, dtype name): a new DeviceArray like it
  bool writeable = true;
  bool kept = false;             // owner lives until the kernels that read it are done
  std::shared_ptr<void> memory;  // of an array of our own
};

}  // namespace convlet::bind
