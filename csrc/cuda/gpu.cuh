// The only header that stands for CUDA itself: nvcc gets the toolkit, g++ with CONVLET_SIMT the
// emulator of tests/simt, which runs the same sources on the CPU.
#pragma once
#include <cstdint>

#if defined(CONVLET_SIMT)
#include "simt.h"
#define CONVLET_DEVICE inline
#define CONVLET_DEVICE_CALL static
// A static shared array: CONVLET_SHARED(float, tile, [4][33]);
#define CONVLET_SHARED(T, name, dims)                 \
  typedef T name##_shared dims;                       \
  static char name##_key;                             \
  name##_shared& name = *static_cast<name##_shared*>( \
      ::simt::static_shared(&name##_key, sizeof(name##_shared), alignof(name##_shared), #name))
// The launch's dynamic shared memory, aligned to 128 bytes.
#define CONVLET_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::simt::dynamic_shared())
#else
#include <cuda_bf16.h>
#include <cuda_runtime.h>
#define CONVLET_DEVICE __device__ __forceinline__
// A function that is not inlined: long code off a kernel's usual path.
#define CONVLET_DEVICE_CALL static __device__ __noinline__
#define CONVLET_SHARED(T, name, dims) __shared__ T name dims
#define CONVLET_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(128) unsigned char convlet_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(convlet_dynamic_shared)
#endif
