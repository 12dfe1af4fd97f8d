// The gradient of a depthwise convolution with respect to the weights: the walk of depthwise.h,
// with dw, which stays in the cache, in the place of sums in registers. The blocks are cut into
// parts that depend on the shape alone; each part has a dw of its own, and the parts are added in
// order.
namespace convlet::CONVLET_ISA {

//   dw[tap, j] += sum over windows of a[window's tap, j] * dy[window, j]
template <int kPixels>
__attribute__((noinline)) void depthwise_weight_tile(const Stretch& s, std::int64_t channels,
                                                     const float* a, const float* dy, float* dw,
                                                     const Below& below) {
  const Steps steps = s.steps;
  const float* p[kPixels];
  CONVLET_UNROLL
  for (int i = 0; i < kPixels; ++i) p[i] = a + i * steps.source;
  for_pairs(channels, [=, &below](std::int64_t j, auto count, auto lanes) {
    constexpr int kVectors = count;
    V gradient[kPixels][kVectors];
    CONVLET_UNROLL
    for (int i = 0; i < kPixels; ++i) CONVLET_UNROLL
    for (int v = 0; v < kVectors; ++v)
      gradient[i][v] = load(dy + i * steps.result + j + v * V::width, lanes);
    for (std::int64_t r = 0; r < steps.rows; ++r) {
      float* to = dw + r * steps.weight_row + j;
      std::int64_t t = r * steps.row + j;
      for (std::int64_t k = 0; k < steps.columns; ++k) {
        CONVLET_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          V sum = load(to + v * V::width, lanes);
          CONVLET_UNROLL
          for (int i = 0; i < kPixels; ++i)
            sum = fma(load(p[i] + t + v * V::width, lanes), gradient[i][v], sum);
          store(to + v * V::width, sum, lanes);
        }
        t += steps.column;
        to += steps.weight_column;
      }
    }
    if (below.source) fetch_below(below, kPixels, j, kVectors * V::width);
  });
}

// As neighbours_tile.
template <int kPixels>
__attribute__((noinline)) void neighbours_weight_tile(const Stretch& s, bool left, bool right,
                                                      std::int64_t channels, const float* a,
                                                      const float* dy, float* dw,
                                                      const Below& below) {
  constexpr int kTaps = 3, kColumns = kPixels + kTaps - 1;
  const Steps steps = s.steps;
  const float* p[kColumns];
  CONVLET_UNROLL
  for (int i = 0; i < kColumns; ++i) p[i] = a + i * steps.source;
  for_pairs(channels, [=, &below](std::int64_t j, auto count, auto lanes) {
    constexpr int kVectors = count;
    V gradient[kPixels][kVectors];
    CONVLET_UNROLL
    for (int i = 0; i < kPixels; ++i) CONVLET_UNROLL
    for (int v = 0; v < kVectors; ++v)
      gradient[i][v] = load(dy + i * steps.result + j + v * V::width, lanes);
    float* to = dw + j;
    std::int64_t t = j;
    for (std::int64_t r = 0; r < steps.rows; ++r) {
      V sum[kTaps][kVectors];
      CONVLET_UNROLL
      for (int k = 0; k < kTaps; ++k) CONVLET_UNROLL
      for (int v = 0; v < kVectors; ++v)
        sum[k][v] = load(to + k * steps.weight_column + v * V::width, lanes);
      CONVLET_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        if ((i == 0 && !left) || (i == kColumns - 1 && !right)) continue;
        CONVLET_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const V x = load(p[i] + t + v * V::width, lanes);
          CONVLET_UNROLL
          for (int k = 0; k < kTaps; ++k)
            if (0 <= i - k && i - k < kPixels) sum[k][v] = fma(x, gradient[i - k][v], sum[k][v]);
        }
      }
      CONVLET_UNROLL
      for (int k = 0; k < kTaps; ++k) CONVLET_UNROLL
      for (int v = 0; v < kVectors; ++v)
        store(to + k * steps.weight_column + v * V::width, sum[k][v], lanes);
      t += steps.row;
      to += steps.weight_row;
    }
    if (below.source) fetch_below(below, kPixels, j, kVectors * V::width);
  });
}

inline void depthwise_backward_weight(Context& context, const Conv2dShape& shape, const float* dy,
                                      const float* x, float* dw, void* memory) {
  if (shape.N == 0) return clear(context, dw, shape.R * shape.S * shape.K);
  const Depthwise d = make_depthwise(shape, Pass::backward_weight, context.threads(), memory);
  const std::int64_t channels = d.channels, image = d.h.result * d.w.result * channels;
  parallel_for(context, d.parts, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    for (std::int64_t part = begin; part < end; ++part) {
      float* to = part == 0 ? dw : d.parts_dw + (part - 1) * d.dw_size;
      clear(to, d.dw_size);
      const std::int64_t last_block = d.blocks.count * (part + 1) / d.parts;
      for (std::int64_t index = d.blocks.count * part / d.parts; index < last_block; ++index) {
        const Block block = block_at(d.windows, d.blocks, index);
        const float* images = images_of(d, block, x, d.copies + worker * d.copy_floats);
        for_each_stretch(d, block, [&](const Stretch& s) {
          for_tiles(s.count, [&](std::int64_t i, auto pixels) {
            const float* a = images + s.source + i * s.steps.source;
            const float* g = dy + block.image * image + s.result + i * s.steps.result;
            const Below below = below_of(d, s, a, g);
            if (d.neighbours)
              neighbours_weight_tile<pixels>(s, i > 0 || d.left, i + pixels < s.count || d.right,
                                             channels, a, g, to + s.weight, below);
            else
              depthwise_weight_tile<pixels>(s, channels, a, g, to + s.weight, below);
          });
        });
      }
    }
  });
  add_parts(context, d.parts, d.dw_size, d.parts_dw, dw);
}

}  // namespace convlet::CONVLET_ISA
