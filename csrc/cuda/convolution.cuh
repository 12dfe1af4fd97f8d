// The products that conv2d, dense and matmul are made of.
#pragma once
#include "cuda/convolution.h"
#include "cuda/product.cuh"

namespace convlet::cuda {

inline bool is_aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}
inline bool all_fours(std::initializer_list<std::int64_t> sizes) {
  return std::all_of(sizes.begin(), sizes.end(), [](std::int64_t n) { return n % 4 == 0; });
}

// Products of the same shape at fixed distances.
template <class A, class B, bool columns_of_a_are_terms, bool columns_of_b_are_terms>
struct Slices {
  static constexpr bool kColumnsOfAAreTerms = columns_of_a_are_terms;
  static constexpr bool kColumnsOfBAreTerms = columns_of_b_are_terms;

  A a;
  B b;
  Result y;
  std::int64_t terms;
  std::int64_t a_step, b_step, y_step, bias_step;

  CONVLET_DEVICE Product<A, B> slice(std::int64_t index) const {
    Product<A, B> product = {a, b, y, terms};
    product.a.data += index * a_step;
    product.b.data += index * b_step;
    product.y.data += index * y_step;
    if (y.bias) product.y.bias += index * bias_step;
    return product;
  }
};

// The distances from slice to slice: groups lie next to each other in the channels.
struct SliceSteps {
  std::int64_t count, x, w, y, bias;
};
inline SliceSteps slice_steps(const Conv2dShape& s, const Batch& batch) {
  if (s.groups == 1) return {batch.count, batch.x, batch.w, batch.y, 0};
  return {s.groups, s.C / s.groups, s.K / s.groups, s.K / s.groups, s.K / s.groups};
}

// x as the terms of each pixel of y.
inline Patches input_patches(const Conv2dShape& s, const float* x, std::int64_t step) {
  Patches p;
  p.data = x;
  p.images = s.N, p.image = s.H * s.W * s.C, p.row = s.W * s.C, p.pixel = s.C;
  p.height = static_cast<int>(s.H), p.width = static_cast<int>(s.W);
  p.results = {static_cast<int>(s.P), static_cast<int>(s.Q)};
  p.stride_h = static_cast<int>(s.stride_h), p.stride_w = static_cast<int>(s.stride_w);
  p.first_h = static_cast<int>(-s.pad_top), p.first_w = static_cast<int>(-s.pad_left);
  p.taps_h = s.R;
  p.terms = {static_cast<int>(s.S), static_cast<int>(s.C / s.groups)};
  p.tap_h = static_cast<int>(s.dilation_h), p.tap_w = static_cast<int>(s.dilation_w);
  p.vectors = is_aligned(x) && all_fours({s.C, s.C / s.groups, step});
  return p;
}

inline Matrix matrix(const float* data, std::int64_t lines, std::int64_t columns,
                     std::int64_t pitch, std::int64_t step) {
  return {data, pitch, lines, columns, is_aligned(data) && all_fours({columns, pitch, step})};
}

inline Result matrix_result(float* data, std::int64_t rows, std::int64_t columns,
                            std::int64_t pitch, std::int64_t step) {
  return {data,
          rows,
          columns,
          {1, 1},
          pitch,
          0,
          0,
          0,
          nullptr,
          Activation::none,
          is_aligned(data) && all_fours({columns, pitch, step})};
}

}  // namespace convlet::cuda
