// Sums over whole buffers, in float64 and in a fixed order: the buffer is cut into kReductionParts
// parts of a length that depends on n alone; each part keeps 16 running sums, on every instruction
// set; the parts are added one after the other.
namespace convlet::CONVLET_ISA {

struct Part {
  std::int64_t begin, end;
};
inline Part reduction_part(std::int64_t n, std::int64_t part) {
  const std::int64_t length = (n / kReductionParts / 16 + 1) * 16;
  const std::int64_t begin = part * length, end = begin + length;
  return {begin < n ? begin : n, end < n ? end : n};
}

// f(part) for every part of n elements.
template <class F>
inline void for_parts(Context& context, std::int64_t n, F f) {
  parallel_for(context, kReductionParts, grain_of(n / kReductionParts),
               [&](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t part = begin; part < end; ++part) f(part);
               });
}

// out[0] = sum of f(x[i]), a function of doubles; out[1 + part] are the parts' sums.
template <class F>
inline void reduce(Context& context, std::int64_t n, const float* x, double* out, F f) {
  for_parts(context, n, [=](std::int64_t part) {
    constexpr int kLanes = 16;
    const Part range = reduction_part(n, part);
    double lane[kLanes] = {};
    std::int64_t i = range.begin;
    for (; i + kLanes <= range.end; i += kLanes)
      for (int k = 0; k < kLanes; ++k) lane[k] += f(static_cast<double>(x[i + k]));
    for (int k = 0; i + k < range.end; ++k) lane[k] += f(static_cast<double>(x[i + k]));
    double sum = 0.0;
    for (double value : lane) sum += value;
    out[1 + part] = sum;
  });
  out[0] = 0.0;
  for (int part = 0; part < kReductionParts; ++part) out[0] += out[1 + part];
}

inline void sum(Context& context, std::int64_t n, const float* x, double* out) {
  reduce(context, n, x, out, [](double a) { return a; });
}

inline void sum_of_squares(Context& context, std::int64_t n, const float* x, double* out) {
  reduce(context, n, x, out, [](double a) { return a * a; });
}

inline void regularizer_penalty(Context& context, std::int64_t n, float l1, float l2,
                                const float* p, double* out) {
  const double a1 = l1, a2 = l2;
  reduce(context, n, p, out, [=](double a) { return a1 * std::fabs(a) + a2 * a * a; });
}

inline void regularizer_gradient(Context& context, std::int64_t n, float l1, float l2,
                                 const float* p, float* g) {
  transform(context, n, p, g, g, [=](V a, V gradient) {
    const V sign = select(a > zero(), broadcast(l1), select(a < zero(), broadcast(-l1), zero()));
    return gradient + fma(broadcast(2.0f * l2), a, sign);
  });
}

inline void clip_by_norm(Context& context, std::int64_t n, float limit, const double* squared_norm,
                         float* g) {
  const double factor = static_cast<double>(limit) / std::sqrt(squared_norm[0]);
  if (factor >= 1.0) return;  // NaN goes on and makes every gradient NaN
  transform(context, n, g, g, [=](V a) { return a * broadcast(static_cast<float>(factor)); });
}

inline void step_results(Context&, const ResultCounts& s, const float* weights,
                         const double* values, double* results, std::int32_t* halt) {
  constexpr int kEach = 1 + kReductionParts;
  double total = 0.0;
  for (std::int64_t i = 0; i < s.losses; ++i) total += weights[i] * values[i * kEach];
  for (std::int64_t i = 0; i < s.penalties; ++i)
    total += values[(s.losses + s.metrics + i) * kEach];
  results[0] = total;
  for (std::int64_t i = 0; i < s.losses + s.metrics; ++i) results[1 + i] = values[i * kEach];
  if (halt && !(std::fabs(total) < __builtin_inf())) *halt = 1;
}

inline void first_non_finite(Context& context, std::int64_t n, const float* x, std::int64_t* out) {
  std::int64_t first[kReductionParts];
  for_parts(context, n, [&](std::int64_t part) {
    const Part range = reduction_part(n, part);
    std::int64_t found = -1;
    for (std::int64_t i = range.begin; i < range.end && found < 0; i += V::width) {
      const std::int64_t rest = range.end - i;
      const int lanes = rest < V::width ? static_cast<int>(rest) : V::width;
      const V a = lanes == V::width ? load(x + i) : load_first(x + i, lanes);
      if (!any(is_nan(a * zero()))) continue;
      for (int k = lanes - 1; k >= 0; --k)
        if (!(std::fabs(x[i + k]) < __builtin_inff())) found = i + k;
    }
    first[part] = found;
  });
  *out = -1;
  for (int part = kReductionParts - 1; part >= 0; --part)
    if (first[part] >= 0) *out = first[part];
}

}  // namespace convlet::CONVLET_ISA
