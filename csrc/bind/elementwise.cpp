// Activations, softmax over the last axis, dropout, and functions of one array.
#include <pybind11/stl.h>

#include <optional>

#include "bind/arrays.h"
#include "bind/bind.h"

namespace convlet::bind {

namespace {

// alpha under the name that the op gives it; the activation's own where there is none.
float alpha_argument(Call& op, Activation kind, std::optional<double> alpha) {
  const char* name = kind == Activation::leaky_relu ? "negative_slope" : "alpha";
  return alpha ? check_alpha(op, name, *alpha) : default_alpha(kind);
}

py::object activation(const std::string& name, const py::object& x_value,
                      std::optional<double> alpha_value, const py::object& out) {
  Activation kind = activation_named("activation", name);
  Call op(name_of(kind));
  const float alpha = alpha_argument(op, kind, alpha_value);
  Input x = float_input(op, "x", x_value, nullptr);
  Output y = float_output(op, out, x.shape(), {}, {&x});
  std::int64_t n = x.shape().elements();
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.activation(context, n, kind, alpha, x.f32(), y.data);
  });
  return y.array;
}

py::object activation_backward(const std::string& name, const py::object& dy_value,
                               const py::object& y_or_x_value, std::optional<double> alpha_value,
                               const py::object& out) {
  Activation kind = activation_named("activation", name);
  std::string op_name = std::string(name_of(kind)) + "_backward";
  Call op(op_name.c_str());
  const float alpha = alpha_argument(op, kind, alpha_value);
  Input dy = float_input(op, "dy", dy_value, nullptr);
  Input y_or_x = float_input(op, gradient_from_output(kind) ? "y" : "x", y_or_x_value, nullptr);
  expect_shape(op, "dy", "", y_or_x.shape(), dy.shape());
  Output dx = float_output(op, out, dy.shape(), {&y_or_x}, {&dy});
  std::int64_t n = dy.shape().elements();
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.activation_backward(context, n, kind, alpha, dy.f32(), y_or_x.f32(), dx.data);
  });
  return dx.array;
}

py::object softmax_like(Call& op,
                        void (*Kernels::*kernel)(Context&, const RowsShape&, const float*, float*),
                        const py::object& x_value, const py::object& out) {
  Input x = float_input(op, "x", x_value, nullptr);
  RowsShape shape = check_softmax(op, x.shape());
  Output y = float_output(op, out, x.shape(), {}, {&x});
  op.run([&](const Kernels& kernels, Context& context) {
    (kernels.*kernel)(context, shape, x.f32(), y.data);
  });
  return y.array;
}

py::object softmax_like_backward(Call& op,
                                 void (*Kernels::*kernel)(Context&, const RowsShape&, const float*,
                                                          const float*, float*),
                                 const py::object& dy_value, const py::object& y_value,
                                 const py::object& out) {
  Input dy = float_input(op, "dy", dy_value, nullptr);
  Input y = float_input(op, "y", y_value, nullptr);
  RowsShape shape = check_softmax(op, y.shape());
  expect_shape(op, "dy", "", y.shape(), dy.shape());
  Output dx = float_output(op, out, y.shape(), {&y}, {&dy});
  op.run([&](const Kernels& kernels, Context& context) {
    (kernels.*kernel)(context, shape, dy.f32(), y.f32(), dx.data);
  });
  return dx.array;
}

py::object dropout(const py::object& x_value, double rate, std::uint64_t seed, std::uint64_t step,
                   std::uint64_t stream, const std::string& noise, const py::object& out) {
  Call op("dropout");
  Input x = float_input(op, "x", x_value, nullptr);
  const DropoutShape shape = check_dropout(op, x.shape(), rate, noise);
  Output y = float_output(op, out, x.shape(), {}, {&x});
  const RandomStep numbers{seed, step};
  const RandomStep* random = op.upload(&numbers, 1);
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.dropout(context, shape, static_cast<float>(rate), random, stream, x.f32(), y.data);
  });
  return y.array;
}

py::object unary(const std::string& name, const py::object& x_value, const py::object& out) {
  const UnaryFunction function = unary_function_named("unary", name);
  Call op(name_of(function));
  Input x = float_input(op, "x", x_value, nullptr);
  Output y = float_output(op, out, x.shape(), {}, {&x});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.unary(context, x.shape().elements(), function, x.f32(), y.data);
  });
  return y.array;
}

py::object unary_backward(const std::string& name, const py::object& dy_value,
                          const py::object& y_or_x_value, const py::object& out) {
  const UnaryFunction function = unary_function_named("unary_backward", name);
  const std::string op_name = std::string(name_of(function)) + "_backward";
  Call op(op_name.c_str());
  Input dy = float_input(op, "dy", dy_value, nullptr);
  Input other = float_input(op, gradient_from_output(function) ? "y" : "x", y_or_x_value, nullptr);
  expect_shape(op, "dy", "", other.shape(), dy.shape());
  Output dx = float_output(op, out, dy.shape(), {&other}, {&dy});
  op.run([&](const Kernels& kernels, Context& context) {
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
        Call op("softmax");
        return softmax_like(op, &Kernels::softmax, x, out);
      },
      arg("x"), arg("out"));
  module.def(
      "log_softmax",
      [](const object& x, const object& out) {
        Call op("log_softmax");
        return softmax_like(op, &Kernels::log_softmax, x, out);
      },
      arg("x"), arg("out"));
  module.def(
      "softmax_backward",
      [](const object& dy, const object& y, const object& out) {
        Call op("softmax_backward");
        return softmax_like_backward(op, &Kernels::softmax_backward, dy, y, out);
      },
      arg("dy"), arg("y"), arg("out"));
  module.def(
      "log_softmax_backward",
      [](const object& dy, const object& y, const object& out) {
        Call op("log_softmax_backward");
        return softmax_like_backward(op, &Kernels::log_softmax_backward, dy, y, out);
      },
      arg("dy"), arg("y"), arg("out"));
  module.def("dropout", dropout, arg("x"), arg("rate"), arg("seed"), arg("step"), arg("stream"),
             arg("noise"), arg("out"));
  module.def("unary", unary, arg("function"), arg("x"), arg("out"));
  module.def("unary_backward", unary_backward, arg("function"), arg("dy"), arg("y_or_x"),
             arg("out"));
}

}  // namespace convlet::bind
