// conv2d, dense and the gradient of their bias.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bind/bind.h"
#include "bind/call.h"
#include "bind/options.h"

namespace convlet::bind {

namespace {

Conv2dOptions conv2d_options(Call& op, Pair stride, const py::object& padding, Pair dilation,
                             std::int64_t groups) {
  Conv2dOptions options;
  options.stride_h = stride.first;
  options.stride_w = stride.second;
  set_padding(op, padding, options);
  options.dilation_h = dilation.first;
  options.dilation_w = dilation.second;
  options.groups = groups;
  return options;
}

// A bias may be None.
std::optional<Input> bias_input(Call& op, const py::object& bias, const char* layout,
                                std::int64_t channels) {
  if (bias.is_none()) return std::nullopt;
  Input input = float_input(op, "bias", bias, layout);
  expect_shape(op, "bias", layout, {channels}, input.shape());
  return input;
}

py::object conv2d(const py::object& x_value, const py::object& weight_value,
                  const py::object& bias_value, Pair stride, const py::object& padding,
                  Pair dilation, std::int64_t groups, const std::string& activation_name,
                  const std::string& precision, const py::object& out) {
  Call op("conv2d", precision);
  Input x = float_input(op, "x", x_value, "(N,H,W,C)");
  Input weight = float_input(op, "weight", weight_value, "(R,S,C/groups,K)");
  Conv2dShape shape = check_conv2d(op, x.shape(), weight.shape(),
                                   conv2d_options(op, stride, padding, dilation, groups));
  std::optional<Input> bias = bias_input(op, bias_value, "(K,)", shape.K);
  Activation activation = activation_named(op, activation_name);
  Output y = float_output(op, out, shape.y(), {&x, &weight, bias ? &*bias : &x});

  op.run([&](const Kernels& kernels,
             int threads) { return kernels.conv2d_workspace(shape, Pass::forward, threads); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.conv2d(context, shape, x.f32(), weight.f32(), bias ? bias->f32() : nullptr,
                          activation, y.data, workspace.data());
         });
  return y.array;
}

py::object conv2d_backward_input(const py::object& dy_value, const py::object& weight_value,
                                 const std::vector<std::int64_t>& input_shape, Pair stride,
                                 const py::object& padding, Pair dilation, std::int64_t groups,
                                 const std::string& precision, const py::object& out) {
  Call op("conv2d_backward_input", precision);
  Input dy = float_input(op, "dy", dy_value, "(N,P,Q,K)");
  Input weight = float_input(op, "weight", weight_value, "(R,S,C/groups,K)");
  Shape x = shape_argument(op, "input_shape", input_shape, "(N,H,W,C)");
  Conv2dShape shape =
      check_conv2d(op, x, weight.shape(), conv2d_options(op, stride, padding, dilation, groups));
  expect_shape(op, "dy", "(N,P,Q,K)", shape.y(), dy.shape());
  Output dx = float_output(op, out, x, {&dy, &weight});

  op.run(
      [&](const Kernels& kernels, int threads) {
        return kernels.conv2d_workspace(shape, Pass::backward_input, threads);
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        kernels.conv2d_backward_input(context, shape, dy.f32(), weight.f32(), dx.data,
                                      workspace.data());
      });
  return dx.array;
}

py::object conv2d_backward_weight(const py::object& dy_value, const py::object& x_value,
                                  Pair kernel_size, Pair stride, const py::object& padding,
                                  Pair dilation, std::int64_t groups, const std::string& precision,
                                  const py::object& out) {
  Call op("conv2d_backward_weight", precision);
  Input dy = float_input(op, "dy", dy_value, "(N,P,Q,K)");
  Input x = float_input(op, "x", x_value, "(N,H,W,C)");
  if (kernel_size.first < 1 || kernel_size.second < 1)
    value_error(op, ": expected kernel_size of at least 1, got (", kernel_size.first, ",",
                kernel_size.second, ")");
  // A number of groups that does not divide C is left to the check, which names it.
  std::int64_t group_channels = groups > 0 ? x.shape()[3] / groups : x.shape()[3];
  Shape weight{kernel_size.first, kernel_size.second, group_channels, dy.shape()[3]};
  Conv2dShape shape =
      check_conv2d(op, x.shape(), weight, conv2d_options(op, stride, padding, dilation, groups));
  expect_shape(op, "dy", "(N,P,Q,K)", shape.y(), dy.shape());
  Output dw = float_output(op, out, weight, {&dy, &x});

  op.run(
      [&](const Kernels& kernels, int threads) {
        return kernels.conv2d_workspace(shape, Pass::backward_weight, threads);
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        kernels.conv2d_backward_weight(context, shape, dy.f32(), x.f32(), dw.data,
                                       workspace.data());
      });
  return dw.array;
}

// db[c] = the sum of dy[..., c]; the layout names dy's axes in messages.
py::object bias_gradient(Call& op, const char* layout, const py::object& dy_value,
                         const py::object& out) {
  Input dy = float_input(op, "dy", dy_value, layout);
  std::int64_t channels = dy.shape().back();
  if (channels < 1)
    value_error(op, ": expected dy ", layout, " with a last size of at least 1, got ", dy.shape());
  RowsShape shape{dy.shape().elements() / channels, channels};
  Output db = float_output(op, out, {channels}, {&dy});

  op.run([&](const Kernels& kernels, int) { return kernels.bias_gradient_workspace(shape); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.bias_gradient(context, shape, dy.f32(), db.data, workspace.data());
         });
  return db.array;
}

py::object conv2d_backward_bias(const py::object& dy, const py::object& out) {
  Call op("conv2d_backward_bias");
  return bias_gradient(op, "(N,P,Q,K)", dy, out);
}

py::object dense(const py::object& x_value, const py::object& weight_value,
                 const py::object& bias_value, const std::string& activation_name,
                 const std::string& precision, const py::object& out) {
  Call op("dense", precision);
  Input x = float_input(op, "x", x_value, "(N,I)");
  Input weight = float_input(op, "weight", weight_value, "(I,O)");
  DenseShape shape = check_dense(op, x.shape(), weight.shape());
  std::optional<Input> bias = bias_input(op, bias_value, "(O,)", shape.O);
  Activation activation = activation_named(op, activation_name);
  Output y = float_output(op, out, shape.y(), {&x, &weight, bias ? &*bias : &x});

  op.run([&](const Kernels& kernels,
             int threads) { return kernels.dense_workspace(shape, Pass::forward, threads); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.dense(context, shape, x.f32(), weight.f32(), bias ? bias->f32() : nullptr,
                         activation, y.data, workspace.data());
         });
  return y.array;
}

// (dx, dw, db)
py::tuple dense_backward(const py::object& dy_value, const py::object& x_value,
                         const py::object& weight_value, const std::string& precision) {
  Call op("dense_backward", precision);
  Input dy = float_input(op, "dy", dy_value, "(N,O)");
  Input x = float_input(op, "x", x_value, "(N,I)");
  Input weight = float_input(op, "weight", weight_value, "(I,O)");
  DenseShape shape = check_dense(op, x.shape(), weight.shape());
  expect_shape(op, "dy", "(N,O)", shape.y(), dy.shape());
  Output dx = float_output(op, py::none(), shape.x(), {});
  Output dw = float_output(op, py::none(), shape.weight(), {});

  op.run(
      [&](const Kernels& kernels, int threads) {
        return std::max(kernels.dense_workspace(shape, Pass::backward_input, threads),
                        kernels.dense_workspace(shape, Pass::backward_weight, threads));
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        kernels.dense_backward_input(context, shape, dy.f32(), weight.f32(), dx.data,
                                     workspace.data());
        kernels.dense_backward_weight(context, shape, dy.f32(), x.f32(), dw.data, workspace.data());
      });
  return py::make_tuple(dx.array, dw.array, bias_gradient(op, "(N,O)", dy.array, py::none()));
}

}  // namespace

void bind_linear(py::module_& module) {
  using py::arg;
  module.def("conv2d", conv2d, arg("x"), arg("weight"), arg("bias"), arg("stride"), arg("padding"),
             arg("dilation"), arg("groups"), arg("activation"), arg("precision"), arg("out"));
  module.def("conv2d_backward_input", conv2d_backward_input, arg("dy"), arg("weight"),
             arg("input_shape"), arg("stride"), arg("padding"), arg("dilation"), arg("groups"),
             arg("precision"), arg("out"));
  module.def("conv2d_backward_weight", conv2d_backward_weight, arg("dy"), arg("x"),
             arg("kernel_size"), arg("stride"), arg("padding"), arg("dilation"), arg("groups"),
             arg("precision"), arg("out"));
  module.def("conv2d_backward_bias", conv2d_backward_bias, arg("dy"), arg("out"));
  module.def("dense", dense, arg("x"), arg("weight"), arg("bias"), arg("activation"),
             arg("precision"), arg("out"));
  module.def("dense_backward", dense_backward, arg("dy"), arg("x"), arg("weight"),
             arg("precision"));
}

}  // namespace convlet::bind
