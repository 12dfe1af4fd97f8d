#include "core/error.h"
#include "cuda/context.h"
#include "cuda/table.h"

namespace convlet::cuda {

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  cudaGetLastError();  // the next call starts clean, where the error allows it
  value_error(kTableName, ": ", what, ": ", cudaGetErrorString(error));
}

thread_local cudaStream_t CudaContext::recorded_from = nullptr;

void CudaContext::wait() {
  const cudaError_t launched = cudaGetLastError();
  check(cudaStreamSynchronize(stream_), "a kernel has failed");
  check(launched, "a kernel could not be launched");
}

}  // namespace convlet::cuda
