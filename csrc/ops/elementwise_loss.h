// Losses that compare two tensors of one shape element by element; l has that shape too:
//   sigmoid_cross_entropy  l = max(z,0) - z t + log(1 + e^-|z|)          dl/dz = sigmoid(z) - t
//   mean_squared_error     l = (z - t)^2                                 dl/dz = 2 (z - t)
//   binary_cross_entropy   l = -t log(p) - (1-t) log(1-p),  p clipped to [eps, 1-eps], eps = 1e-7
//   value                  l = z, whatever t is: the graph has computed the loss    dl/dz = 1
// With label smoothing e the first and last use t' = (1-e) t + e/2. In their focal form (Lin et al.
// 2017) l is multiplied by (1 - q)^gamma, q = t p + (1-t) (1-p) the probability of the right
// answer, and by alpha t + (1 - alpha) (1-t) where classes are balanced.
#pragma once
#include "core/tensor.h"

namespace convlet {

enum class ElementwiseLoss {
  sigmoid_cross_entropy,
  mean_squared_error,
  binary_cross_entropy,
  value,
};
constexpr ElementwiseLoss kLastElementwiseLoss = ElementwiseLoss::value;

struct ElementwiseLossSpec {
  ElementwiseLoss kind = ElementwiseLoss::mean_squared_error;
  float label_smoothing = 0.0f;
  float focal_gamma = 0.0f;  // 0: not focal
  // Of the terms with t and with 1-t: alpha and 1-alpha, or 1.
  float positive_weight = 1.0f, negative_weight = 1.0f;
  // A target that is NaN is missing: l and its gradient are 0, and means are over the others.
  bool skip_missing = false;
};

// ValueError for numbers out of their range, or a focal form of another loss.
void check_elementwise_loss_spec(const char* op, const ElementwiseLossSpec& spec);

// ValueError unless both shapes are equal: (N,) against (N,1) is refused, never broadcast.
void check_elementwise_loss(const char* op, const Shape& prediction, const Shape& target,
                            const char* prediction_name = "prediction",
                            const char* target_name = "target");

}  // namespace convlet
