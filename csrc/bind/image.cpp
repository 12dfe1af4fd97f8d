// What the loader does to single images.
#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/resize.h"

namespace convlet::bind {

namespace {

constexpr const char* kResize = "resize_bilinear";

void resize_bilinear(const py::object& x_value, const py::array& out) {
  // Loaders work on the CPU, whatever the device of functional ops.
  Call op(kResize, cpu_device());
  Input x = array_input(op, "x", x_value, "(H,W,C)", {DType::uint8});
  const bool usable = out.dtype().is(py::dtype::of<std::uint8_t>()) && out.ndim() == 3 &&
                      (out.flags() & py::array::c_style) && out.writeable();
  if (!usable) {
    type_error(kResize, ": expected out to be a writeable C-contiguous uint8 array (H,W,C)");
  }
  expect_shape(kResize, "out", "(H,W,C)", {out.shape(0), out.shape(1), x.shape()[2]},
               {out.shape(0), out.shape(1), out.shape(2)});
  const Resize resize(kResize, x.shape(), out.shape(0), out.shape(1));
  const ResizeShape shape = resize.shape();
  auto* y = static_cast<std::uint8_t*>(const_cast<void*>(out.data()));
  if (x.extent.overlaps({y, static_cast<std::size_t>(out.nbytes())})) {
    value_error(kResize, ": expected out apart from the memory of x");
  }
  op.run([&](const Kernels& kernels, int) { return kernels.resize_workspace(shape); },
         [&](const Kernels& kernels, Context&, Workspace& workspace) {
           kernels.resize_bilinear(shape, static_cast<const std::uint8_t*>(x.tensor.data),
                                   workspace.data(), y);
         });
}

}  // namespace

void bind_image(py::module_& module) {
  using py::arg;
  module.def(kResize, resize_bilinear, arg("x"), arg("out"));
}

}  // namespace convlet::bind
