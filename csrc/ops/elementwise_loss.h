// Losses that compare two tensors of one shape element by element; l has that shape too:
//   sigmoid_cross_entropy  l = max(z,0) - z t + log(1 + e^-|z|)          dl/dz = sigmoid(z) - t
//   mean_squared_error     l = (z - t)^2                                 dl/dz = 2 (z - t)
//   binary_cross_entropy   l = -t log(p) - (1-t) log(1-p),  p clipped to [eps, 1-eps], eps = 1e-7
// With label smoothing e the first and last use t' = (1-e) t + e/2.
#pragma once
#include "core/tensor.h"

namespace convlet {

enum class ElementwiseLoss { sigmoid_cross_entropy, mean_squared_error, binary_cross_entropy };

// ValueError unless both shapes are equal: (N,) against (N,1) is refused, never broadcast.
void check_elementwise_loss(const char* op, const Shape& prediction, const Shape& target,
                            const char* prediction_name = "prediction",
                            const char* target_name = "target");

}  // namespace convlet
