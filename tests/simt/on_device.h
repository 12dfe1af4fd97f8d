// What the kernels of the tests are called with.
#pragma once
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
  void read(T* to) const { cudaMemcpyAsync(to, data, bytes, cudaMemcpyDeviceToHost, nullptr); }
  std::size_t bytes;
  T* data = nullptr;
};
