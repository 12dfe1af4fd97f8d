// Ops on tensors of any shape: broadcasting arithmetic, reductions, transposition, products of
// matrices; and upsampling.
#include <cmath>

#include "bind/arrays.h"
#include "bind/bind.h"

namespace convlet::bind {

namespace {

using Axes = std::vector<std::int64_t>;

// `out` may be any operand of y's shape, and must be apart from the others.
Output broadcast_output(Call& op, const py::object& out, const Shape& y,
                        std::initializer_list<const Input*> operands) {
  Output output = float_output(op, out, y, {}, operands);
  if (out.is_none()) return output;
  for (const Input* operand : operands)
    if (operand->shape() != y) float_output(op, out, y, {operand});
  return output;
}

py::object binary(const std::string& name, const py::object& a_value, const py::object& b_value,
                  const py::object& out) {
  const BinaryFunction function = binary_function_named("binary", name);
  Call op(name_of(function));
  Input a = float_input(op, "a", a_value, nullptr), b = float_input(op, "b", b_value, nullptr);
  const Shape shape = broadcast_shape(op, {a.shape(), b.shape()});
  Output y = broadcast_output(op, out, shape, {&a, &b});
  const BroadcastShape steps = broadcast_to(shape, {a.shape(), b.shape()});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.binary(context, steps, function, a.f32(), b.f32(), y.data);
  });
  return y.array;
}

// The gradient of operand `side`, summed to its shape.
py::object binary_backward(const std::string& name, int side, const py::object& dy_value,
                           const py::object& a_value, const py::object& b_value) {
  const BinaryFunction function = binary_function_named("binary_backward", name);
  const std::string op_name = std::string(name_of(function)) + "_backward";
  Call op(op_name.c_str());
  if (side != 0 && side != 1) value_error(op, ": expected side 0 or 1, got ", side);
  Input dy = float_input(op, "dy", dy_value, nullptr);
  Input a = float_input(op, "a", a_value, nullptr), b = float_input(op, "b", b_value, nullptr);
  const Shape y = broadcast_shape(op, {a.shape(), b.shape()});
  expect_shape(op, "dy", "", y, dy.shape());
  const BroadcastShape steps = broadcast_to(y, {a.shape(), b.shape()});
  const Shape& own = side == 0 ? a.shape() : b.shape();
  const ReduceShape sum = reduction_to(y, own);
  Output full = new_array(op, y), result = new_array(op, own);
  op.run([&](const Kernels& kernels, int) { return kernels.reduce_workspace(sum); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.binary_backward(context, steps, function, side, dy.f32(), a.f32(), b.f32(),
                                   full.data);
           kernels.reduce(context, sum, ReduceFunction::sum, full.data, result.data,
                          workspace.data());
         });
  return result.array;
}

py::object where(const py::object& condition_value, const py::object& a_value,
                 const py::object& b_value, const py::object& out) {
  Call op("where");
  Input condition = float_input(op, "condition", condition_value, nullptr);
  Input a = float_input(op, "a", a_value, nullptr), b = float_input(op, "b", b_value, nullptr);
  const std::vector<Shape> shapes{condition.shape(), a.shape(), b.shape()};
  const Shape shape = broadcast_shape(op, shapes);
  Output y = broadcast_output(op, out, shape, {&condition, &a, &b});
  const BroadcastShape steps = broadcast_to(shape, shapes);
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.where(context, steps, condition.f32(), a.f32(), b.f32(), y.data);
  });
  return y.array;
}

// Axes counted from the end become axes counted from the front.
Axes from_the_front(Call& op, const char* name, const Shape& x, Axes axes) {
  for (std::int64_t& axis : axes) {
    if (axis < -x.rank() || axis >= x.rank())
      value_error(op, ": expected ", name, " in [", -x.rank(), ",", x.rank(), ") for x of shape ",
                  x, ", got ", axis);
    if (axis < 0) axis += x.rank();
  }
  return axes;
}

py::object reduce(const std::string& name, const py::object& x_value, Axes axes, bool keepdims,
                  const py::object& out) {
  const ReduceFunction function = reduce_function_named("reduce", name);
  Call op(name_of(function));
  Input x = float_input(op, "x", x_value, nullptr);
  axes = from_the_front(op, "axis", x.shape(), std::move(axes));
  Output y = float_output(op, out, reduced_shape(op, function, x.shape(), axes, keepdims), {&x});
  const ReduceShape shape = reduction(x.shape(), axes);
  op.run([&](const Kernels& kernels, int) { return kernels.reduce_workspace(shape); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.reduce(context, shape, function, x.f32(), y.data, workspace.data());
         });
  return y.array;
}

// dy and y have the shape of the result, with or without the reduced axes.
py::object reduce_backward(const std::string& name, const py::object& dy_value,
                           const py::object& x_value, const py::object& y_value, Axes axes) {
  const ReduceFunction function = reduce_function_named("reduce_backward", name);
  const std::string op_name = std::string(name_of(function)) + "_backward";
  Call op(op_name.c_str());
  Input dy = float_input(op, "dy", dy_value, nullptr), x = float_input(op, "x", x_value, nullptr);
  Input y = float_input(op, "y", y_value, nullptr);
  axes = from_the_front(op, "axis", x.shape(), std::move(axes));
  const Shape result = reduced_shape(op, function, x.shape(), axes, false);
  const Shape kept = reduced_shape(op, function, x.shape(), axes, true);
  for (const Input* input : {&dy, &y})
    if (input->shape() != kept) expect_shape(op, input->name, "", result, input->shape());
  Output dx = new_array(op, x.shape());
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.reduce_backward(context, reduction(x.shape(), axes), function, dy.f32(), x.f32(),
                            y.f32(), dx.data);
  });
  return dx.array;
}

