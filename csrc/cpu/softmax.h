// softmax and log_softmax over rows, and their gradients (formulas in ops/softmax.h). A row is read
// once from memory; the later passes over it find it in the cache. A row with NaN or +inf, or with
// nothing but -inf, comes out as NaN.
namespace convlet::CONVLET_ISA {

// f(n) for every row. An element counts as four cheap ones: it takes an exponential.
template <class F>
inline void for_rows(Context& context, const RowsShape& s, F f) {
  parallel_for(context, s.N, grain_of(4 * s.C), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t n = begin; n < end; ++n) f(n);
  });
}

// NaN may be lost.
inline float row_maximum(const float* x, std::int64_t n) {
  const V lowest = broadcast(-__builtin_inff());
  V best = lowest;
  for_vectors(0, n, [&](std::int64_t i, auto lanes) {
    best = max(keep(load(x + i, lanes), lowest, lanes), best);
  });
  return max_of_lanes(best);
}

// Terms that are added one after another: long rows are added in pieces, whose rounding errors do
// not grow with the row.
constexpr std::int64_t kRowPiece = 1024;

// The sum of f(i, lanes) over one row.
template <class F>
inline float row_sum(std::int64_t n, F f) {
  V sum = zero();
  for (std::int64_t begin = 0; begin < n; begin += kRowPiece) {
    V piece = zero();
    for_vectors(begin, std::min(n, begin + kRowPiece), [&](std::int64_t i, auto lanes) {
      piece = piece + keep(f(i, lanes), zero(), lanes);
    });
    sum = sum + piece;
  }
  return sum_of_lanes(sum);
}

// The sum of e^(x - maximum); the terms go to y unless it is null.
inline float row_exponentials(const float* x, std::int64_t n, float maximum, float* y) {
  return row_sum(n, [=](std::int64_t i, auto lanes) {
    const V e = exp_negative(load(x + i, lanes) - broadcast(maximum));
    if (y) store(y + i, e, lanes);
    return e;
  });
}

inline float logarithm(float x) {
  return first_lane(log(broadcast(x)));
}

inline void softmax_row(const float* x, std::int64_t n, float* y) {
  const float sum = row_exponentials(x, n, row_maximum(x, n), y);
  for_vectors(0, n, [=](std::int64_t i, auto lanes) {
    store(y + i, load(y + i, lanes) / broadcast(sum), lanes);
  });
}

inline void log_softmax_row(const float* x, std::int64_t n, float* y) {
  const float maximum = row_maximum(x, n);
  const float log_sum = logarithm(row_exponentials(x, n, maximum, nullptr));
  for_vectors(0, n, [=](std::int64_t i, auto lanes) {
    store(y + i, (load(x + i, lanes) - broadcast(maximum)) - broadcast(log_sum), lanes);
  });
}

inline void softmax_backward_row(const float* dy, const float* y, std::int64_t n, float* dx) {
  const float sum = row_sum(
      n, [=](std::int64_t i, auto lanes) { return load(dy + i, lanes) * load(y + i, lanes); });
  for_vectors(0, n, [=](std::int64_t i, auto lanes) {
    store(dx + i, load(y + i, lanes) * (load(dy + i, lanes) - broadcast(sum)), lanes);
  });
}

inline void log_softmax_backward_row(const float* dy, const float* y, std::int64_t n, float* dx) {
  const float sum = row_sum(n, [=](std::int64_t i, auto lanes) { return load(dy + i, lanes); });
  for_vectors(0, n, [=](std::int64_t i, auto lanes) {
    store(dx + i, load(dy + i, lanes) - exp(load(y + i, lanes)) * broadcast(sum), lanes);
  });
}

inline void softmax(Context& context, const RowsShape& s, const float* x, float* y) {
  for_rows(context, s, [&](std::int64_t n) { softmax_row(x + n * s.C, s.C, y + n * s.C); });
}

inline void log_softmax(Context& context, const RowsShape& s, const float* x, float* y) {
  for_rows(context, s, [&](std::int64_t n) { log_softmax_row(x + n * s.C, s.C, y + n * s.C); });
}

inline void softmax_backward(Context& context, const RowsShape& s, const float* dy, const float* y,
                             float* dx) {
  for_rows(context, s, [&](std::int64_t n) {
    softmax_backward_row(dy + n * s.C, y + n * s.C, s.C, dx + n * s.C);
  });
}

inline void log_softmax_backward(Context& context, const RowsShape& s, const float* dy,
                                 const float* y, float* dx) {
  for_rows(context, s, [&](std::int64_t n) {
    log_softmax_backward_row(dy + n * s.C, y + n * s.C, s.C, dx + n * s.C);
  });
}

}  // namespace convlet::CONVLET_ISA
