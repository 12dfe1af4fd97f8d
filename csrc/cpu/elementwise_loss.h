// Losses that compare prediction and target element by element, with their gradients in the same
// pass (formulas in formulas/elementwise_loss.h).
namespace convlet::CONVLET_ISA {

// One row of C.
template <ElementwiseLoss kind>
inline float loss_row(std::int64_t C, const ElementwiseLossSpec& spec, const float* prediction,
                      const float* target, float scale, float* dprediction, float* elements) {
  float count = static_cast<float>(C);
  if (spec.skip_missing) {
    count = row_sum(C, [=](std::int64_t c, auto lanes) {
      return select(is_nan(load(target + c, lanes)), zero(), broadcast(1.0f));
    });
    if (count == 0.0f) count = 1.0f;
  }
  const V each = broadcast(scale / count);
  const float sum = row_sum(C, [=, &spec](std::int64_t c, auto lanes) {
    const LossAndGradient l =
        element_loss(kind, spec, load(prediction + c, lanes), load(target + c, lanes));
    if (dprediction) store(dprediction + c, each * l.gradient, lanes);
    if (elements) store(elements + c, broadcast(scale) * l.loss, lanes);
    return l.loss;
  });
  return scale * (sum / count);
}

inline void elementwise_loss(Context& context, const RowsShape& s, const ElementwiseLossSpec& spec,
                             const float* prediction, const float* target, const float* scale,
                             float* loss, float* dprediction, float* elements) {
  with_value<ElementwiseLoss, kLastElementwiseLoss>(spec.kind, [&](auto kind) {
    for_rows(context, s, [&](std::int64_t n) {
      const std::int64_t at = n * s.C;
      loss[n] = loss_row<decltype(kind)::value>(
          s.C, spec, prediction + at, target + at, scale ? scale[n] : 1.0f,
          dprediction ? dprediction + at : nullptr, elements ? elements + at : nullptr);
    });
  });
}

}  // namespace convlet::CONVLET_ISA
