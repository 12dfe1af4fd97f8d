// Tensor: a non-owning view of contiguous (row-major) memory. Whoever makes it keeps the memory
// alive.
#pragma once
#include <cstddef>

#include "core/shape.h"

namespace convlet {

enum class DType { float32, float64, uint8, int32, int64 };

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return "float32";
    case DType::float64:
      return "float64";
    case DType::uint8:
      return "uint8";
    case DType::int32:
      return "int32";
    case DType::int64:
      return "int64";
  }
  return "?";
}

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::float32:
      return 4;
    case DType::float64:
      return 8;
    case DType::uint8:
      return 1;
    case DType::int32:
      return 4;
    case DType::int64:
      return 8;
  }
  return 0;
}

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::float32;
  Shape shape;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

}  // namespace convlet
