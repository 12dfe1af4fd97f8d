#include "ops/dense.h"

namespace convlet {

DenseShape check_dense(const char* op, const Shape& x, const Shape& weight) {
  if (x.rank() != 2) value_error(op, ": expected x of 2 axes (N,I), got x of shape ", x);
  if (weight.rank() != 2)
    value_error(op, ": expected weight of 2 axes (I,O), got weight of shape ", weight);
  const DenseShape s = {x[0], x[1], weight[1]};
  if (s.N < 0 || s.I < 1)
    value_error(op, ": expected x (N,I) with N >= 0 and I >= 1, got x of shape ", x);
  if (s.O < 1) value_error(op, ": expected weight (I,O) with O >= 1, got weight of shape ", weight);
  if (weight[0] != s.I)
    value_error(op, ": expected weight (I,O) with I=", s.I, " to match x (N,I)=", x,
                ", got weight ", weight);
  const std::string what = concat(op, ": x ", x, " and weight ", weight);
  for (const Shape& shape : {s.x(), s.weight(), s.y()})
    checked_multiply(shape.elements(what.c_str()), sizeof(float), what.c_str());
  return s;
}

}  // namespace convlet
