// The Python module convlet._core: its errors, threads and instruction set, and the parts of
// bind.h.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cstring>

#include "bind/bind.h"
#include "bind/call.h"
#include "bind/gil.h"
#include "core/cpu_count.h"
#include "core/error.h"
#include "cpu/device.h"
#include "cpu/table.h"
#include "ops/kernels.h"

namespace convlet::bind {

namespace {

namespace py = pybind11;

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const Error& error) {
    PyErr_SetString(error.kind() == Error::Kind::type ? PyExc_TypeError : PyExc_ValueError,
                    error.what());
  }
}

// The best of some runs of a few milliseconds, in 10^9 float operations per second.
double fma_peak() {
  ReleasedGil unlocked;
  Device& device = cpu_device();
  const std::int64_t pieces = 50 * device.context().threads();
  double best = 0;
  for (int run = 0; run < 20; ++run) {
    auto start = std::chrono::steady_clock::now();
    double operations = device.kernels(Precision::float32).fma_peak(device.context(), pieces);
    std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::max(best, operations / seconds.count() * 1e-9);
  }
  return best;
}

// A table of kernels from elsewhere, for tests that run those of another processor.
void use_kernels(const py::capsule& kernels) {
  const char* name = kernels.name();
  if (!name || std::strcmp(name, "convlet.Kernels") != 0)
    type_error("use_kernels: expected a capsule \"convlet.Kernels\", got \"", name ? name : "",
               '"');
  cpu::use_table(*kernels.get_pointer<const Kernels>());
}

void bind_device(py::module_& module) {
  using py::arg;
  module.def("num_threads", num_threads);
  module.def("set_num_threads", set_num_threads, arg("n"));
  module.def("cpu_limits", [] { return std::make_pair(allowed_cpus().size(), cpu_quota()); });
  module.def("isa", [] { return std::string(cpu::table().name); });
  module.def("supported_isas", cpu::supported_isas);
  module.def("set_isa", cpu::set_table, arg("name"));
  module.def(
      "set_op_device",
      [](const std::string& device) { set_op_device(device_named("set_op_device", device)); },
      arg("device"),
      "The device that functional ops of this thread run on with arrays of the host, for tests");
  module.def("op_device", [] { return op_device().name(); });
  module.def("set_bfloat16", cpu::set_bfloat16, arg("source"));
  module.def(
      "set_op_precision",
      [](const std::string& precision) {
        set_op_precision(precision_named("set_op_precision", precision));
      },
      arg("precision"), "The precision of functional ops, for tests");
  module.def("load_device", load_device, arg("path"), "Adds a device for tests; returns its name");
  module.def("use_kernels", use_kernels, arg("kernels"));
  module.def("fma_peak", fma_peak, "GFLOP/s of multiply-adds in registers, on all threads");
  module.def(
      "device_description",
      [](const std::string& device, const std::string& precision) {
        Precision wanted = precision_named("device_description", precision);
        return device_named("device_description", device).description(wanted);
      },
      arg("device"), arg("precision") = "float32");
  module.def(
      "check_precision",
      [](const std::string& device, const std::string& precision) {
        Precision wanted = precision_named("check_precision", precision);
        device_named("check_precision", device).kernels(wanted);
      },
      arg("device"), arg("precision"), "ValueError unless the device has the precision");
}

}  // namespace

}  // namespace convlet::bind

PYBIND11_MODULE(_core, module) {
  using namespace convlet::bind;
  module.doc() = "The compiled part of convlet; use it through the package.";
  module.attr("__version__") = CONVLET_VERSION;
  py::register_local_exception_translator(translate);
  watch_shutdown();
  bind_device(module);
  bind_device_array(module);
  bind_linear(module);
  bind_pool2d(module);
  bind_elementwise(module);
  bind_sequence(module);
  bind_augment(module);
  bind_tensor(module);
  bind_loss(module);
  bind_normalization(module);
  bind_optimizer(module);
  bind_image(module);
  bind_plan(module);
}
