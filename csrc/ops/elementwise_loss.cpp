#include "ops/elementwise_loss.h"

namespace convlet {

void check_elementwise_loss(const char* op, const Shape& prediction, const Shape& target,
                            const char* prediction_name, const char* target_name) {
  if (prediction != target)
    value_error(op, ": expected ", target_name, " of the same shape as ", prediction_name, " ",
                prediction, ", got ", target_name, " ", target);
}

}  // namespace convlet
