// Arrays in and out. Every message names the op, the argument, what was expected and what
// came.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bind/call.h"
#include "core/tensor.h"

namespace convlet::bind {

namespace py = pybind11;

// The memory of an array of the caller's.
struct Extent {
  const void* begin = nullptr;
  std::size_t bytes = 0;

  bool overlaps(const Extent& other) const;
};

// What an op reads: an array that is C-contiguous and aligned, and a view of it. The array is the
// caller's own where its layout allows, else a copy, and lives as long as this.
struct Input {
  std::string name;
  py::object array;
  Extent extent;
  Tensor tensor;                 // where kernels read it
  std::shared_ptr<void> memory;  // tensor's, where that is not the array's own

  const Shape& shape() const { return tensor.shape; }
  const float* f32() const { return static_cast<const float*>(tensor.data); }
};

// What an op writes: a new array, or the caller's `out`.
struct Output {
  py::object array;
  Extent extent;
  Shape shape;
  float* data;                   // where kernels write it
  std::shared_ptr<void> memory;  // as in Input; after the run it is copied into the array
};

// An array of one of `dtypes`: TypeError otherwise. `layout` is "(N,H,W,C)" or the like and fixes
// the rank: ValueError otherwise; null allows any.
Input array_input(Call& op, const std::string& name, const py::object& value, const char* layout,
                  std::initializer_list<DType> dtypes);
Input float_input(Call& op, const std::string& name, const py::object& value, const char* layout);

// A new float32 array of this shape.
Output new_array(Call& op, const Shape& shape);

// `out` if it is not None: float32, of this shape, C-contiguous, writeable, and apart from the
// memory of `apart`; it may be exactly one of `same`, but not a shifted part of it.
Output float_output(Call& op, const py::object& out, const Shape& shape,
                    std::initializer_list<const Input*> apart,
                    std::initializer_list<const Input*> same = {});

// The same for another dtype, apart from the memory of all its inputs; data points to its values.
Output typed_output(Call& op, const py::object& out, DType dtype, const Shape& shape,
                    std::initializer_list<const Input*> apart);

// An array that the op changes in place.
Output float_in_place(Call& op, const std::string& name, const py::object& value);

// ValueError unless the argument has this shape.
void expect_shape(const char* op, const std::string& name, const char* layout,
                  const Shape& expected, const Shape& got);

// A shape given as integers: ValueError unless it has the rank of `layout` and no size is negative.
Shape shape_argument(const char* op, const char* name, const std::vector<std::int64_t>& sizes,
                     const char* layout);

py::tuple to_tuple(const Shape& shape);

// The dtype of this name, where ops have it.
std::optional<DType> dtype_named(const std::string& name);

}  // namespace convlet::bind
