// What softmax and the cross-entropies do with a row that a team shares. Every member reads and
// writes its own quads only, so that the result may take the row's place.
#pragma once
#include "cuda/team.cuh"

namespace convlet::cuda {

// NaN may be lost.
CONVLET_DEVICE float row_maximum(const Team& team, const float* x, std::int64_t n, bool wide) {
  float best = -INFINITY;
  for_own_quads(team, n, [&](std::int64_t c, std::int64_t left) {
    const Quad q = load_quad(x + c, left, wide, -INFINITY);
    for (int k = 0; k < 4; ++k) best = q[k] > best ? q[k] : best;
  });
  return team.largest(best);
}

// The sum of e^(x - maximum); the terms go to y unless it is null.
CONVLET_DEVICE float row_exponentials(const Team& team, const float* x, std::int64_t n, bool wide,
                                      float maximum, float* y) {
  float sum = 0.0f;
  for_own_quads(team, n, [&](std::int64_t c, std::int64_t left) {
    Quad q = load_quad(x + c, left, wide);
    for (int k = 0; k < 4; ++k) {
      q[k] = scalar::exp(q[k] - maximum);
      if (k < left) sum += q[k];
    }
    if (y) store_quad(y + c, q, left, wide);
  });
  return team.sum(sum);
}

CONVLET_DEVICE void softmax_row(const Team& team, const float* x, std::int64_t n, bool wide,
                                float* y) {
  const float sum = row_exponentials(team, x, n, wide, row_maximum(team, x, n, wide), y);
  for_own_quads(team, n, [&](std::int64_t c, std::int64_t left) {
    Quad q = load_quad(y + c, left, wide);
    for (int k = 0; k < 4; ++k) q[k] = q[k] / sum;
    store_quad(y + c, q, left, wide);
  });
}

}  // namespace convlet::cuda
