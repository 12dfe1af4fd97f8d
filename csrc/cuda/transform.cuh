// y[i] = f(a[i]) or f(a[i], b[i]) over n elements, in one pass; y may be an input. F is a struct
// whose operator() is CONVLET_DEVICE.
#pragma once
#include "cuda/launch.h"

namespace convlet::cuda {

constexpr int kTransformThreads = 256;

// Whether a pointer can be read by 16 bytes; null can.
inline bool aligned_16(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

template <class F>
CONVLET_DEVICE float apply(F f, const float* a, const float* b, std::int64_t i) {
  if constexpr (std::is_invocable_v<F, float, float>) {
    return f(a[i], b[i]);
  } else {
    return f(a[i]);
  }
}

template <class F>
CONVLET_DEVICE float4 apply4(F f, const float4* a, const float4* b, std::int64_t i) {
  const float4 u = a[i];
  if constexpr (std::is_invocable_v<F, float, float>) {
    const float4 v = b[i];
    return make_float4(f(u.x, v.x), f(u.y, v.y), f(u.z, v.z), f(u.w, v.w));
  } else {
    return make_float4(f(u.x), f(u.y), f(u.z), f(u.w));
  }
}

// The first `vectors` groups of four by 16 bytes, the rest one by one. Left to itself, ptxas aims
// at 32 registers and spills around divisions; five blocks allow 48.
template <class F>
__global__ void __launch_bounds__(kTransformThreads, 5)
    transform_kernel(std::int64_t n, std::int64_t vectors, const float* a, const float* b, float* y,
                     F f) {
  const std::int64_t first = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = first; i < vectors; i += stride)
    reinterpret_cast<float4*>(y)[i] =
        apply4(f, reinterpret_cast<const float4*>(a), reinterpret_cast<const float4*>(b), i);
  for (std::int64_t i = 4 * vectors + first; i < n; i += stride) y[i] = apply(f, a, b, i);
}

template <class F>
void transform(Context& context, std::int64_t n, const float* a, const float* b, float* y, F f) {
  const bool wide = aligned_16(a) && aligned_16(b) && aligned_16(y);
  const std::int64_t vectors = wide ? n / 4 : 0, items = wide ? (n + 3) / 4 : n;
  launch(context, transform_kernel<F>, blocks_for(context, items, kTransformThreads),
         kTransformThreads, 0, n, vectors, a, b, y, f);
}

template <class F>
void transform(Context& context, std::int64_t n, const float* x, float* y, F f) {
  transform(context, n, x, nullptr, y, f);
}

}  // namespace convlet::cuda
