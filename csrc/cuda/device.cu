#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "core/error.h"
#include "cuda/capture.h"
#include "cuda/context.h"
#include "cuda/device.h"
#include "cuda/stream.h"
#include "cuda/table.h"
#include "cuda/tensor_map.h"
#include "cuda/transfer.h"

namespace convlet::cuda {
namespace {

// The oldest architecture that kernels are compiled for.
constexpr int kOldestMajor = 8;

bool has_sm90(const cudaDeviceProp& properties) {
#if defined(CONVLET_SIMT)
  (void)properties;
  return true;
#else
  return properties.major == 9 && properties.minor == 0;
#endif
}

// The kernels of conv2d_sm90.cu have only run in the emulator so far: off unless asked for.
bool sm90_is_wanted() {
  const char* wanted = std::getenv("CONVLET_SM90");
  return wanted && std::strcmp(wanted, "1") == 0;
}

// "13.0" of CUDA's 13000.
std::string version_name(int version) {
  return concat(version / 1000, '.', version % 1000 / 10);
}

class CudaDevice final : public Device {
 public:
  CudaDevice(cudaStream_t stream, const cudaDeviceProp& properties)
      : properties_(properties), context_(stream, properties.multiProcessorCount) {
    check(cudaDriverGetVersion(&driver_), "the driver's version");
  }

  std::string name() const override { return kTableName; }

  std::string description(Precision precision) const override {
    return concat(properties_.name, ", sm_", properties_.major, properties_.minor, ", ",
                  properties_.multiProcessorCount, " multiprocessors, ",
                  properties_.totalGlobalMem >> 30, " GB, driver ", version_name(driver_), ", ",
                  name_of(precision));
  }

  const Kernels& kernels(Precision precision) const override {
    return table(precision, has_sm90(properties_) && sm90_is_wanted() && has_maps());
  }
  Context& context() override { return context_; }
  bool sees_host_memory() const override { return false; }

  bool sees(const void* p) const override {
    cudaPointerAttributes attributes{};
    if (cudaPointerGetAttributes(&attributes, p) != cudaSuccess) cudaGetLastError();
    return attributes.type == cudaMemoryTypeManaged ||
           (attributes.type == cudaMemoryTypeDevice && attributes.device == kDevice);
  }

  std::unique_ptr<Stream> stream_of(std::uintptr_t number) override {
    return make_stream(reinterpret_cast<cudaStream_t>(number), properties_.multiProcessorCount);
  }
  std::uintptr_t own_stream() const override {
    return reinterpret_cast<std::uintptr_t>(context_.stream());
  }

  std::unique_ptr<Recording> record(const std::string& name,
                                    const std::function<void()>& calls) override {
    return capture(context_.stream(), name, calls);
  }

  std::size_t free_memory() const override {
    const OnGpu here;
    std::size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "free memory");
    return free;
  }

  void* allocate(std::size_t bytes) override {
    const OnGpu here;
    void* memory = nullptr;
    if (cudaMalloc(&memory, bytes) == cudaSuccess) return memory;
    cudaGetLastError();
    std::size_t free = 0, total = 0;
    cudaMemGetInfo(&free, &total);
    value_error(kTableName, ": not enough memory for a block of ", bytes >> 20, " MB (", free >> 20,
                " MB of ", total >> 20, " MB are free); a smaller batch needs less");
  }

  void* allocate_visible(std::size_t bytes) override {
    const OnGpu here;
    void* memory = nullptr;
    check(cudaMallocManaged(&memory, std::max<std::size_t>(bytes, 1), cudaMemAttachGlobal),
          "memory that the host sees");
    return memory;
  }

  // Waits for the kernels that may still use it.
  void release(void* memory, std::size_t) noexcept override { cudaFree(memory); }

  void write(void* memory, const void* host, std::size_t bytes) override {
    if (bytes == 0) return;
    if (bytes <= kMostArgumentBytes && bytes % 4 == 0 &&
        reinterpret_cast<std::uintptr_t>(memory) % 4 == 0)
      return write_argument(context_, memory, host, bytes);
    check(cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, context_.stream()), "write");
  }

  // Also where an error in a kernel before it comes out.
  void read(const void* memory, void* host, std::size_t bytes) override {
    if (bytes)
      check(cudaMemcpyAsync(host, memory, bytes, cudaMemcpyDeviceToHost, context_.stream()),
            "read");
    context_.wait();
  }

  void clear(void* memory, std::size_t bytes) override {
    const OnGpu here;
    if (bytes) check(cudaMemsetAsync(memory, 0, bytes, context_.stream()), "clear");
  }

  std::unique_ptr<Readback> readback() override { return cuda::readback(context_); }
  std::unique_ptr<Upload> upload() override { return cuda::upload(context_); }

 private:
  cudaDeviceProp properties_;
  int driver_ = 0;  // the newest CUDA that it knows, times 1000
  CudaContext context_;
};

// Why there is nothing to use, and what helps.
std::string why_no_device(cudaError_t error) {
  if (error == cudaSuccess) return "no NVIDIA GPU is visible";
  int driver = 0, built_with = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&built_with);
  if (driver == 0) return "no NVIDIA driver is installed";
  if (driver / 1000 < built_with / 1000)
    return concat("the NVIDIA driver is one for CUDA ", version_name(driver), "; one for CUDA ",
                  built_with / 1000, ".0 or newer is needed");
  return concat("no usable NVIDIA driver (", cudaGetErrorString(error),
                "); nvidia-smi shows what is installed");
}

// Null, and why.
CudaDevice* open_device(std::string& reason) {
  int count = 0;
  cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess || count == 0) {
    cudaGetLastError();
    reason = why_no_device(error);
    return nullptr;
  }
  cudaDeviceProp properties{};
  cudaStream_t stream = nullptr;
  error = cudaGetDeviceProperties(&properties, kDevice);
  if (error == cudaSuccess && properties.major < kOldestMajor) {
    reason = concat(properties.name, " is sm_", properties.major, properties.minor,
                    ", sm_80 or newer is needed");
    return nullptr;
  }
  const OnGpu here;
  if (error == cudaSuccess) error = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  if (error != cudaSuccess) {
    reason = cudaGetErrorString(error);
    return nullptr;
  }
  return new CudaDevice(stream, properties);
}

}  // namespace

Device& cuda_device() {
  static std::string reason;
  static CudaDevice* device = open_device(reason);
  if (!device) value_error(reason);
  return *device;
}

}  // namespace convlet::cuda

#if defined(CONVLET_SIMT)
// What the package loads in tests (bind/devices.cpp).
extern "C" {
__attribute__((visibility("default"))) convlet::Device* convlet_device() {
  return &convlet::cuda::cuda_device();
}
__attribute__((visibility("default"))) extern const std::size_t convlet_kernels_bytes =
    sizeof(convlet::Kernels);
}
#endif
