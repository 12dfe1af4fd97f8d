// Losses that compare prediction and target element by element, with their gradients in the same
// pass (formulas in formulas/elementwise_loss.h).
#include "cuda/team.cuh"

namespace convlet::cuda {
namespace {

template <ElementwiseLoss kind>
struct LossRow {
  ElementwiseLossSpec spec;
  std::int64_t C;
  const float *prediction, *target, *scale;
  float *loss, *dprediction, *elements;
  bool wide;

  // By what the sum over row n is divided.
  CONVLET_DEVICE float divisor(const Team& team, std::int64_t n, std::int64_t count) const {
    if (!spec.skip_missing) return static_cast<float>(C);
    float present = 0.0f;
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      const Quad t = load_quad(target + n * C + c, left, wide, NAN);
      for (int k = 0; k < 4; ++k) present += scalar::is_nan(t[k]) ? 0.0f : 1.0f;
    });
    present = team.sum(present);
    return present == 0.0f ? 1.0f : present;
  }

  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    const float factor = scale ? scale[n] : 1.0f, number = divisor(team, n, count);
    const float each = factor / number;
    float sum = 0.0f;
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      const std::int64_t at = n * C + c;
      const Quad p = load_quad(prediction + at, left, wide), t = load_quad(target + at, left, wide);
      Quad gradient, value;
      for (int k = 0; k < 4; ++k) {
        const scalar::LossAndGradient l = scalar::element_loss(kind, spec, p[k], t[k]);
        if (k < left) sum += l.loss;
        gradient[k] = each * l.gradient;
        value[k] = factor * l.loss;
      }
      if (dprediction) store_quad(dprediction + at, gradient, left, wide);
      if (elements) store_quad(elements + at, value, left, wide);
    });
    sum = team.sum(sum);
    if (count > 0 && team.rank() == 0) loss[n] = factor * (sum / number);
  }
};

}  // namespace

void elementwise_loss(Context& context, const RowsShape& s, const ElementwiseLossSpec& spec,
                      const float* prediction, const float* target, const float* scale, float* loss,
                      float* dprediction, float* elements) {
  const bool wide = wide_rows(s.C, prediction) && wide_rows(s.C, target) &&
                    wide_rows(s.C, dprediction) && wide_rows(s.C, elements);
  scalar::with_value<ElementwiseLoss, kLastElementwiseLoss>(spec.kind, [&](auto constant) {
    launch_rows(context, s.N, s.C,
                LossRow<decltype(constant)::value>{spec, s.C, prediction, target, scale, loss,
                                                   dprediction, elements, wide});
  });
}

}  // namespace convlet::cuda
