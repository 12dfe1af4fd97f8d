// Depthwise convolution (one channel per group): no sum over channels, so a tile is a few pixels by
// one vector of channels, and a tap is a vector of x times a vector of weights.
namespace convlet::CONVLET_ISA {

// The sum of gemm.h, with a product of channel j of both factors in place of that of matrices:
//   c[rows[i].c + j] = act( bias[j] + sum over runs, t of
//                           a[rows[i].a + run.offset + t * run.stride + j] * w[(run.b + t) *
//                           channels + j] )
template <int kRows>
__attribute__((noinline)) void depthwise_tile(const float* a, const Row* rows, const Run* runs,
                                              std::int64_t run_count, const float* w,
                                              std::int64_t channels, float* c, const float* bias,
                                              Activation activation) {
  const float* p[kRows];
  CONVLET_UNROLL
  for (int i = 0; i < kRows; ++i) p[i] = a + rows[i].a;
  const bool relu = activation == Activation::relu;
  const V least = broadcast(relu ? 0.0f : -__builtin_inff());  // max lets NaN pass
  for_vectors(0, channels, [&](std::int64_t j, auto lanes) {
    const V start = bias ? load(bias + j, lanes) : zero();
    V sum[kRows];
    CONVLET_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i] = start;
    for (const Run* run = runs; run != runs + run_count; ++run) {
      const float* row = w + run->b * channels + j;
      const std::int64_t stride = run->stride, end = run->offset + run->count * stride + j;
      for (std::int64_t t = run->offset + j; t != end; t += stride, row += channels) {
        const V weight = load(row, lanes);
        CONVLET_UNROLL
        for (int i = 0; i < kRows; ++i) sum[i] = fma(load(p[i] + t, lanes), weight, sum[i]);
      }
    }
    CONVLET_UNROLL
    for (int i = 0; i < kRows; ++i) store(c + rows[i].c + j, max(least, sum[i]), lanes);
  });
  if (!relu && activation != Activation::none)
    activate_rows(activation, rows, kRows, c, static_cast<int>(channels));
}

constexpr int kDepthwiseRows = 6;

template <int kRows>
inline void depthwise_tile_of(std::int64_t count, const float* a, const Row* rows, const Run* runs,
                              std::int64_t run_count, const float* w, std::int64_t channels,
                              float* c, const float* bias, Activation activation) {
  if (count == kRows)
    depthwise_tile<kRows>(a, rows, runs, run_count, w, channels, c, bias, activation);
  else if constexpr (kRows > 1)
    depthwise_tile_of<kRows - 1>(count, a, rows, runs, run_count, w, channels, c, bias, activation);
}

// Forward and gradient with respect to the input.
inline void depthwise(Context& context, const Correlation& k, const float* source, const float* w,
                      const float* bias, Activation activation, float* result) {
  const std::int64_t channels = k.result_channels, planes = k.planes;
  if (planes > 1) {
    // Plane j has the weights of every planes-th output channel, from channel j on.
    for (std::int64_t tap = 0; tap < k.h.taps * k.w.taps; ++tap)
      for (std::int64_t j = 0; j < planes; ++j)
        for (std::int64_t c = 0; c < channels; ++c)
          k.weights[(tap * planes + j) * channels + c] = w[(tap * channels + c) * planes + j];
    w = k.weights;
  }
  for_each_region<Float32>(context, k, source, result,
                           [&](const float* images, const Region& region, const Row* rows,
                               std::int64_t row_count, std::int64_t, float* to) {
                             for (std::int64_t i = 0; i < row_count; i += kDepthwiseRows)
                               depthwise_tile_of<kDepthwiseRows>(
                                   smaller(kDepthwiseRows, row_count - i), images, rows + i,
                                   region.runs, region.run_count, w, channels, to, bias,
                                   activation);
                           });
}

// Gradient with respect to the weights, over one block: rows are taps, terms are pixels.
//   dw[rows[i].c + j] (+)= sum over runs, t of
//                          a[rows[i].a + run.offset + t * run.stride + j] * dy[(run.b + t) *
//                          channels + j]
template <int kRows>
__attribute__((noinline)) void depthwise_weight_tile(const float* a, const Row* rows,
                                                     const Run* runs, std::int64_t run_count,
                                                     const float* dy, std::int64_t channels,
                                                     float* dw, bool accumulate) {
  const float* p[kRows];
  CONVLET_UNROLL
  for (int i = 0; i < kRows; ++i) p[i] = a + rows[i].a;
  for_vectors(0, channels, [&](std::int64_t j, auto lanes) {
    V sum[kRows];
    CONVLET_UNROLL
    for (int i = 0; i < kRows; ++i) sum[i] = accumulate ? load(dw + rows[i].c + j, lanes) : zero();
    for (const Run* run = runs; run != runs + run_count; ++run) {
      const float* g = dy + run->b * channels + j;
      const std::int64_t stride = run->stride, end = run->offset + run->count * stride + j;
      for (std::int64_t t = run->offset + j; t != end; t += stride, g += channels) {
        const V gradient = load(g, lanes);
        CONVLET_UNROLL
        for (int i = 0; i < kRows; ++i) sum[i] = fma(load(p[i] + t, lanes), gradient, sum[i]);
      }
    }
    CONVLET_UNROLL
    for (int i = 0; i < kRows; ++i) store(dw + rows[i].c + j, sum[i], lanes);
  });
}

constexpr int kDepthwiseTaps = 9;

template <int kRows>
inline void depthwise_weight_tile_of(std::int64_t count, const float* a, const Row* rows,
                                     const Run* runs, std::int64_t run_count, const float* dy,
                                     std::int64_t channels, float* dw, bool accumulate) {
  if (count == kRows)
    depthwise_weight_tile<kRows>(a, rows, runs, run_count, dy, channels, dw, accumulate);
  else if constexpr (kRows > 1)
    depthwise_weight_tile_of<kRows - 1>(count, a, rows, runs, run_count, dy, channels, dw,
                                        accumulate);
}

inline void depthwise_weight(const float* a, const Row* rows, std::int64_t row_count,
                             const Run* runs, std::int64_t run_count, const float* dy,
                             std::int64_t channels, float* dw, bool accumulate) {
  for (std::int64_t done = 0; done < row_count; done += kDepthwiseTaps)
    depthwise_weight_tile_of<kDepthwiseTaps>(smaller(kDepthwiseTaps, row_count - done), a,
                                             rows + done, runs, run_count, dy, channels, dw,
                                             accumulate);
}

}  // namespace convlet::CONVLET_ISA
