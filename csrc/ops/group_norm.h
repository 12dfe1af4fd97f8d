// group_norm: the channels of a sample in groups of neighbours, each normalised over all its
// positions p and channels together:
//   y[n,p,c] = gamma[c] * (x[n,p,c] - mean[n,g]) / sqrt(variance[n,g] + epsilon) + beta[c]
// with g = c / (C / groups), and the mean and biased variance of x[n,:,channels of g]. groups = C
// is instance normalization. The gradients are those of layer_norm with a row for each sample and
// group. (Wu & He 2018; Ulyanov, Vedaldi & Lempitsky 2016.) A gamma that is left out is 1, a beta
// 0.
#pragma once
#include "core/tensor.h"
#include "ops/layer_norm.h"

namespace convlet {

struct GroupNormShape {
  std::int64_t N, P, C;  // samples, positions, channels
  std::int64_t groups;
  float epsilon;
};

// ValueError unless x is (N,...,C) with at least one position, groups divides C, and epsilon is
// positive and finite.
GroupNormShape check_group_norm(const char* op, const Shape& x, std::int64_t groups,
                                double epsilon);

}  // namespace convlet
