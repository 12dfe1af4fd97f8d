#include "ops/layer_norm.h"

#include <cmath>

namespace convlet {

Shape last_axes(const Shape& x, std::int64_t axes) {
  Shape last;
  for (int axis = x.rank() - static_cast<int>(axes); axis < x.rank(); ++axis)
    last.push_back(x[axis]);
  return last;
}

float check_epsilon(const char* op, double epsilon) {
  const float value = static_cast<float>(epsilon);
  if (!(value > 0 && std::isfinite(value)))
    value_error(op, ": expected a positive epsilon, got ", epsilon);
  return value;
}

LayerNormShape check_layer_norm(const char* op, const Shape& x, std::int64_t axes, double epsilon) {
  if (axes < 1 || axes > x.rank())
    value_error(op, ": expected axes from 1 to the rank of x, got ", axes, " for x of shape ", x);
  const std::int64_t columns = last_axes(x, axes).elements(op);
  if (columns < 1)
    value_error(op, ": expected x with at least 1 element along its last ", axes,
                " axes, got shape ", x);
  return {x.elements(op) / columns, columns, check_epsilon(op, epsilon)};
}

}  // namespace convlet
