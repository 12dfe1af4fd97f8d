// What the kernels of the tests are called with.
#pragma once
#include <cstdio>

#include "cuda/gpu.cuh"

#if defined(CONVLET_SIMT)
#define EXPORT extern "C" __attribute__((visibility("default")))
#else
#define EXPORT extern "C"
#endif

// n values in the device's memory, unwritten where there are none.
template <class T>
struct OnDevice {
  OnDevice(const T* values, std::size_t n) : bytes(n * sizeof(T)) {
    void* memory = nullptr;
    cudaMalloc(&memory, bytes);
    data = static_cast<T*>(memory);
    if (values) cudaMemcpyAsync(data, values, bytes, cudaMemcpyHostToDevice, nullptr);
  }
  ~OnDevice() { cudaFree(data); }
  // What has gone wrong until then is said on a GPU; the emulator has a report of its own.
  void read(T* to) const {
    const cudaError_t launched = cudaGetLastError();
    const cudaError_t read = cudaMemcpyAsync(to, data, bytes, cudaMemcpyDeviceToHost, nullptr);
#if !defined(CONVLET_SIMT)
    for (cudaError_t error : {launched, read})
      if (error != cudaSuccess) std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
#else
    (void)launched, (void)read;
#endif
  }
  std::size_t bytes;
  T* data = nullptr;
};
