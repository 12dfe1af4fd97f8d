// CudaContext: the stream that kernels are launched into. OnGpu: the GPU that they run on.
#pragma once
#include "core/context.h"
#include "cuda/gpu.cuh"

namespace convlet::cuda {

// Error that says what could not be done, unless all is well.
void check(cudaError_t error, const char* what);

// The GPU that this backend uses: the first that CUDA shows (CUDA_VISIBLE_DEVICES chooses it).
constexpr int kDevice = 0;

// While it lives, that GPU is the calling thread's, which may have chosen another one and gets it
// back. Needed wherever CUDA goes by the thread's choice: to launch, clear or replay, to make
// memory, streams, events and graphs, and to ask for free memory. What copies, waits, records an
// event or frees goes by its arguments. What fails here is found by the next check of
// cudaGetLastError.
class OnGpu {
 public:
  OnGpu() {
    if (cudaGetDevice(&before_) == cudaSuccess && before_ != kDevice) cudaSetDevice(kDevice);
  }
  ~OnGpu() {
    if (before_ != kDevice) cudaSetDevice(before_);
  }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;

 private:
  int before_ = kDevice;
};

class CudaContext final : public Context {
 public:
  CudaContext(cudaStream_t stream, int multiprocessors)
      : stream_(stream), multiprocessors_(multiprocessors) {}

  // While this thread records a step, the stream that it is captured from.
  cudaStream_t stream() const { return recorded_from ? recorded_from : stream_; }
  int multiprocessors() const { return multiprocessors_; }

  // Kernels find their own threads: on the host there is one.
  int threads() const override { return 1; }
  void parallel(std::int64_t count, std::int64_t, Body body, void* argument) override {
    if (count > 0) body(argument, 0, count, 0);
  }
  void wait() override;

  static thread_local cudaStream_t recorded_from;

 private:
  cudaStream_t stream_;
  int multiprocessors_;
};

// The context of a kernel of this backend's table.
inline CudaContext& cuda_context(Context& context) {
  return static_cast<CudaContext&>(context);
}

}  // namespace convlet::cuda
