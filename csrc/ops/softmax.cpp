#include "ops/softmax.h"

namespace convlet {

RowsShape check_softmax(const char* op, const Shape& x) {
  if (x.rank() < 1 || x.back() < 1)
    value_error(
        op, ": expected x of at least 1 axis whose last has at least 1 element, got x of shape ",
        x);
  return {x.elements(op) / x.back(), x.back()};
}

}  // namespace convlet
