#include "bind/arrays.h"

#include <optional>
#include <string>

#include "bind/call.h"

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

Shape shape_of(const Call& op, const std::string& name, const py::array& array) {
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

py::array array_argument(const Call& op, const std::string& name, const py::object& value,
                         std::initializer_list<DType> dtypes) {
  if (!py::isinstance<py::array>(value))
    type_error(op, ": expected ", name, " to be an array of dtype ", listed(dtypes), ", got ",
               type_name(value));
  return py::reinterpret_borrow<py::array>(value);
}

Extent extent_of(const void* data, const Shape& shape, DType dtype) {
  return {data, static_cast<std::size_t>(shape.elements()) * size_of(dtype)};
}

// The checks that `out` and arrays that are changed in place share.
Output writable(Call& op, const std::string& name, const py::object& value,
                DType dtype = DType::float32) {
  if (const DeviceArray* there = op.device_array(name, value)) {
    if (there->dtype != name_of(dtype))
      type_error(op, ": expected ", name, " of dtype ", name_of(dtype), ", got ", there->dtype);
    if (!there->strides.is_none())
      value_error(op, ": expected ", name, " to be C-contiguous, got strides ",
                  std::string(py::str(there->strides)), " for shape ", there->shape);
    if (!there->writeable)
      value_error(op, ": expected ", name, " to be writeable, got a read-only array");
    return {value, extent_of(there->data, there->shape, dtype), there->shape,
            static_cast<float*>(there->data), nullptr};
  }
  py::array array = array_argument(op, name, value, {dtype});
  if (dtype_of(array) != dtype)
    type_error(op, ": expected ", name, " of dtype ", name_of(dtype), ", got ",
               std::string(py::str(array.dtype())));
  const Shape shape = shape_of(op, name, array);
  if (!has_flags(array, kContiguous | kAligned))
    value_error(op, ": expected ", name, " to be C-contiguous, got strides ",
                std::string(py::str(array.attr("strides"))), " for shape ", shape);
  if (!array.writeable())
    value_error(op, ": expected ", name, " to be writeable, got a read-only array");
  void* data = array.mutable_data();
  const Extent extent = extent_of(data, shape, dtype);
  std::shared_ptr<void> memory = op.staged(data, extent.bytes);
  if (memory) op.copy_back(memory, data, extent.bytes);
  return {array, extent, shape, static_cast<float*>(memory ? memory.get() : data), memory};
}

// Of an input, whatever its array is; `got` makes the name of a dtype that is none of these.
template <class Got>
DType checked_type(const Call& op, const std::string& name, const std::optional<DType>& dtype,
                   std::initializer_list<DType> dtypes, Got&& got) {
  for (DType d : dtypes)
    if (dtype == d) return d;
  type_error(op, ": expected ", name, " of dtype ", listed(dtypes), ", got ", got());
}

void check_rank(const Call& op, const std::string& name, const char* layout, const Shape& shape) {
  if (layout && shape.rank() != rank_of(layout))
    value_error(op, ": expected ", name, ' ', layout, ", got shape ", shape);
}

}  // namespace

std::optional<DType> dtype_named(const std::string& name) {
  for (DType dtype : {DType::float32, DType::float64, DType::uint8, DType::int32, DType::int64})
    if (name == name_of(dtype)) return dtype;
  return std::nullopt;
}

bool Extent::overlaps(const Extent& other) const {
  const auto first = reinterpret_cast<std::uintptr_t>(begin);
  const auto second = reinterpret_cast<std::uintptr_t>(other.begin);
  return bytes && other.bytes && first < second + other.bytes && second < first + bytes;
}

