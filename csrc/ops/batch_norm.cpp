#include "ops/batch_norm.h"

#include "ops/layer_norm.h"

namespace convlet {

BatchNormShape check_batch_norm(const char* op, const Shape& x, bool training, double epsilon,
                                Activation activation) {
  if (x.rank() < 1 || x.back() < 1)
    value_error(op, ": expected x (...,C) with C >= 1, got shape ", x);
  const float checked = check_epsilon(op, epsilon);
  return {x.elements(op) / x.back(), x.back(), training, checked, activation};
}

void check_momentum(const char* op, double momentum) {
  if (!(momentum >= 0 && momentum <= 1))
    value_error(op, ": expected momentum in [0,1], got ", momentum);
}

}  // namespace convlet
