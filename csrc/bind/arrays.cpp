#include "bind/arrays.h"

#include <optional>
#include <string>

#include "bind/run.h"

namespace convlet::bind {

namespace {

std::string type_name(const py::object& value) {
  return py::str(py::type::of(value).attr("__name__"));
}

// Nothing for a dtype that no op takes, byte-swapped ones included.
std::optional<DType> dtype_of(const py::array& array) {
  py::dtype dtype = array.dtype();
  if (dtype.byteorder() != '=' && dtype.byteorder() != '|') return std::nullopt;
  switch (dtype.kind()) {
    case 'f':
      if (dtype.itemsize() == 4) return DType::float32;
      if (dtype.itemsize() == 8) return DType::float64;
      break;
    case 'u':
      if (dtype.itemsize() == 1) return DType::uint8;
      break;
    case 'i':
      if (dtype.itemsize() == 4) return DType::int32;
      if (dtype.itemsize() == 8) return DType::int64;
      break;
  }
  return std::nullopt;
}

py::dtype numpy_dtype(DType dtype) {
  if (dtype == DType::float32) return py::dtype::of<float>();  // far quicker than by its name
  return py::dtype(std::string(name_of(dtype)));
}

int rank_of(const char* layout) {
  int commas = 0;
  const char* c = layout;
  for (; *c; ++c) commas += *c == ',';
  return c[-2] == ',' ? commas : commas + 1;
}

Shape shape_of(const char* op, const std::string& name, const py::array& array) {
  if (array.ndim() > Shape::kMaxRank)
    value_error(op, ": expected ", name, " with at most ", Shape::kMaxRank, " axes, got ",
                array.ndim());
  Shape shape;
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) shape.push_back(array.shape(axis));
  return shape;
}

bool has_flags(const py::array& array, int flags) {
  return (array.flags() & flags) == flags;
}

constexpr int kContiguous = py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_;
constexpr int kAligned = py::detail::npy_api::NPY_ARRAY_ALIGNED_;

std::string listed(std::initializer_list<DType> dtypes) {
  std::string names;
  std::size_t count = 0;
  for (DType dtype : dtypes) {
    if (count) names += count + 1 == dtypes.size() ? " or " : ", ";
    names += name_of(dtype);
    ++count;
  }
  return names;
}

py::array array_argument(const char* op, const std::string& name, const py::object& value,
                         std::initializer_list<DType> dtypes) {
  if (!py::isinstance<py::array>(value))
    type_error(op, ": expected ", name, " to be an array of dtype ", listed(dtypes), ", got ",
               type_name(value));
  return py::reinterpret_borrow<py::array>(value);
}

// The checks that `out` and arrays that are changed in place share.
Output writable(const char* op, const std::string& name, const py::object& value,
                DType dtype = DType::float32) {
  py::array array = array_argument(op, name, value, {dtype});
  if (dtype_of(array) != dtype)
    type_error(op, ": expected ", name, " of dtype ", name_of(dtype), ", got ",
               std::string(py::str(array.dtype())));
  if (!has_flags(array, kContiguous | kAligned))
    value_error(op, ": expected ", name, " to be C-contiguous, got strides ",
                std::string(py::str(array.attr("strides"))), " for shape ",
                shape_of(op, name, array));
  if (!array.writeable())
    value_error(op, ": expected ", name, " to be writeable, got a read-only array");
  void* data = array.mutable_data();
  const auto bytes = static_cast<std::size_t>(array.nbytes());
  std::shared_ptr<void> memory = staged(data, bytes);
  if (memory) copy_back(memory, data, bytes);
  return {array, static_cast<float*>(memory ? memory.get() : data), memory};
}

}  // namespace

Input array_input(const char* op, const std::string& name, const py::object& value,
                  const char* layout, std::initializer_list<DType> dtypes) {
  py::array array = array_argument(op, name, value, dtypes);

  std::optional<DType> dtype = dtype_of(array);
  bool known = false;
  for (DType d : dtypes) known = known || dtype == d;
  if (!known)
    type_error(op, ": expected ", name, " of dtype ", listed(dtypes), ", got ",
               std::string(py::str(array.dtype())));

  Shape shape = shape_of(op, name, array);
  if (layout && shape.rank() != rank_of(layout))
    value_error(op, ": expected ", name, ' ', layout, ", got shape ", shape);
  if (!has_flags(array, kContiguous | kAligned)) array = array.attr("copy")("C");
  // Kernels only read through it; Tensor has no const form.
  void* data = const_cast<void*>(array.data());
  std::shared_ptr<void> memory = staged(data, static_cast<std::size_t>(array.nbytes()));
  return {name, array, {memory ? memory.get() : data, *dtype, shape}, memory};
}

