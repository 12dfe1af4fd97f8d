// Losses that compare prediction and target element by element, with their gradients in the same
// pass (formulas in ops/elementwise_loss.h).
namespace convlet::CONVLET_ISA {

struct LossAndGradient {
  V loss, gradient;
};

// log(1 + e) for 0 <= e <= 1: the last term makes up for the rounding of 1 + e.
inline V log_one_plus(V e) {
  const V one = broadcast(1.0f), u = one + e;
  return log(u) + (e - (u - one)) / u;
}

inline LossAndGradient sigmoid_cross_entropy(V z, V t) {
  const V one = broadcast(1.0f), e = exp(zero() - abs(z));
  const V larger = one / (one + e);  // sigmoid(|z|)
  const V loss = max(zero(), z) - z * t + log_one_plus(e);
  return {loss, select(z < zero(), e * larger, larger) - t};
}

inline LossAndGradient mean_squared_error(V z, V t) {
  const V d = z - t;
  return {d * d, d + d};
}

inline LossAndGradient binary_cross_entropy(V p, V t) {
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
inline LossAndGradient focal(LossAndGradient l, V rest, V slope, float gamma) {
  rest = max(broadcast(1e-30f), rest);  // where the loss is 0 too; NaN passes
  const V factor = exp(broadcast(gamma) * log(rest));
  const V change = broadcast(gamma) * factor / rest * slope;
  return {factor * l.loss, factor * l.gradient + change * l.loss};
}

inline LossAndGradient focal_sigmoid_cross_entropy(V z, V t, float gamma) {
  const V one = broadcast(1.0f), p = sigmoid(z), rest = sigmoid(zero() - z);
  return focal(sigmoid_cross_entropy(z, t), t * rest + (one - t) * p, (one - t - t) * p * rest,
               gamma);
}

inline LossAndGradient focal_binary_cross_entropy(V p, V t, float gamma) {
  const V one = broadcast(1.0f);
  const V clipped = min(broadcast(1.0f), max(zero(), p));
  const V slope = select((clipped == p) | is_nan(p), one - t - t, zero());
  return focal(binary_cross_entropy(p, t), t * (one - clipped) + (one - t) * clipped, slope, gamma);
}

// One row of C. f(prediction, target) gives loss and gradient of a vector of elements.
template <class F>
inline float loss_row(std::int64_t C, const ElementwiseLossSpec& spec, const float* prediction,
                      const float* target, float scale, float* dprediction, float* elements, F f) {
  float count = static_cast<float>(C);
  if (spec.skip_missing) {
    count = row_sum(C, [=](std::int64_t c, auto lanes) {
      return select(is_nan(load(target + c, lanes)), zero(), broadcast(1.0f));
    });
    if (count == 0.0f) count = 1.0f;
  }
  const V each = broadcast(scale / count), smoothing = broadcast(spec.label_smoothing);
  const V positive = broadcast(spec.positive_weight), negative = broadcast(spec.negative_weight);
  const bool weighted = spec.positive_weight != 1.0f || spec.negative_weight != 1.0f;
  const float sum = row_sum(C, [=](std::int64_t c, auto lanes) {
    V t = load(target + c, lanes);
    const Mask missing = is_nan(t);
    if (spec.label_smoothing > 0.0f)
      t = fma(broadcast(1.0f) - smoothing, t, broadcast(0.5f) * smoothing);
    LossAndGradient l = f(load(prediction + c, lanes), t);
    if (weighted) {
      const V weight = t * positive + (broadcast(1.0f) - t) * negative;
      l = {weight * l.loss, weight * l.gradient};
    }
    if (spec.skip_missing)
      l = {select(missing, zero(), l.loss), select(missing, zero(), l.gradient)};
    if (dprediction) store(dprediction + c, each * l.gradient, lanes);
    if (elements) store(elements + c, broadcast(scale) * l.loss, lanes);
    return l.loss;
  });
  return scale * (sum / count);
}

inline void elementwise_loss(Context& context, const RowsShape& s, const ElementwiseLossSpec& spec,
                             const float* prediction, const float* target, const float* scale,
                             float* loss, float* dprediction, float* elements) {
  const float gamma = spec.focal_gamma;
  for_rows(context, s, [&](std::int64_t n) {
    const std::int64_t at = n * s.C;
    auto row = [&](auto f) {
      loss[n] =
          loss_row(s.C, spec, prediction + at, target + at, scale ? scale[n] : 1.0f,
                   dprediction ? dprediction + at : nullptr, elements ? elements + at : nullptr, f);
    };
    switch (spec.kind) {
      case ElementwiseLoss::sigmoid_cross_entropy:
        if (gamma > 0.0f)
          return row([=](V p, V t) { return focal_sigmoid_cross_entropy(p, t, gamma); });
        return row([](V p, V t) { return sigmoid_cross_entropy(p, t); });
      case ElementwiseLoss::mean_squared_error:
        return row([](V p, V t) { return mean_squared_error(p, t); });
      case ElementwiseLoss::binary_cross_entropy:
        if (gamma > 0.0f)
          return row([=](V p, V t) { return focal_binary_cross_entropy(p, t, gamma); });
        return row([](V p, V t) { return binary_cross_entropy(p, t); });
      case ElementwiseLoss::value:
        return row([](V p, V) { return LossAndGradient{p, broadcast(1.0f)}; });
    }
  });
}

}  // namespace convlet::CONVLET_ISA
