#include "ops/group_norm.h"

namespace convlet {

GroupNormShape check_group_norm(const char* op, const Shape& x, std::int64_t groups,
                                double epsilon) {
  if (x.rank() < 2) value_error(op, ": expected x (N,...,C), got shape ", x);
  const std::int64_t elements = x.without_front().elements(op), channels = x.back();
  if (elements < 1)
    value_error(op, ": expected x (N,...,C) with at least 1 element per sample, got shape ", x);
  if (groups < 1 || channels % groups != 0)
    value_error(op, ": expected groups to divide C=", channels, ", got ", groups);
  x.elements(op);
  return {x[0], elements / channels, channels, groups, check_epsilon(op, epsilon)};
}

}  // namespace convlet
