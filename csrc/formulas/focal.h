// The focal form of the cross-entropy (ops/softmax_cross_entropy.h) on vectors.
namespace convlet::CONVLET_ISA {

// Of -(1-p)^gamma log p, given log p: the value, and p times the derivative.
struct FocalTerm {
  V value, slope;
};

CONVLET_HOST_DEVICE inline FocalTerm focal_term(V log_p, float gamma) {
  const V rest = max(broadcast(1e-30f), zero() - expm1_negative(log_p));  // NaN passes
  const V factor = exp(broadcast(gamma) * log(rest));
  const V p_log_p = exp(log_p) * log_p;
  return {zero() - factor * log_p, broadcast(gamma) * factor / rest * p_log_p - factor};
}

}  // namespace convlet::CONVLET_ISA
