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

// One row of C. f(prediction, target) gives loss and gradient of a vector of elements.
template <class F>
inline float loss_row(std::int64_t C, float smoothing, const float* prediction, const float* target,
                      float scale, float* dprediction, float* elements, F f) {
  const float count = static_cast<float>(C);
  const V each = broadcast(scale / count);
  const float sum = row_sum(C, [=](std::int64_t c, auto lanes) {
    V t = load(target + c, lanes);
    if (smoothing > 0.0f) t = fma(broadcast(1.0f - smoothing), t, broadcast(0.5f * smoothing));
    const LossAndGradient l = f(load(prediction + c, lanes), t);
    if (dprediction) store(dprediction + c, each * l.gradient, lanes);
    if (elements) store(elements + c, broadcast(scale) * l.loss, lanes);
    return l.loss;
  });
  return scale * (sum / count);
}

inline void elementwise_loss(Context& context, const RowsShape& s, ElementwiseLoss kind,
                             float label_smoothing, const float* prediction, const float* target,
                             const float* scale, float* loss, float* dprediction, float* elements) {
  for_rows(context, s, [&](std::int64_t n) {
    const std::int64_t at = n * s.C;
    auto row = [&](float smoothing, auto f) {
      loss[n] =
          loss_row(s.C, smoothing, prediction + at, target + at, scale ? scale[n] : 1.0f,
                   dprediction ? dprediction + at : nullptr, elements ? elements + at : nullptr, f);
    };
    switch (kind) {
      case ElementwiseLoss::sigmoid_cross_entropy:
        return row(label_smoothing, [](V p, V t) { return sigmoid_cross_entropy(p, t); });
      case ElementwiseLoss::mean_squared_error:
        return row(0.0f, [](V p, V t) { return mean_squared_error(p, t); });
      case ElementwiseLoss::binary_cross_entropy:
        return row(label_smoothing, [](V p, V t) { return binary_cross_entropy(p, t); });
    }
  });
}

}  // namespace convlet::CONVLET_ISA
