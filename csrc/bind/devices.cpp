// The devices of this process by name. Here, and nowhere else, a backend is picked.
#include <dlfcn.h>

#include <map>
#include <mutex>

#include "bind/bind.h"
#include "core/error.h"
#include "cpu/device.h"
#include "ops/kernels.h"
#if defined(CONVLET_CUDA)
#include "cuda/device.h"
#endif

namespace convlet::bind {

namespace {

std::mutex mutex;
std::map<std::string, Device*> loaded;

Device& cuda(const char* what) {
#if defined(CONVLET_CUDA)
  try {
    return cuda::cuda_device();
  } catch (const Error& error) {
    value_error(what, ": ", error.what());
  }
#else
  value_error(what,
              ": this convlet was built without CUDA; install it where nvcc is (docs/cuda.md)");
#endif
}

Device* loaded_device(const std::string& name) {
  std::lock_guard<std::mutex> lock(mutex);
  auto found = loaded.find(name);
  return found == loaded.end() ? nullptr : found->second;
}

}  // namespace

Device& device_named(const char* what, const std::string& name) {
  if (name == "cpu") return cpu_device();
  if (name == "cuda") return cuda(what);
  if (Device* device = loaded_device(name)) return *device;
  value_error(what, ": expected device \"cpu\" or \"cuda\", got \"", name, '"');
}

std::string load_device(const std::string& path) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) value_error("load_device: ", dlerror());
  auto make = reinterpret_cast<Device* (*)()>(dlsym(library, "convlet_device"));
  auto bytes = static_cast<const std::size_t*>(dlsym(library, "convlet_kernels_bytes"));
  if (!make || !bytes || *bytes != sizeof(Kernels))
    value_error("load_device: ", path, " was not built from the sources of this package");
  Device& device = *make();
  std::lock_guard<std::mutex> lock(mutex);
  loaded[device.name()] = &device;
  return device.name();
}

}  // namespace convlet::bind
