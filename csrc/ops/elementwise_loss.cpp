#include "ops/elementwise_loss.h"

#include <cmath>

#include "ops/softmax_cross_entropy.h"

namespace convlet {

void check_elementwise_loss_spec(const char* op, const ElementwiseLossSpec& spec) {
  if (!(spec.label_smoothing >= 0 && spec.label_smoothing <= 1))
    value_error(op, ": expected label_smoothing in [0,1], got ", spec.label_smoothing);
  check_focal_gamma(op, spec.focal_gamma);
  const bool squares = spec.kind == ElementwiseLoss::mean_squared_error;
  if (squares && (spec.focal_gamma > 0 || spec.label_smoothing > 0))
    value_error(op, ": expected neither focal_gamma nor label_smoothing, got ", spec.focal_gamma,
                " and ", spec.label_smoothing);
  for (float weight : {spec.positive_weight, spec.negative_weight})
    if (!(weight >= 0 && std::isfinite(weight)))
      value_error(op, ": expected a focal weight >= 0, got ", weight);
}

void check_elementwise_loss(const char* op, const Shape& prediction, const Shape& target,
                            const char* prediction_name, const char* target_name) {
  if (prediction != target)
    value_error(op, ": expected ", target_name, " of the same shape as ", prediction_name, " ",
                prediction, ", got ", target_name, " ", target);
}

}  // namespace convlet
