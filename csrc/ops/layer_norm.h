// layer_norm: every row n of C contiguous values, the last axes of x together:
//   y[n,c] = gamma[c] * x^[n,c] + beta[c],  x^[n,c] = (x[n,c] - mean[n]) / sqrt(variance[n] +
//   epsilon)
// with the mean and the biased variance of the row. Gradients, with g = dy * gamma:
//   dx = (g - sum_c g / C - x^ * sum_c (g * x^) / C) / sqrt(variance + epsilon)
//   dgamma = sum_n dy * x^   dbeta = sum_n dy
// (Ba, Kiros & Hinton 2016.) A gamma that is left out is 1, a beta 0.
#pragma once
#include "core/tensor.h"

namespace convlet {

struct LayerNormShape {
  std::int64_t N, C;
  float epsilon;
};

// ValueError unless x has `axes` >= 1 last axes, of 1 element or more together, and epsilon is
// positive and finite.
LayerNormShape check_layer_norm(const char* op, const Shape& x, std::int64_t axes, double epsilon);

// The shape of gamma and beta: the last `axes` sizes of x.
Shape last_axes(const Shape& x, std::int64_t axes);

// ValueError unless epsilon is positive and finite as float32.
float check_epsilon(const char* op, double epsilon);

// The outputs of a backward; any may be null.
struct AffineGradients {
  float *dx, *dgamma, *dbeta;
};

}  // namespace convlet
