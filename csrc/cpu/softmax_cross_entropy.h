// Softmax and cross-entropy of rows of logits in one pass: the loss, its gradient, the
// probabilities. With q[c] the weight of class c in the loss of a row, l = sum_c q[c] (-log p[c])
// and
//   dl/dz[j] = p[j] sum_c q[c] - q[j].
// ops/softmax_cross_entropy.h says what q is. Here it has two parts: `label`, only at an integer
// label t, (1-e) w[t]; and `spread`, at every class c, e/C w[c], or w[c] ((1-e) t[c] + e/C) for
// probabilities.
namespace convlet::CONVLET_ISA {

struct CrossEntropyRow {
  std::int64_t C;
  const float* logits;
  const float* class_weight;   // (C), or null for 1
  const float* probabilities;  // (C), or null for an integer label
  std::int64_t label;          // where probabilities is null; -1 for an ignored row
  float smoothing;
  float scale;

  bool has_label() const { return probabilities == nullptr; }
  bool has_spread() const { return probabilities || smoothing > 0.0f; }

  float label_weight() const {
    return (1.0f - smoothing) * (class_weight ? class_weight[label] : 1.0f);
  }
  float spread_at_label() const {
    return smoothing / static_cast<float>(C) * (class_weight ? class_weight[label] : 1.0f);
  }
  template <class Lanes>
  V spread(std::int64_t c, Lanes lanes) const {
    V q = broadcast(smoothing / static_cast<float>(C));
    if (probabilities) q = fma(broadcast(1.0f - smoothing), load(probabilities + c, lanes), q);
    return class_weight ? q * load(class_weight + c, lanes) : q;
  }
};

// Writes dlogits and softmax (each may be null) and returns the loss.
inline float cross_entropy_row(const CrossEntropyRow& row, float* dlogits, float* softmax) {
  const std::int64_t C = row.C;
  const float maximum = row_maximum(row.logits, C);
  float weight = 0.0f, loss = 0.0f, label_weight = 0.0f;
  if (row.has_label()) {
    label_weight = row.label_weight();
    weight = label_weight;
    loss = label_weight * (maximum - row.logits[row.label]);
  }
  if (row.has_spread()) {
    weight += row_sum(C, [&](std::int64_t c, auto lanes) { return row.spread(c, lanes); });
    loss += row_sum(C, [&](std::int64_t c, auto lanes) {
      return row.spread(c, lanes) * (broadcast(maximum) - load(row.logits + c, lanes));
    });
  }
  // The exponentials go where the result will be. After this the logits are not read any more, as
  // dlogits may be the same memory.
  float* e = dlogits ? dlogits : softmax;
  const float sum = row_exponentials(row.logits, C, maximum, e);
  loss = row.scale * (loss + weight * logarithm(sum));
  if (!e) return loss;

  const float label_e = dlogits && row.has_label() ? e[row.label] : 0.0f;
  for_vectors(0, C, [&](std::int64_t c, auto lanes) {
    const V p = load(e + c, lanes) / broadcast(sum);
    if (softmax) store(softmax + c, p, lanes);
    if (!dlogits) return;
    V g = p * broadcast(weight);
    if (row.has_spread()) g = g - row.spread(c, lanes);
    store(dlogits + c, broadcast(row.scale) * g, lanes);
  });
  if (dlogits && row.has_label())
    dlogits[row.label] = row.scale * (label_e / sum * weight - label_weight -
                                      (row.has_spread() ? row.spread_at_label() : 0.0f));
  return loss;
}

// The focal loss of a row. With h[c] = q[c] * slope[c]: dl/dz[j] = h[j] - p[j] sum_c h[c].
inline float focal_row(const CrossEntropyRow& row, float gamma, float* dlogits, float* softmax) {
  const float maximum = row_maximum(row.logits, row.C);
  const float log_sum = logarithm(row_exponentials(row.logits, row.C, maximum, nullptr));
  auto log_p = [&](std::int64_t c, auto lanes) {
    return load(row.logits + c, lanes) - broadcast(maximum) - broadcast(log_sum);
  };
  float loss = 0.0f, total = 0.0f, at_label = 0.0f;
  if (row.has_label()) {
    const float label_log_p = row.logits[row.label] - maximum - log_sum;
    const FocalTerm term = focal_term(broadcast(label_log_p), gamma);
    loss = row.label_weight() * first_lane(term.value);
    total = at_label = row.label_weight() * first_lane(term.slope);
  }
  if (row.has_spread()) {
    loss += row_sum(row.C, [&](std::int64_t c, auto lanes) {
      return row.spread(c, lanes) * focal_term(log_p(c, lanes), gamma).value;
    });
    total += row_sum(row.C, [&](std::int64_t c, auto lanes) {
      return row.spread(c, lanes) * focal_term(log_p(c, lanes), gamma).slope;
    });
  }
  if (!dlogits && !softmax) return row.scale * loss;
  for_vectors(0, row.C, [&](std::int64_t c, auto lanes) {
    const V logarithms = log_p(c, lanes), p = exp(logarithms);
    if (softmax) store(softmax + c, p, lanes);
    if (!dlogits) return;
    V g = zero() - p * broadcast(total);
    if (row.has_spread()) g = g + row.spread(c, lanes) * focal_term(logarithms, gamma).slope;
    store(dlogits + c, broadcast(row.scale) * g, lanes);
  });
  if (dlogits && row.has_label()) dlogits[row.label] += row.scale * at_label;
  return row.scale * loss;
}

inline void ignored_row(const CrossEntropyRow& row, float* dlogits, float* softmax) {
  if (softmax) softmax_row(row.logits, row.C, softmax);
  if (dlogits) clear(dlogits, row.C);
}

inline void softmax_cross_entropy(Context& context, const SoftmaxCrossEntropyShape& s,
                                  const float* logits, const void* labels,
                                  const float* class_weight, const float* scale, float* loss,
                                  float* dlogits, float* probabilities) {
  const auto* integers = static_cast<const std::int32_t*>(labels);
  const auto* targets = static_cast<const float*>(labels);
  for_rows(context, {s.N, s.C}, [&](std::int64_t n) {
    const std::int64_t at = n * s.C;
    const CrossEntropyRow row = {s.C,
                                 logits + at,
                                 class_weight,
                                 s.integer_labels ? nullptr : targets + at,
                                 s.integer_labels ? integers[n] : -1,
                                 s.label_smoothing,
                                 (scale ? scale[n] : 1.0f) * s.focal_alpha};
    float* d = dlogits ? dlogits + at : nullptr;
    float* p = probabilities ? probabilities + at : nullptr;
    if (s.integer_labels && integers[n] < 0) {
      ignored_row(row, d, p);
      loss[n] = 0.0f;
    } else {
      loss[n] =
          s.focal_gamma > 0.0f ? focal_row(row, s.focal_gamma, d, p) : cross_entropy_row(row, d, p);
    }
  });
}

}  // namespace convlet::CONVLET_ISA
