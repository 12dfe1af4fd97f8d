// Losses that compare prediction and target element by element (ops/elementwise_loss.h) on vectors.
namespace convlet::CONVLET_ISA {

struct LossAndGradient {
  V loss, gradient;
};

// log(1 + e) for 0 <= e <= 1: the last term makes up for the rounding of 1 + e.
CONVLET_HOST_DEVICE inline V log_one_plus(V e) {
  const V one = broadcast(1.0f), u = one + e;
  return log(u) + (e - (u - one)) / u;
}

CONVLET_HOST_DEVICE inline LossAndGradient sigmoid_cross_entropy(V z, V t) {
  const V one = broadcast(1.0f), e = exp_negative(zero() - abs(z));
  const V larger = one / (one + e);  // sigmoid(|z|)
  const V loss = max(zero(), z) - z * t + log_one_plus(e);
  return {loss, select(z < zero(), e * larger, larger) - t};
}

CONVLET_HOST_DEVICE inline LossAndGradient mean_squared_error(V z, V t) {
  const V d = z - t;
  return {d * d, d + d};
}

CONVLET_HOST_DEVICE inline LossAndGradient binary_cross_entropy(V p, V t) {
  constexpr float kLow = 1e-7f, kHigh = 1.0f - 1e-7f;
  const V one = broadcast(1.0f);
  const V clipped = min(broadcast(kHigh), max(broadcast(kLow), p));  // NaN passes
  const V rest = one - clipped;
  const V loss = zero() - t * log(clipped) - (one - t) * log(rest);
  const V gradient = (clipped - t) / (clipped * rest);
  const Mask inside = (clipped == p) | is_nan(p);  // where it clips it is flat
  return {loss, select(inside, gradient, zero())};
}

// A cross-entropy times (1 - q)^gamma, where rest = 1 - q and `slope` is its derivative.
CONVLET_HOST_DEVICE inline LossAndGradient focal(LossAndGradient l, V rest, V slope, float gamma) {
  rest = max(broadcast(1e-30f), rest);  // where the loss is 0 too; NaN passes
  const V factor = exp(broadcast(gamma) * log(rest));
  const V change = broadcast(gamma) * factor / rest * slope;
  return {factor * l.loss, factor * l.gradient + change * l.loss};
}

CONVLET_HOST_DEVICE inline LossAndGradient focal_sigmoid_cross_entropy(V z, V t, float gamma) {
  const V one = broadcast(1.0f), p = sigmoid(z), rest = sigmoid(zero() - z);
  return focal(sigmoid_cross_entropy(z, t), t * rest + (one - t) * p, (one - t - t) * p * rest,
               gamma);
}

CONVLET_HOST_DEVICE inline LossAndGradient focal_binary_cross_entropy(V p, V t, float gamma) {
  const V one = broadcast(1.0f);
  const V clipped = min(broadcast(1.0f), max(zero(), p));
  const V slope = select((clipped == p) | is_nan(p), one - t - t, zero());
  return focal(binary_cross_entropy(p, t), t * (one - clipped) + (one - t) * clipped, slope, gamma);
}

// By `kind`, which is spec.kind as a constant: smoothed, weighted by class, and 0 where the target
// is missing.
CONVLET_HOST_DEVICE inline LossAndGradient element_loss(ElementwiseLoss kind,
                                                        const ElementwiseLossSpec& spec,
                                                        V prediction, V target) {
  const V one = broadcast(1.0f), smoothing = broadcast(spec.label_smoothing);
  const float gamma = spec.focal_gamma;
  V t = target;
  if (spec.label_smoothing > 0.0f) t = fma(one - smoothing, t, broadcast(0.5f) * smoothing);
  LossAndGradient l = {prediction, one};
  if (kind == ElementwiseLoss::sigmoid_cross_entropy)
    l = gamma > 0.0f ? focal_sigmoid_cross_entropy(prediction, t, gamma)
                     : sigmoid_cross_entropy(prediction, t);
  else if (kind == ElementwiseLoss::mean_squared_error)
    l = mean_squared_error(prediction, t);
  else if (kind == ElementwiseLoss::binary_cross_entropy)
    l = gamma > 0.0f ? focal_binary_cross_entropy(prediction, t, gamma)
                     : binary_cross_entropy(prediction, t);
  if (spec.positive_weight != 1.0f || spec.negative_weight != 1.0f) {
    const V weight =
        t * broadcast(spec.positive_weight) + (one - t) * broadcast(spec.negative_weight);
    l = {weight * l.loss, weight * l.gradient};
  }
  if (spec.skip_missing) {
    const Mask missing = is_nan(target);
    l = {select(missing, zero(), l.loss), select(missing, zero(), l.gradient)};
  }
  return l;
}

}  // namespace convlet::CONVLET_ISA
