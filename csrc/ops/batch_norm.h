// batch_norm: every channel c, the last axis, over all rows n, the other axes together:
//   y[n,c] = act( (x[n,c] - mean[c]) * k[c] + beta[c] + residual[n,c] ),
//   k[c] = gamma[c] / sqrt(variance[c] + epsilon)
// In training mean and variance are those of x, the variance biased: sum_n (x - mean)^2 / N, 0 for
// one row; else they are given. Gradients, with g = dy * act' and x^ = (x - mean) / sqrt(variance +
// epsilon):
//   dbeta = sum_n g   dgamma = sum_n g * x^   dresidual = g
//   dx = k * (g - dbeta / N - x^ * dgamma / N) in training, k * g else
// (Ioffe & Szegedy 2015.) A gamma that is left out is 1, a beta or residual 0.
#pragma once
#include "core/tensor.h"
#include "ops/activation.h"

namespace convlet {

struct BatchNormShape {
  std::int64_t N, C;  // N rows of C contiguous values
  bool training;      // mean and variance are those of x
  float epsilon;
  Activation activation;  // of y; one that batch_norm_applies
};

// The activations that a batch_norm kernel can apply on the way: those that networks put after it
// and that cost little beside the memory.
constexpr bool batch_norm_applies(Activation activation) {
  return activation == Activation::none || activation == Activation::relu ||
         activation == Activation::relu6 || activation == Activation::silu ||
         activation == Activation::hard_swish;
}

// ValueError unless x has an axis of channels and epsilon is positive and finite.
BatchNormShape check_batch_norm(const char* op, const Shape& x, bool training, double epsilon,
                                Activation activation = Activation::none);

// ValueError unless momentum is in [0,1].
void check_momentum(const char* op, double momentum);

// Which of these may be null, and which may share memory, is said in ops/kernels.h.
struct BatchNormInputs {
  const float* x;
  const float *mean, *variance, *gamma, *beta;  // (C,)
  const float* residual;                        // as x
};

struct BatchNormGradients {
  float* dx;              // as x
  float *dgamma, *dbeta;  // (C,)
  float* dresidual;       // as x
};

}  // namespace convlet