Input array_input(Call& op, const std::string& name, const py::object& value, const char* layout,
                  std::initializer_list<DType> dtypes) {
  if (const DeviceArray* there = op.device_array(name, value)) {
    const DType dtype =
        checked_type(op, name, dtype_named(there->dtype), dtypes, [&] { return there->dtype; });
    check_rank(op, name, layout, there->shape);
    const Extent extent = extent_of(there->data, there->shape, dtype);
    return {name, value, extent, {there->data, dtype, there->shape}, nullptr};
  }
  py::array array = array_argument(op, name, value, dtypes);
  const DType dtype = checked_type(op, name, dtype_of(array), dtypes,
                                   [&] { return std::string(py::str(array.dtype())); });
  Shape shape = shape_of(op, name, array);
  check_rank(op, name, layout, shape);
  if (!has_flags(array, kContiguous | kAligned)) array = array.attr("copy")("C");
  // Kernels only read through it; Tensor has no const form.
  void* data = const_cast<void*>(array.data());
  const Extent extent = extent_of(data, shape, dtype);
  std::shared_ptr<void> memory = op.staged(data, extent.bytes);
  return {name, array, extent, {memory ? memory.get() : data, dtype, shape}, memory};
}

Input float_input(Call& op, const std::string& name, const py::object& value, const char* layout) {
  return array_input(op, name, value, layout, {DType::float32});
}

namespace {

// Arrays of kAlignedBytes or more begin with a line of the cache; smaller ones fit the first level,
// where it matters little.
constexpr std::size_t kAlignedBytes = 16 * 1024, kLineBytes = 64;

// In memory that the op's device can use.
Output new_array_of(Call& op, DType dtype, const Shape& shape) {
  checked_multiply(shape.elements(op), static_cast<std::int64_t>(size_of(dtype)), op);
  if (op.on_stream()) {
    py::object array = op.new_device_array(shape, dtype);
    void* data = array.cast<const DeviceArray&>().data;
    return {array, extent_of(data, shape, dtype), shape, static_cast<float*>(data), nullptr};
  }
  const std::vector<py::ssize_t> sizes(shape.begin(), shape.end());
  const std::size_t bytes = static_cast<std::size_t>(shape.elements()) * size_of(dtype);
  std::shared_ptr<void> memory = op.visible_memory(bytes);
  py::array array;
  if (memory) {
    auto* owner = new std::shared_ptr<void>(memory);
    py::capsule base(owner, [](void* p) { delete static_cast<std::shared_ptr<void>*>(p); });
    array = py::array(numpy_dtype(dtype), sizes, memory.get(), base);
  } else if (bytes < kAlignedBytes) {
    array = py::array(numpy_dtype(dtype), sizes);
  } else {
    // numpy's memory begins 16 bytes into a line of the cache, so that every other vector of a
    // result would be stored to two lines.
    py::array_t<std::uint8_t> room(static_cast<py::ssize_t>(bytes + kLineBytes));
    const auto first = reinterpret_cast<std::uintptr_t>(room.mutable_data());
    void* line = room.mutable_data() + (kLineBytes - first % kLineBytes) % kLineBytes;
    array = py::array(numpy_dtype(dtype), sizes, line, room);
  }
  void* data = array.mutable_data();
  return {array, {data, bytes}, shape, static_cast<float*>(data), nullptr};
}

Output output_array(Call& op, const py::object& out, DType dtype, const Shape& shape,
                    std::initializer_list<const Input*> apart,
                    std::initializer_list<const Input*> same) {
  if (out.is_none()) return new_array_of(op, dtype, shape);
  Output output = writable(op, "out", out, dtype);
  if (output.shape != shape)
    value_error(op, ": expected out of shape ", shape, ", got ", output.shape);
  for (const Input* input : apart)
    if (output.extent.overlaps(input->extent))
      value_error(op, ": expected out to be apart from ", input->name,
                  ", got arrays that share memory");
  for (const Input* input : same)
    if (input->extent.begin != output.extent.begin && output.extent.overlaps(input->extent))
      value_error(op, ": expected out to be ", input->name, " itself or apart from it, got a part ",
                  "of its memory");
  return output;
}

}  // namespace

Output new_array(Call& op, const Shape& shape) {
  return new_array_of(op, DType::float32, shape);
}

Output float_output(Call& op, const py::object& out, const Shape& shape,
                    std::initializer_list<const Input*> apart,
                    std::initializer_list<const Input*> same) {
  return output_array(op, out, DType::float32, shape, apart, same);
}

Output typed_output(Call& op, const py::object& out, DType dtype, const Shape& shape,
                    std::initializer_list<const Input*> apart) {
  return output_array(op, out, dtype, shape, apart, {});
}

Output float_in_place(Call& op, const std::string& name, const py::object& value) {
  return writable(op, name, value);
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
