// softmax_cross_entropy: logits z (N,C), labels t:
//   integers  l[n] = -w[t]*[ (1-e) log p[t] + e/C sum_c (w[c]/w[t]) log p[c] ]   (torch's weighting
//   of smoothing) probabilities  l[n] = -sum_c w[c] t'[c] log p[c],  t' = (1-e) t + e/C
// with p = softmax(z), class weight w (1 when absent), label smoothing e. A row whose label equals
// ignore_index has loss and gradient 0. In the focal form (Lin et al. 2017) -log p[c] becomes
// -alpha (1 - p[c])^gamma log p[c]. dlogits = scale[n] * dl[n]/dz, from the same pass.
#pragma once
#include "core/tensor.h"

namespace convlet {

struct SoftmaxCrossEntropyShape {
  std::int64_t N, C;
  bool integer_labels;
  float label_smoothing;
  bool has_ignore_index;
  std::int64_t ignore_index;
  float focal_gamma = 0.0f;  // 0: not focal
  float focal_alpha = 1.0f;
};

// ValueError unless gamma is a number >= 0.
void check_focal_gamma(const char* op, float gamma);

// labels (N,) for integers, (N,C) for probabilities. ValueError for any other shape, or when
// label_smoothing is outside [0,1].
SoftmaxCrossEntropyShape check_softmax_cross_entropy(const char* op, const Shape& logits,
                                                     const Tensor& labels, float label_smoothing,
                                                     const std::int64_t* ignore_index);

// Copies integer labels of any integer dtype to int32, with ignored ones as -1. ValueError that
// gives the position and the value of the first label outside [0, classes) that is not ignored.
void check_labels(const char* op, const Tensor& labels, std::int64_t classes,
                  const std::int64_t* ignore_index, std::int32_t* out);

}  // namespace convlet
