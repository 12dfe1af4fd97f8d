// attention: scaled dot-product attention of several heads side by side. With q_h, k_h, v_h the
// columns of head h of a sample's q, k, v:
//   P_h = softmax over s of (scale * q_h k_h^T)        (T,S); causal: query t sees the keys s <= t
//   only y_h = P_h v_h                                      (T,E)
// q (N,T,H*D)   k (N,S,H*D)   v (N,S,H*E)   y (N,T,H*E)   (Vaswani et al. 2017, eq. 1)
// P is never stored as a whole. A pass over blocks of keys keeps the largest score so far and the
// sum of exponentials below it (Milakov and Gimelshein, "Online normalizer calculation for
// softmax", 2018); the backward makes P again from lse[n,h,t] = log sum_s exp(score) (Dao et al.,
// "FlashAttention", 2022):
//   dv = P^T dy    dP = dy v^T    dS = P * (dP - delta), delta[t] = dy[t] . y[t]
//   dq = scale * dS k    dk = scale * dS^T q
// With dropout, the elements of P that multiply v are dropped and scaled, and those of dP likewise.
#pragma once
#include <optional>

#include "core/tensor.h"

namespace convlet {

struct AttentionOptions {
  std::int64_t heads = 1;
  std::optional<double> scale;  // 1 / sqrt(D) without
  bool causal = false;
};

struct AttentionShape {
  std::int64_t N, T, S;
  std::int64_t H, D, E;  // heads, columns of q and k per head, columns of v per head
  float scale;
  bool causal;

  Shape q() const { return {N, T, H * D}; }
  Shape k() const { return {N, S, H * D}; }
  Shape v() const { return {N, S, H * E}; }
  Shape y() const { return {N, T, H * E}; }
  Shape lse() const { return {N, H, T}; }
};

// ValueError named `op` unless the three and the options fit together.
AttentionShape check_attention(const char* op, const Shape& q, const Shape& k, const Shape& v,
                               const AttentionOptions& options);

}  // namespace convlet