py::object transpose(const py::object& x_value, Axes axes, const py::object& out) {
  Call op("transpose");
  Input x = float_input(op, "x", x_value, nullptr);
  axes = from_the_front(op, "axes", x.shape(), std::move(axes));
  Output y = float_output(op, out, transposed_shape(op, x.shape(), axes), {&x});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.strided_copy(context, transposed(x.shape(), axes), x.f32(), y.data);
  });
  return y.array;
}

py::object matmul(const py::object& a_value, const py::object& b_value, bool transpose_a,
                  bool transpose_b, const std::string& precision, const py::object& out) {
  Call op("matmul", precision);
  Input a = float_input(op, "a", a_value, nullptr), b = float_input(op, "b", b_value, nullptr);
  const MatmulShape shape = check_matmul(op, a.shape(), b.shape(), transpose_a, transpose_b);
  Output y = float_output(op, out, matmul_shape(a.shape(), shape), {&a, &b});
  op.run(
      [&](const Kernels& kernels, int threads) { return kernels.matmul_workspace(shape, threads); },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        kernels.matmul(context, shape, a.f32(), b.f32(), y.data, workspace.data());
      });
  return y.array;
}

// The labels as floats; ValueError that gives the position of one that is no class.
template <class Label>
std::vector<float> checked_labels(Call& op, const Tensor& labels, std::int64_t classes) {
  const Label* label = labels.as<const Label>();
  std::vector<float> values(static_cast<std::size_t>(labels.shape.elements()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double value = static_cast<double>(label[i]);
    values[i] = static_cast<float>(label[i]);
    if (!(value >= 0 && value < static_cast<double>(classes)) || value != std::floor(value))
      value_error(op, ": expected labels in [0,", classes, "), got ", +label[i], " at position ",
                  i);
  }
  return values;
}

py::object one_hot(const py::object& labels_value, std::int64_t classes, const py::object& out) {
  Call op("one_hot");
  Input labels = array_input(op, "labels", labels_value, nullptr,
                             {DType::uint8, DType::int32, DType::int64, DType::float32});
  if (classes < 1 || classes > std::int64_t{1} << 24)
    value_error(op, ": expected num_classes in [1, 2^24], got ", classes);
  Shape shape = labels.shape();
  shape.push_back(classes);
  Output y = float_output(op, out, shape, {&labels});
  const Tensor given = op.on_host(labels.tensor);
  std::vector<float> values;
  switch (labels.tensor.dtype) {
    case DType::uint8:
      values = checked_labels<std::uint8_t>(op, given, classes);
      break;
    case DType::int32:
      values = checked_labels<std::int32_t>(op, given, classes);
      break;
    case DType::int64:
      values = checked_labels<std::int64_t>(op, given, classes);
      break;
    default:
      values = checked_labels<float>(op, given, classes);
  }
  const float* numbers = op.upload(values.data(), values.size());
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.one_hot(context, labels.shape().elements(), classes, numbers, y.data);
  });
  return y.array;
}

py::object upsample2d(const py::object& x_value, std::pair<std::int64_t, std::int64_t> size,
                      const std::string& interpolation, const py::object& out) {
  Call op("upsample2d");
  Input x = float_input(op, "x", x_value, "(N,H,W,C)");
  const Upsample2dShape shape = check_upsample2d(op, x.shape(), size.first, size.second,
                                                 interpolation_named(op, interpolation));
  Output y = float_output(op, out, shape.y(), {&x});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.upsample2d(context, shape, x.f32(), y.data);
  });
  return y.array;
}

py::object upsample2d_backward(const py::object& dy_value,
                               std::pair<std::int64_t, std::int64_t> size,
                               const std::string& interpolation, const py::object& out) {
  Call op("upsample2d_backward");
  Input dy = float_input(op, "dy", dy_value, "(N,P,Q,C)");
  const Shape& y = dy.shape();
  if (size.first < 1 || size.second < 1 || y[1] % size.first || y[2] % size.second)
    value_error(op, ": expected dy (N,P,Q,C) with P and Q multiples of size (", size.first, ",",
                size.second, "), got dy of shape ", y);
  const Upsample2dShape shape =
      check_upsample2d(op, {y[0], y[1] / size.first, y[2] / size.second, y[3]}, size.first,
                       size.second, interpolation_named(op, interpolation));
  Output dx = float_output(op, out, shape.x(), {&dy});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.upsample2d_backward(context, shape, dy.f32(), dx.data);
  });
  return dx.array;
}

}  // namespace

void bind_tensor(py::module_& module) {
  using py::arg;
  module.def("binary", binary, arg("function"), arg("a"), arg("b"), arg("out"));
  module.def("binary_backward", binary_backward, arg("function"), arg("side"), arg("dy"), arg("a"),
             arg("b"));
  module.def("where", where, arg("condition"), arg("a"), arg("b"), arg("out"));
  module.def("reduce", reduce, arg("function"), arg("x"), arg("axes"), arg("keepdims"), arg("out"));
  module.def("reduce_backward", reduce_backward, arg("function"), arg("dy"), arg("x"), arg("y"),
             arg("axes"));
  module.def("transpose", transpose, arg("x"), arg("axes"), arg("out"));
  module.def("matmul", matmul, arg("a"), arg("b"), arg("transpose_a"), arg("transpose_b"),
             arg("precision"), arg("out"));
  module.def("one_hot", one_hot, arg("labels"), arg("classes"), arg("out"));
  module.def("upsample2d", upsample2d, arg("x"), arg("size"), arg("interpolation"), arg("out"));
  module.def("upsample2d_backward", upsample2d_backward, arg("dy"), arg("size"),
             arg("interpolation"), arg("out"));
}

}  // namespace convlet::bind
