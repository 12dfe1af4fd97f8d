// Four neighbouring floats at a time, by one 16-byte access wherever the addresses allow it, and
// the way from a thread to the items of a kernel.
#pragma once
#include "cuda/launch.h"
#include "cuda/scalar.cuh"
#include "cuda/transform.cuh"

namespace convlet::cuda {

constexpr int kThreads = 256;

struct Quad {
  float value[4];
  CONVLET_DEVICE float& operator[](int i) { return value[i]; }
  CONVLET_DEVICE float operator[](int i) const { return value[i]; }
};

inline std::int64_t quads_of(std::int64_t count) {
  return (count + 3) / 4;
}

// Whether rows of `count` values that follow each other all begin at a multiple of 16 bytes.
inline bool wide_rows(std::int64_t count, const void* p) {
  return count % 4 == 0 && aligned_16(p);
}

CONVLET_DEVICE Quad quad_of(float x) {
  return {{x, x, x, x}};
}

// The first `left` of four values; the others are `other`. wide: p is aligned to 16 bytes.
CONVLET_DEVICE Quad load_quad(const float* p, std::int64_t left, bool wide, float other = 0.0f) {
  if (wide && left >= 4) {
    const float4 v = *reinterpret_cast<const float4*>(p);
    return {{v.x, v.y, v.z, v.w}};
  }
  Quad q = quad_of(other);
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (k < left) q[k] = p[k];
  return q;
}

CONVLET_DEVICE void store_quad(float* p, const Quad& q, std::int64_t left, bool wide) {
  if (wide && left >= 4) {
    *reinterpret_cast<float4*>(p) = make_float4(q[0], q[1], q[2], q[3]);
    return;
  }
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (k < left) p[k] = q[k];
}

// for (i = first_item(); i < items; i += all_threads()) visits every item once.
CONVLET_DEVICE std::int64_t first_item() {
  return std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
}
CONVLET_DEVICE std::int64_t all_threads() {
  return std::int64_t{gridDim.x} * blockDim.x;
}

// Takes the last coordinate, of an axis of `size`, off an index.
CONVLET_DEVICE std::int64_t take_coordinate(std::int64_t& index, std::int64_t size) {
  const std::int64_t rest = scalar::quotient(index, size);
  const std::int64_t coordinate = index - rest * size;
  index = rest;
  return coordinate;
}

// Launches kernel(arguments...) with a thread per item, or with fewer that stride.
template <class... Parameters, class... Arguments>
void launch_items(Context& context, void (*kernel)(Parameters...), std::int64_t items,
                  Arguments&&... arguments) {
  launch(context, kernel, blocks_for(context, items, kThreads), kThreads, 0, items,
         std::forward<Arguments>(arguments)...);
}

}  // namespace convlet::cuda