Input float_input(const char* op, const std::string& name, const py::object& value,
                  const char* layout) {
  return array_input(op, name, value, layout, {DType::float32});
}

namespace {

// In memory that the device of functional ops can use.
py::array new_array_of(DType dtype, const Shape& shape) {
  const std::vector<py::ssize_t> sizes(shape.begin(), shape.end());
  const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * size_of(dtype);
  std::shared_ptr<void> memory = visible_memory(bytes);
  if (!memory) return py::array(numpy_dtype(dtype), sizes);
  auto* owner = new std::shared_ptr<void>(memory);
  py::capsule base(owner, [](void* p) { delete static_cast<std::shared_ptr<void>*>(p); });
  return py::array(numpy_dtype(dtype), sizes, memory.get(), base);
}

Output output_array(const char* op, const py::object& out, DType dtype, const Shape& shape,
                    std::initializer_list<const Input*> apart,
                    std::initializer_list<const Input*> same) {
  if (out.is_none()) {
    checked_multiply(shape.elements(op), static_cast<std::int64_t>(size_of(dtype)), op);
    py::array array = new_array_of(dtype, shape);
    return {array, static_cast<float*>(array.mutable_data()), nullptr};
  }
  Output output = writable(op, "out", out, dtype);
  Shape got = shape_of(op, "out", output.array);
  if (got != shape) value_error(op, ": expected out of shape ", shape, ", got ", got);

  std::size_t bytes = output.array.nbytes();
  for (const Input* input : apart)
    if (overlap(output.array.data(), bytes, input->array.data(), input->array.nbytes()))
      value_error(op, ": expected out to be apart from ", input->name,
                  ", got arrays that share memory");
  for (const Input* input : same)
    if (input->array.data() != output.array.data() &&
        overlap(output.array.data(), bytes, input->array.data(), input->array.nbytes()))
      value_error(op, ": expected out to be ", input->name, " itself or apart from it, got a part ",
                  "of its memory");
  return output;
}

}  // namespace

py::array new_array(const Shape& shape) {
  return new_array_of(DType::float32, shape);
}

Output float_output(const char* op, const py::object& out, const Shape& shape,
                    std::initializer_list<const Input*> apart,
                    std::initializer_list<const Input*> same) {
  return output_array(op, out, DType::float32, shape, apart, same);
}

Output typed_output(const char* op, const py::object& out, DType dtype, const Shape& shape,
                    std::initializer_list<const Input*> apart) {
  return output_array(op, out, dtype, shape, apart, {});
}

Output float_in_place(const char* op, const std::string& name, const py::object& value) {
  return writable(op, name, value);
}

bool overlap(const void* a, std::size_t a_bytes, const void* b, std::size_t b_bytes) {
  std::uintptr_t first = reinterpret_cast<std::uintptr_t>(a);
  std::uintptr_t second = reinterpret_cast<std::uintptr_t>(b);
  return a_bytes && b_bytes && first < second + b_bytes && second < first + a_bytes;
}

void expect_shape(const char* op, const std::string& name, const char* layout,
                  const Shape& expected, const Shape& got) {
  if (got != expected)
    value_error(op, ": expected ", name, ' ', layout, " of shape ", expected, ", got ", got);
}

Shape shape_argument(const char* op, const char* name, const std::vector<std::int64_t>& sizes,
                     const char* layout) {
  std::string got;
  bool valid = static_cast<int>(sizes.size()) == rank_of(layout);
  for (std::int64_t size : sizes) {
    valid = valid && size >= 0;
    got += (got.empty() ? "" : ",") + std::to_string(size);
  }
  if (!valid)
    value_error(op, ": expected ", name, ' ', layout, " with sizes >= 0, got (", got, ")");
  Shape shape;
  for (std::int64_t size : sizes) shape.push_back(size);
  return shape;
}

py::tuple to_tuple(const Shape& shape) {
  py::tuple sizes(shape.rank());
  for (int axis = 0; axis < shape.rank(); ++axis) sizes[axis] = shape[axis];
  return sizes;
}

}  // namespace convlet::bind
