// Activations, softmax over the last axis, dropout, and functions of one array.
#include <pybind11/stl.h>

#include <optional>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/run.h"

namespace convlet::bind {

namespace {

// alpha under the name that the op gives it; the activation's own where there is none.
float alpha_argument(const char* op, Activation kind, std::optional<double> alpha) {
  const char* name = kind == Activation::leaky_relu ? "negative_slope" : "alpha";
  return alpha ? check_alpha(op, name, *alpha) : default_alpha(kind);
}

py::array activation(const std::string& name, const py::object& x_value,
                     std::optional<double> alpha_value, const py::object& out) {
  Activation kind = activation_named("activation", name);
  const char* op = name_of(kind);
  const float alpha = alpha_argument(op, kind, alpha_value);
  Input x = float_input(op, "x", x_value, nullptr);
  Output y = float_output(op, out, x.shape(), {}, {&x});
  std::int64_t n = x.shape().elements();
  run([&](const Kernels& kernels, Context& context) {
    kernels.activation(context, n, kind, alpha, x.f32(), y.data);
  });
  return y.array;
}

py::array activation_backward(const std::string& name, const py::object& dy_value,
                              const py::object& y_or_x_value, std::optional<double> alpha_value,
                              const py::object& out) {
  Activation kind = activation_named("activation", name);
  std::string op_name = std::string(name_of(kind)) + "_backward";
  const char* op = op_name.c_str();
  const float alpha = alpha_argument(op, kind, alpha_value);
  Input dy = float_input(op, "dy", dy_value, nullptr);
  Input y_or_x = float_input(op, gradient_from_output(kind) ? "y" : "x", y_or_x_value, nullptr);
  expect_shape(op, "dy", "", y_or_x.shape(), dy.shape());
  Output dx = float_output(op, out, dy.shape(), {&y_or_x}, {&dy});
  std::int64_t n = dy.shape().elements();
  run([&](const Kernels& kernels, Context& context) {
    kernels.activation_backward(context, n, kind, alpha, dy.f32(), y_or_x.f32(), dx.data);
  });
  return dx.array;
}

py::array softmax_like(const char* op,
                       void (*Kernels::*kernel)(Context&, const RowsShape&, const float*, float*),
                       const py::object& x_value, const py::object& out) {
  Input x = float_input(op, "x", x_value, nullptr);
  RowsShape shape = check_softmax(op, x.shape());
  Output y = float_output(op, out, x.shape(), {}, {&x});
  run([&](const Kernels& kernels, Context& context) {
    (kernels.*kernel)(context, shape, x.f32(), y.data);
  });
  return y.array;
}

py::array softmax_like_backward(const char* op,
                                void (*Kernels::*kernel)(Context&, const RowsShape&, const float*,
                                                         const float*, float*),
                                const py::object& dy_value, const py::object& y_value,
                                const py::object& out) {
  Input dy = float_input(op, "dy", dy_value, nullptr);
  Input y = float_input(op, "y", y_value, nullptr);
  RowsShape shape = check_softmax(op, y.shape());
  expect_shape(op, "dy", "", y.shape(), dy.shape());
  Output dx = float_output(op, out, y.shape(), {&y}, {&dy});
  run([&](const Kernels& kernels, Context& context) {
    (kernels.*kernel)(context, shape, dy.f32(), y.f32(), dx.data);
  });
  return dx.array;
}

py::array dropout(const py::object& x_value, double rate, std::uint64_t seed, std::uint64_t step,
                  std::uint64_t stream, const std::string& noise, const py::object& out) {
  const char* op = "dropout";
  Input x = float_input(op, "x", x_value, nullptr);
  const DropoutShape shape = check_dropout(op, x.shape(), rate, noise);
  Output y = float_output(op, out, x.shape(), {}, {&x});
  const RandomStep numbers{seed, step};
  const Staged<RandomStep> random(&numbers, 1);
  run([&](const Kernels& kernels, Context& context) {
    kernels.dropout(context, shape, static_cast<float>(rate), random.data(), stream, x.f32(),
                    y.data);
  });
  return y.array;
}

py::array unary(const std::string& name, const py::object& x_value, const py::object& out) {
  const UnaryFunction function = unary_function_named("unary", name);
  const char* op = name_of(function);
  Input x = float_input(op, "x", x_value, nullptr);
  Output y = float_output(op, out, x.shape(), {}, {&x});
  run([&](const Kernels& kernels, Context& context) {
    kernels.unary(context, x.shape().elements(), function, x.f32(), y.data);
  });
  return y.array;
}

py::array unary_backward(const std::string& name, const py::object& dy_value,
                         const py::object& y_or_x_value, const py::object& out) {
  const UnaryFunction function = unary_function_named("unary_backward", name);
  const std::string op_name = std::string(name_of(function)) + "_backward";
  const char* op = op_name.c_str();
  Input dy = float_input(op, "dy", dy_value, nullptr);
  Input other = float_input(op, gradient_from_output(function) ? "y" : "x", y_or_x_value, nullptr);
  expect_shape(op, "dy", "", other.shape(), dy.shape());
  Output dx = float_output(op, out, dy.shape(), {&other}, {&dy});
  run([&](const Kernels& kernels, Context& context) {
    kernels.unary_backward(context, dy.shape().elements(), function, dy.f32(), other.f32(),
                           dx.data);
  });
  return dx.array;
}

}  // namespace

void bind_elementwise(py::module_& module) {
  using py::arg;
  using py::object;
  module.def("activation", activation, arg("name"), arg("x"), arg("alpha"), arg("out"));
  module.def("activation_backward", activation_backward, arg("name"), arg("dy"), arg("y_or_x"),
             arg("alpha"), arg("out"));
  module.def(
      "softmax",
      [](const object& x, const object& out) {
        return softmax_like("softmax", &Kernels::softmax, x, out);
      },
      arg("x"), arg("out"));
  module.def(
      "log_softmax",
      [](const object& x, const object& out) {
        return softmax_like("log_softmax", &Kernels::log_softmax, x, out);
      },
      arg("x"), arg("out"));
  module.def(
      "softmax_backward",
      [](const object& dy, const object& y, const object& out) {
        return softmax_like_backward("softmax_backward", &Kernels::softmax_backward, dy, y, out);
      },
      arg("dy"), arg("y"), arg("out"));
  module.def(
      "log_softmax_backward",
      [](const object& dy, const object& y, const object& out) {
        return softmax_like_backward("log_softmax_backward", &Kernels::log_softmax_backward, dy, y,
                                     out);
      },
      arg("dy"), arg("y"), arg("out"));
  module.def("dropout", dropout, arg("x"), arg("rate"), arg("seed"), arg("step"), arg("stream"),
             arg("noise"), arg("out"));
  module.def("unary", unary, arg("function"), arg("x"), arg("out"));
  module.def("unary_backward", unary_backward, arg("function"), arg("dy"), arg("y_or_x"),
             arg("out"));
}

}  // namespace convlet::bind
