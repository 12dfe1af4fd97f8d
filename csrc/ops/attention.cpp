#include "ops/attention.h"

#include <cmath>

namespace convlet {
namespace {

void check_array(const char* op, const char* name, const char* layout, const Shape& shape) {
  if (shape.rank() != 3)
    value_error(op, ": expected ", name, " of 3 axes ", layout, ", got ", name, " of shape ",
                shape);
  if (shape[0] < 0 || shape[1] < 1 || shape[2] < 1)
    value_error(op, ": expected ", name, ' ', layout,
                " with N >= 0 and other sizes of at least 1, got ", name, " of shape ", shape);
}

void check_heads(const char* op, const char* name, std::int64_t columns, std::int64_t heads) {
  if (columns % heads != 0)
    value_error(op, ": expected heads to divide the columns of ", name, ", got heads=", heads,
                " for ", columns, " columns");
}

}  // namespace

AttentionShape check_attention(const char* op, const Shape& q, const Shape& k, const Shape& v,
                               const AttentionOptions& options) {
  check_array(op, "q", "(N,T,H*D)", q);
  check_array(op, "k", "(N,S,H*D)", k);
  check_array(op, "v", "(N,S,H*E)", v);
  if (k[0] != q[0] || k[2] != q[2])
    value_error(op, ": expected k (N,S,H*D) with N=", q[0], " and H*D=", q[2],
                " to match q (N,T,H*D)=", q, ", got k ", k);
  if (v[0] != k[0] || v[1] != k[1])
    value_error(op, ": expected v (N,S,H*E) with N=", k[0], " and S=", k[1],
                " to match k (N,S,H*D)=", k, ", got v ", v);
  if (options.heads < 1) value_error(op, ": expected heads of at least 1, got ", options.heads);
  check_heads(op, "q", q[2], options.heads);
  check_heads(op, "v", v[2], options.heads);

  AttentionShape s;
  s.N = q[0];
  s.T = q[1];
  s.S = k[1];
  s.H = options.heads;
  s.D = q[2] / s.H;
  s.E = v[2] / s.H;
  const double scale = options.scale ? *options.scale : 1.0 / std::sqrt(static_cast<double>(s.D));
  if (!std::isfinite(static_cast<float>(scale)))
    value_error(op, ": expected a finite scale, got ", scale);
  s.scale = static_cast<float>(scale);
  s.causal = options.causal;
  const std::string what = concat(op, ": q ", q, ", k ", k, " and v ", v);
  for (const Shape& shape : {s.q(), s.k(), s.v(), s.y(), s.lse()})
    checked_multiply(shape.elements(what.c_str()), sizeof(float), what.c_str());
  return s;
}

}  // namespace convlet
