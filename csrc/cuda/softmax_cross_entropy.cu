// Softmax and cross-entropy of rows of logits in one pass: the loss, its gradient, the
// probabilities. With q[c] the weight of class c in the loss of a row, l = sum_c q[c] (-log p[c])
// and
//   dl/dz[j] = p[j] sum_c q[c] - q[j].
// ops/softmax_cross_entropy.h says what q is: of an integer label t, (1-e) w[t] at t and e/C w[c]
// everywhere; of probabilities, w[c] ((1-e) t[c] + e/C).
#include "cuda/softmax.cuh"

namespace convlet::cuda {
namespace {

struct CrossEntropy {
  SoftmaxCrossEntropyShape s;
  const float* logits;
  const std::int32_t* labels;  // null for probabilities
  const float* targets;        // null for integer labels
  const float* class_weight;
  const float* scale;
  float *loss, *dlogits, *probabilities;
  bool wide;

  // q of class c in row n, whose label is `label`.
  CONVLET_DEVICE float weight(std::int64_t n, std::int32_t label, std::int64_t c) const {
    float q = s.label_smoothing / static_cast<float>(s.C);
    if (targets) q = fmaf(1.0f - s.label_smoothing, targets[n * s.C + c], q);
    if (c == label) q += 1.0f - s.label_smoothing;
    return class_weight ? q * class_weight[c] : q;
  }
  CONVLET_DEVICE bool is_sparse() const { return labels && s.label_smoothing == 0.0f; }

  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    const std::int32_t label = labels ? labels[n] : -1;
    const float* z = logits + n * s.C;
    float* d = dlogits ? dlogits + n * s.C : nullptr;
    float* p = probabilities ? probabilities + n * s.C : nullptr;
    const bool ignored = labels && label < 0;
    const float maximum = row_maximum(team, z, count, wide);
    const float sum = row_exponentials(team, z, count, wide, maximum, nullptr);
    const float log_sum = scalar::log(sum);
    const float factor = (scale ? scale[n] : 1.0f) * s.focal_alpha;
    const float l = s.focal_gamma > 0.0f
                        ? focal(team, n, count, label, ignored, z, maximum, log_sum, factor, d, p)
                        : plain(team, n, count, label, ignored, z, maximum, sum, factor, d, p);
    if (count > 0 && team.rank() == 0) loss[n] = ignored ? 0.0f : l;
  }

  CONVLET_DEVICE float plain(const Team& team, std::int64_t n, std::int64_t count,
                             std::int32_t label, bool ignored, const float* z, float maximum,
                             float sum, float factor, float* d, float* p) const {
    float total = 0.0f, l = 0.0f;
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      if (is_sparse() && (label < c || label >= c + 4)) return;
      for (int k = 0; k < 4 && k < left; ++k) {
        if (is_sparse() && c + k != label) continue;
        const float q = weight(n, label, c + k);
        total += q;
        l += q * (maximum - z[c + k]);
      }
    });
    total = team.sum(total);
    l = factor * (team.sum(l) + total * scalar::log(sum));
    if (!d && !p) return l;
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      const Quad logit = load_quad(z + c, left, wide);
      Quad gradient, probability;
      for (int k = 0; k < 4; ++k) {
        probability[k] = scalar::exp(logit[k] - maximum) / sum;
        float g = probability[k] * total;
        if (k < left && (!is_sparse() || c + k == label)) g -= weight(n, label, c + k);
        gradient[k] = ignored ? 0.0f : factor * g;
      }
      if (p) store_quad(p + c, probability, left, wide);
      if (d) store_quad(d + c, gradient, left, wide);
    });
    return l;
  }

  // With h[c] = q[c] * slope[c]: dl/dz[j] = h[j] - p[j] sum_c h[c].
  CONVLET_DEVICE float focal(const Team& team, std::int64_t n, std::int64_t count,
                             std::int32_t label, bool ignored, const float* z, float maximum,
                             float log_sum, float factor, float* d, float* p) const {
    float total = 0.0f, l = 0.0f;
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      for (int k = 0; k < 4 && k < left; ++k) {
        if (is_sparse() && c + k != label) continue;
        const float q = weight(n, label, c + k);
        const scalar::FocalTerm term =
            scalar::focal_term(z[c + k] - maximum - log_sum, s.focal_gamma);
        l += q * term.value;
        total += q * term.slope;
      }
    });
    l = factor * team.sum(l);
    total = team.sum(total);
    if (!d && !p) return l;
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      const Quad logit = load_quad(z + c, left, wide);
      Quad gradient, probability;
      for (int k = 0; k < 4; ++k) {
        const float log_p = logit[k] - maximum - log_sum;
        probability[k] = scalar::exp(log_p);
        float g = 0.0f - probability[k] * total;
        if (k < left && (!is_sparse() || c + k == label))
          g += weight(n, label, c + k) * scalar::focal_term(log_p, s.focal_gamma).slope;
        gradient[k] = ignored ? 0.0f : factor * g;
      }
      if (p) store_quad(p + c, probability, left, wide);
      if (d) store_quad(d + c, gradient, left, wide);
    });
    return l;
  }
};

}  // namespace

void softmax_cross_entropy(Context& context, const SoftmaxCrossEntropyShape& s, const float* logits,
                           const void* labels, const float* class_weight, const float* scale,
                           float* loss, float* dlogits, float* probabilities) {
  CrossEntropy row = {s,     logits, nullptr, nullptr,       class_weight,
                      scale, loss,   dlogits, probabilities, false};
  if (s.integer_labels)
    row.labels = static_cast<const std::int32_t*>(labels);
  else
    row.targets = static_cast<const float*>(labels);
  row.wide = wide_rows(s.C, logits) && wide_rows(s.C, dlogits) && wide_rows(s.C, probabilities);
  launch_rows(context, s.N, s.C, row);
}

}  // namespace convlet::cuda
