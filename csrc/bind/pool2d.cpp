// Max and average pooling.
#include <pybind11/stl.h>

#include "bind/bind.h"
#include "bind/call.h"
#include "bind/options.h"

namespace convlet::bind {

namespace {

Pool2dOptions pool2d_options(Call& op, Pair pool_size, Pair stride, const py::object& padding,
                             bool ceil_mode) {
  Pool2dOptions options;
  options.window_h = pool_size.first;
  options.window_w = pool_size.second;
  options.stride_h = stride.first;
  options.stride_w = stride.second;
  set_padding(op, padding, options);
  options.ceil_mode = ceil_mode;
  return options;
}

Pool2dOptions max_options(Call& op, Pair pool_size, Pair stride, const py::object& padding,
                          Pair dilation, bool ceil_mode) {
  Pool2dOptions options = pool2d_options(op, pool_size, stride, padding, ceil_mode);
  options.dilation_h = dilation.first;
  options.dilation_w = dilation.second;
  return options;
}

Pool2dOptions avg_options(Call& op, Pair pool_size, Pair stride, const py::object& padding,
                          bool ceil_mode, bool count_include_pad) {
  Pool2dOptions options = pool2d_options(op, pool_size, stride, padding, ceil_mode);
  options.count_include_pad = count_include_pad;
  return options;
}

py::object max_pool2d(const py::object& x_value, Pair pool_size, Pair stride,
                      const py::object& padding, Pair dilation, bool ceil_mode,
                      const py::object& out) {
  Call op("max_pool2d");
  Input x = float_input(op, "x", x_value, "(N,H,W,C)");
  Pool2dShape shape =
      check_pool2d(op, x.shape(), max_options(op, pool_size, stride, padding, dilation, ceil_mode));
  Output y = float_output(op, out, shape.y(), {&x});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.max_pool2d(context, shape, x.f32(), y.data);
  });
  return y.array;
}

py::object max_pool2d_backward(const py::object& dy_value, const py::object& x_value,
                               Pair pool_size, Pair stride, const py::object& padding,
                               Pair dilation, bool ceil_mode, const py::object& out) {
  Call op("max_pool2d_backward");
  Input dy = float_input(op, "dy", dy_value, "(N,P,Q,C)");
  Input x = float_input(op, "x", x_value, "(N,H,W,C)");
  Pool2dShape shape =
      check_pool2d(op, x.shape(), max_options(op, pool_size, stride, padding, dilation, ceil_mode));
  expect_shape(op, "dy", "(N,P,Q,C)", shape.y(), dy.shape());
  Output dx = float_output(op, out, shape.x(), {&dy, &x});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.max_pool2d_backward(context, shape, dy.f32(), x.f32(), dx.data);
  });
  return dx.array;
}

py::object avg_pool2d(const py::object& x_value, Pair pool_size, Pair stride,
                      const py::object& padding, bool ceil_mode, bool count_include_pad,
                      const py::object& out) {
  Call op("avg_pool2d");
  Input x = float_input(op, "x", x_value, "(N,H,W,C)");
  Pool2dShape shape = check_pool2d(
      op, x.shape(), avg_options(op, pool_size, stride, padding, ceil_mode, count_include_pad));
  Output y = float_output(op, out, shape.y(), {&x});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.avg_pool2d(context, shape, x.f32(), y.data);
  });
  return y.array;
}

py::object avg_pool2d_backward(const py::object& dy_value,
                               const std::vector<std::int64_t>& input_shape, Pair pool_size,
                               Pair stride, const py::object& padding, bool ceil_mode,
                               bool count_include_pad, const py::object& out) {
  Call op("avg_pool2d_backward");
  Input dy = float_input(op, "dy", dy_value, "(N,P,Q,C)");
  Shape x = shape_argument(op, "input_shape", input_shape, "(N,H,W,C)");
  Pool2dShape shape = check_pool2d(
      op, x, avg_options(op, pool_size, stride, padding, ceil_mode, count_include_pad));
  expect_shape(op, "dy", "(N,P,Q,C)", shape.y(), dy.shape());
  Output dx = float_output(op, out, x, {&dy});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.avg_pool2d_backward(context, shape, dy.f32(), dx.data);
  });
  return dx.array;
}

}  // namespace

void bind_pool2d(py::module_& module) {
  using py::arg;
  module.def("max_pool2d", max_pool2d, arg("x"), arg("pool_size"), arg("stride"), arg("padding"),
             arg("dilation"), arg("ceil_mode"), arg("out"));
  module.def("max_pool2d_backward", max_pool2d_backward, arg("dy"), arg("x"), arg("pool_size"),
             arg("stride"), arg("padding"), arg("dilation"), arg("ceil_mode"), arg("out"));
  module.def("avg_pool2d", avg_pool2d, arg("x"), arg("pool_size"), arg("stride"), arg("padding"),
             arg("ceil_mode"), arg("count_include_pad"), arg("out"));
  module.def("avg_pool2d_backward", avg_pool2d_backward, arg("dy"), arg("input_shape"),
             arg("pool_size"), arg("stride"), arg("padding"), arg("ceil_mode"),
             arg("count_include_pad"), arg("out"));
}

}  // namespace convlet::bind
