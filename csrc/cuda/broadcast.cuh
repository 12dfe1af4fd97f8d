// y = f(operands) for tensors that broadcast together (ops/broadcast.h).
#pragma once
#include "cuda/quads.cuh"

namespace convlet::cuda {

// One of the tensors: p may be null, which is zeros. wide: wherever it steps by one along the last
// axis, quads of it are aligned.
struct Operand {
  const float* p;
  bool wide;
};

inline Operand operand_of(const BroadcastShape& s, int k, const float* p) {
  bool wide = aligned_16(p);
  for (int axis = 0; axis < s.rank - 1; ++axis) wide = wide && s.step[k][axis] % 4 == 0;
  return {p, wide};
}

CONVLET_DEVICE Quad load_operand(const Operand& operand, std::int64_t offset, std::int64_t step,
                                 std::int64_t at, std::int64_t left) {
  if (!operand.p) return quad_of(0.0f);
  const float* p = operand.p + offset;
  if (step == 0) return quad_of(*p);
  if (step == 1) return load_quad(p + at, left, operand.wide);
  Quad q = quad_of(0.0f);
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (k < left) q[k] = p[(at + k) * step];
  return q;
}

template <int operands>
struct Operands {
  Operand of[operands];
};

// An item is a quad of y along the last axis. f(values) takes one value of each operand.
template <int operands, class F>
__global__ void __launch_bounds__(kThreads)
    broadcast_kernel(std::int64_t items, BroadcastShape s, Operands<operands> x, float* y,
                     bool wide, F f) {
  const int last = s.rank - 1;
  const std::int64_t quads = (s.size[last] + 3) / 4;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t row = item;
    const std::int64_t at = 4 * take_coordinate(row, quads), left = s.size[last] - at;
    float* to = y + row * s.size[last] + at;
    std::int64_t offset[operands] = {};
    for (int axis = last - 1; axis >= 0; --axis) {
      const std::int64_t i = axis > 0 ? take_coordinate(row, s.size[axis]) : row;
      for (int k = 0; k < operands; ++k) offset[k] += i * s.step[k][axis];
    }
    Quad in[operands], out;
#pragma unroll
    for (int k = 0; k < operands; ++k)
      in[k] = load_operand(x.of[k], offset[k], s.step[k][last], at, left);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      float values[operands];
#pragma unroll
      for (int k = 0; k < operands; ++k) values[k] = in[k][j];
      out[j] = f(values);
    }
    store_quad(to, out, left, wide);
  }
}

// x: as many pointers as f takes values; y may be one of those that have its shape.
template <int operands, class F>
void broadcast_transform(Context& context, const BroadcastShape& s,
                         const float* const (&x)[operands], float* y, F f) {
  if (s.elements == 0) return;
  Operands<operands> all;
  for (int k = 0; k < operands; ++k) all.of[k] = operand_of(s, k, x[k]);
  const std::int64_t size = s.size[s.rank - 1];
  const bool wide = s.rank == 1 ? aligned_16(y) : wide_rows(size, y);
  launch_items(context, broadcast_kernel<operands, F>, s.elements / size * quads_of(size), s, all,
               y, wide, f);
}

}  // namespace convlet::cuda
