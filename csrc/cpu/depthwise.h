// Depthwise convolution (one channel per group): no sum over input channels, so vectors go across
// the channels and a tap is a vector of the source times a vector of weights. That is little work
// for each value: memory and caches set the pace. So the rows of windows come in the order in which
// they lie in memory, a few neighbouring windows at a time, and the source is read where it is: a
// row comes from memory once and is in the cache for the other windows that see it. Windows at the
// border leave out the taps that fall into the padding.
//
// Forward and the gradient with respect to the input, a correlation with the weights turned (see
// correlation.h), are one body. Where a channel has several output channels, or windows so wide
// that most pixels lie at a border, blocks of the source are copied with their padding: forward
// with each channel repeated, backward with a plane for each output channel of an input channel.
namespace convlet::CONVLET_ISA {

// Depthwise: a group has one input channel, and so few output channels that the tiles of gemm.h,
// which take vectors of a group's channels, would be mostly empty.
inline bool is_depthwise(const Conv2dShape& s) {
  return s.groups > 1 && s.groups == s.C && s.K / s.C < V::width;
}

// The tiles are sums of so many neighbouring windows, or fewer, for pairs of vectors: whole lines
// of the cache, where these compete for the same few places in it.
constexpr int kDepthwisePixels = 4;

// Along an axis: windows [begin, end) meet the same taps. Distances are in floats.
struct TapLine {
  std::int64_t begin, end;
  std::int64_t result;  // window i makes result row or column result + i * the axis' result_step
  std::int64_t taps;
  std::int64_t source, source_step;  // from where a window starts to its first tap, and to the next
  std::int64_t weight, weight_step;  // of the first tap, and to that of the next
};

struct Depthwise {
  Axis h, w;
  Windows windows;
  Blocks blocks;
  Pitch pitch;
  std::int64_t channels;  // across which vectors go: K, or C in the gradient of the input
  std::int64_t multiplier, planes, plane;  // plane: from one to the next, in floats
  bool copied;
  bool neighbours, left, right;  // see neighbours_tile
  bool fetches, streams;
  std::int64_t copy_floats;
  std::int64_t parts, dw_size;  // of the gradient of the weights
  std::int64_t row_lines, column_lines;
  TapLine *rows, *columns;
  float* weights;  // in plane order, if there are planes
  float* copies;
  float* parts_dw;    // of parts 1, 2, ...
  std::size_t bytes;  // of workspace
};

// Lists the lines of an axis, or only counts them.
inline std::int64_t list_taps(const Axis& axis, bool trim, std::int64_t pitch, std::int64_t weight,
                              TapLine* lines) {
  std::int64_t count = 0;
  for_each_band(axis, trim, [&](const Band& band) {
    const std::int64_t first = axis.offset_of(band.tap);
    const std::int64_t next = axis.offset_of(band.tap + band.tap_step);
    if (lines)
      lines[count] = {band.begin,        band.end,
                      band.first,        band.taps,
                      first * pitch,     (next - first) * pitch,
                      band.tap * weight, band.tap_step * weight};
    ++count;
  });
  return count;
}

// Whether border windows are better left their missing taps: in multiply-adds for a row of windows,
// where a tile takes as long as a full one, and copying a pixel as long as some taps.
inline bool worth_trimming(const Axis& h, const Axis& w) {
  constexpr std::int64_t kCopied = 6;
  if (h.taps > kMostTrimmedTaps || w.taps > kMostTrimmedTaps) return false;
  auto cost = [&](bool trim) {
    std::int64_t sum = 0;
    for_each_band(w, trim, [&](const Band& band) {
      sum += h.taps * band.taps * ceil_div(band.end - band.begin, kDepthwisePixels);
    });
    return sum * kDepthwisePixels;
  };
  return cost(true) <= cost(false) + kCopied * h.step * w.source;
}

// Beyond this, tensors come from memory. The hardware sees by itself what comes next where a tile's
// windows are next to each other in memory, but not so well where they lie further apart than this.
constexpr std::int64_t kCacheFloats = 8 << 20, kFetchedStep = 64;

// Windows that are two pixels apart meet more lines at once than the hardware follows. Copied
// first, line by line, large images with pixels shorter than this take half the time (56x56x144).
constexpr std::int64_t kShortPixel = 512, kImageFloats = 128 << 10;

inline Depthwise make_depthwise(const Conv2dShape& s, Pass pass, int threads, void* memory) {
  Depthwise d = {};
  const bool forward = pass != Pass::backward_input, weight = pass == Pass::backward_weight;
  d.h = make_axis(forward, s.H, s.P, s.R, s.stride_h, s.dilation_h, s.pad_top);
  d.w = make_axis(forward, s.W, s.Q, s.S, s.stride_w, s.dilation_w, s.pad_left);
  d.windows = {s.N,         d.h.source,  d.w.source, forward ? s.C : s.K,
               d.h.windows, d.w.windows, d.h.origin, d.w.origin,
               d.h.step,    d.w.step,    d.h.extent, d.w.extent};
  d.channels = forward ? s.K : s.C;
  d.multiplier = s.K / s.C;
  d.planes = forward ? 1 : d.multiplier;
  d.dw_size = s.R * s.S * s.K;
  const std::int64_t parts = weight ? most_parts(s.N * s.P * s.Q, d.dw_size) : 1;
  const std::int64_t remainders = d.h.remainders() * d.w.remainders();
  d.blocks =
      cut_into_blocks(d.windows, remainders * d.channels, kBlockBytes, weight ? parts : threads);
  d.parts = smaller(parts, larger(1, d.blocks.count));

  // Three taps and windows that are one pixel apart, of which at most one at each border is
  // padding.
  const Windows& w = d.windows;
  const std::int64_t beyond = w.origin_w + w.span_w() - w.width;
  const bool spread = d.multiplier > 1;
  const bool threes = s.S == 3 && s.stride_w == 1 && s.dilation_w == 1 && !spread;
  d.neighbours = threes && w.origin_w >= -1 && beyond <= 1;
  const bool strided =
      w.step_w > 1 && d.channels < kShortPixel && w.height * w.width * d.channels > kImageFloats;
  d.copied = spread || strided || (w.padded() && !d.neighbours && !worth_trimming(d.h, d.w));
  d.left = w.origin_w >= 0;
  d.right = beyond <= 0;
  d.pitch = d.copied ? copy_pitch(w, d.blocks, d.channels) : source_pitch(w);
  d.plane = d.copied ? d.blocks.images * d.pitch.image : 0;
  d.copy_floats = d.planes * d.plane;
  const std::int64_t floats = s.N * (s.H * s.W * s.C + s.P * s.Q * s.K);
  d.fetches = floats > kCacheFloats && w.step_w * d.channels > kFetchedStep && !d.copied &&
              (forward || s.stride_h * s.stride_w == 1);

  const bool trim_h = !d.copied, trim_w = !d.copied && !d.neighbours;
  d.row_lines = list_taps(d.h, trim_h, 0, 0, nullptr);
  d.column_lines = list_taps(d.w, trim_w, 0, 0, nullptr);
  Workspace workspace(memory);
  d.rows = workspace.take<TapLine>(d.row_lines);
  d.columns = workspace.take<TapLine>(d.column_lines);
  d.weights = workspace.take<float>(d.planes > 1 ? d.dw_size : 0);
  d.copies = workspace.take<float>(d.copy_floats * threads);
  d.parts_dw = workspace.take<float>((d.parts - 1) * d.dw_size);
  d.bytes = workspace.bytes();
  if (memory) {
    list_taps(d.h, trim_h, d.pitch.row, s.S * s.K, d.rows);
    list_taps(d.w, trim_w, d.pitch.pixel, s.K, d.columns);
  }
  return d;
}

// Where the windows of a block start: in the source (maybe in the padding, where no tap reads), or
// in a copy made here.
inline const float* images_of(const Depthwise& d, const Block& block, const float* source,
                              float* to) {
  const Windows& w = d.windows;
  if (!d.copied)
    return source +
           ((block.image * w.height + block.row * w.step_h + w.origin_h) * w.width + w.origin_w) *
               w.channels;
  const std::int64_t m = d.multiplier;
  for (std::int64_t plane = 0; plane < d.planes; ++plane)
    copy_block(w, block, d.pitch, source, to + plane * d.plane,
               [&](const float* from, float* at, std::int64_t pixels) {
                 const std::int64_t n = pixels * d.channels;
                 if (m == 1)
                   copy(at, from, n);
                 else if (d.planes == 1)
                   for (std::int64_t c = 0; c < n; ++c) at[c] = from[c / m];
                 else
                   for (std::int64_t c = 0; c < n; ++c) at[c] = from[c * m + plane];
               });
  return to;
}

// How a tile walks, in floats, and what its windows have in common.
struct Steps {
  std::int64_t source, result;             // from a window to the next
  std::int64_t planes, rows, columns;      // of taps
  std::int64_t plane, row, column;         // from a tap to the next, in the source
  std::int64_t weight_row, weight_column;  // and in the weights
  bool streams;                            // the result goes past the cache
};

// Windows of one row that meet the same taps.
struct Stretch {
  Steps steps;
  std::int64_t count;
  std::int64_t source;  // where the first tap of the first window reads
  std::int64_t result;  // what it makes, relative to the first image of the block
  std::int64_t weight;
};

// f(stretch) for all windows of a block, row by row.
template <class F>
inline void for_each_stretch(const Depthwise& d, const Block& block, F&& f) {
  for (std::int64_t n = 0; n < block.images; ++n)
    for (std::int64_t i = block.row; i < block.row + block.rows; ++i)
      for (const TapLine* r = d.rows; r != d.rows + d.row_lines; ++r) {
        if (i < r->begin || i >= r->end) continue;
        const std::int64_t line = (n * d.h.result + r->result + i * d.h.result_step) * d.w.result;
        for (const TapLine* c = d.columns; c != d.columns + d.column_lines; ++c) {
          const Steps steps = {d.windows.step_w * d.pitch.pixel,
                               d.w.result_step * d.channels,
                               d.planes,
                               r->taps,
                               c->taps,
                               d.plane,
                               r->source_step,
                               c->source_step,
                               r->weight_step,
                               c->weight_step,
                               d.streams};
          f(Stretch{steps, c->end - c->begin,
                    d.pitch.window(d.windows, n, i - block.row, c->begin) + r->source + c->source,
                    (line + c->result + c->begin * d.w.result_step) * d.channels,
                    r->weight + c->weight});
        }
      }
}

// What the windows below a tile are the first to see: of the source `rows` rows, in each `columns`
// pixels for each window, and a row of the result. Null where the hardware fetches it by itself, or
// it goes past the cache.
struct Below {
  const float *source, *result;
  std::int64_t rows, row, columns;
};
inline Below below_of(const Depthwise& d, const Stretch& s, const float* a, const float* c) {
  if (!d.fetches) return {};
  return {a + s.steps.rows * s.steps.row, d.streams ? nullptr : c + d.w.result * d.channels,
          d.windows.step_h, d.pitch.row, d.windows.step_w};
}

// f(c, count, lanes) for groups of `count` vectors of channels, 2 or 1.
template <class F>
inline void for_pairs(std::int64_t channels, F f) {
  using One = std::integral_constant<int, 1>;
  using Two = std::integral_constant<int, 2>;
  std::int64_t c = 0;
  for (; c + 2 * V::width <= channels; c += 2 * V::width) f(c, Two(), All());
  for_vectors(c, channels, [&](std::int64_t i, auto lanes) { f(i, One(), lanes); });
}

// f(window, constant) for tiles of nearly equal size that cover `count` windows.
template <int kMost, class F>
inline void with_count(std::int64_t n, F&& f) {
  if (n == kMost)
    f(std::integral_constant<int, kMost>());
  else if constexpr (kMost > 1)
    with_count<kMost - 1>(n, f);
}
template <class F>
inline void for_tiles(std::int64_t count, F&& f) {
  const std::int64_t tiles = ceil_div(count, kDepthwisePixels);
  for (std::int64_t t = 0, i = 0; t < tiles; ++t) {
    const std::int64_t n = count / tiles + (t < count % tiles);
    with_count<kDepthwisePixels>(n, [&](auto pixels) { f(i, pixels); });
    i += n;
  }
}

// Asks for the lines that the windows below a tile are the first to see, evenly: with channels
// [j, j + floats) of the tile as many of the lines below, in the order in which they lie in memory.
inline void fetch_below(const Below& below, int pixels, std::int64_t j, int floats) {
  const std::int64_t step = below.columns * pixels;
  for (std::int64_t r = 0; r < below.rows; ++r)
    for (std::int64_t i = 0; i < step * floats; i += kLineFloats)
      fetch_early(below.source + r * below.row + step * j + i);
  if (!below.result) return;
  for (int i = 0; i < pixels * floats; i += kLineFloats) fetch_early(below.result + pixels * j + i);
}

//   c[window, j] = act( bias[j] + sum over planes, taps of a[window's tap, j] * w[tap, j] )
template <int kPixels>
__attribute__((noinline)) void depthwise_tile(const Stretch& s, std::int64_t channels,
                                              const float* a, const float* w, const float* bias,
                                              V least, float* c, const Below& below) {
  const Steps steps = s.steps;
  const float* p[kPixels];
  CONVLET_UNROLL
  for (int i = 0; i < kPixels; ++i) p[i] = a + i * steps.source;
  for_pairs(channels, [=, &below](std::int64_t j, auto count, auto lanes) {
    constexpr int kVectors = count;
    V sum[kPixels][kVectors];
    CONVLET_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const V start = bias ? load(bias + j + v * V::width, lanes) : zero();
      CONVLET_UNROLL
      for (int i = 0; i < kPixels; ++i) sum[i][v] = start;
    }
    for (std::int64_t plane = 0; plane < steps.planes; ++plane)
      for (std::int64_t r = 0; r < steps.rows; ++r) {
        const float* weights = w + plane * channels + r * steps.weight_row + j;
        std::int64_t t = plane * steps.plane + r * steps.row + j;
        for (std::int64_t k = 0; k < steps.columns; ++k) {
          CONVLET_UNROLL
          for (int v = 0; v < kVectors; ++v) {
            const V weight = load(weights + v * V::width, lanes);
            CONVLET_UNROLL
            for (int i = 0; i < kPixels; ++i)
              sum[i][v] = fma(load(p[i] + t + v * V::width, lanes), weight, sum[i][v]);
          }
          t += steps.column;
          weights += steps.weight_column;
        }
      }
    if (below.source) fetch_below(below, kPixels, j, kVectors * V::width);
    CONVLET_UNROLL
    for (int i = 0; i < kPixels; ++i) CONVLET_UNROLL
    for (int v = 0; v < kVectors; ++v)
      store(c + i * steps.result + j + v * V::width, max(least, sum[i][v]), lanes, steps.streams);
  });
}

// The same for three taps in a row, where windows and taps are one pixel apart: each column of the
// source is read once, for the windows that meet in it. The first column is in the image or copy if
// `left`, the last if `right`.
template <int kPixels>
__attribute__((noinline)) void neighbours_tile(const Stretch& s, bool left, bool right,
                                               std::int64_t channels, const float* a,
                                               const float* w, const float* bias, V least, float* c,
                                               const Below& below) {
  constexpr int kTaps = 3, kColumns = kPixels + kTaps - 1;
  const Steps steps = s.steps;
  const float* p[kColumns];
  CONVLET_UNROLL
  for (int i = 0; i < kColumns; ++i) p[i] = a + i * steps.source;
  for_pairs(channels, [=, &below](std::int64_t j, auto count, auto lanes) {
    constexpr int kVectors = count;
    V sum[kPixels][kVectors];
    CONVLET_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      const V start = bias ? load(bias + j + v * V::width, lanes) : zero();
      CONVLET_UNROLL
      for (int i = 0; i < kPixels; ++i) sum[i][v] = start;
    }
    const float* weights = w + j;
    std::int64_t t = j;
    for (std::int64_t r = 0; r < steps.rows; ++r) {
      V weight[kTaps][kVectors];
      CONVLET_UNROLL
      for (int k = 0; k < kTaps; ++k) CONVLET_UNROLL
      for (int v = 0; v < kVectors; ++v)
        weight[k][v] = load(weights + k * steps.weight_column + v * V::width, lanes);
      CONVLET_UNROLL
      for (int i = 0; i < kColumns; ++i) {
        if ((i == 0 && !left) || (i == kColumns - 1 && !right)) continue;
        CONVLET_UNROLL
        for (int v = 0; v < kVectors; ++v) {
          const V x = load(p[i] + t + v * V::width, lanes);
          CONVLET_UNROLL
          for (int k = 0; k < kTaps; ++k)
            if (0 <= i - k && i - k < kPixels) sum[i - k][v] = fma(x, weight[k][v], sum[i - k][v]);
        }
      }
      t += steps.row;
      weights += steps.weight_row;
    }
    if (below.source) fetch_below(below, kPixels, j, kVectors * V::width);
    CONVLET_UNROLL
    for (int i = 0; i < kPixels; ++i) CONVLET_UNROLL
    for (int v = 0; v < kVectors; ++v)
      store(c + i * steps.result + j + v * V::width, max(least, sum[i][v]), lanes, steps.streams);
  });
}

// What the tiles do with the result, and what they leave to be done.
inline bool of_a_tile(Activation activation) {
  return activation == Activation::none || activation == Activation::relu;
}
inline void activate_pixels(Activation activation, std::int64_t count, std::int64_t step,
                            std::int64_t channels, float* c) {
  if (of_a_tile(activation)) return;
  for (std::int64_t i = 0; i < count; ++i)
    for_vectors(0, channels, [=](std::int64_t j, auto lanes) {
      float* p = c + i * step + j;
      store(p, activate(activation, load(p, lanes)), lanes);
    });
}

// Weights (taps, C, planes) in the order (taps, planes, C).
inline const float* in_plane_order(const Depthwise& d, const float* w) {
  if (d.planes == 1) return w;
  for (std::int64_t i = 0; i < d.dw_size; i += d.planes * d.channels)
    for (std::int64_t j = 0; j < d.planes; ++j)
      for (std::int64_t c = 0; c < d.channels; ++c)
        d.weights[i + j * d.channels + c] = w[i + c * d.planes + j];
  return d.weights;
}

// Forward and gradient with respect to the input.
inline void depthwise(Context& context, const Conv2dShape& shape, Pass pass, const float* source,
                      const float* w, const float* bias, Activation activation, float* result,
                      void* memory) {
  Depthwise d = make_depthwise(shape, pass, context.threads(), memory);
  const std::int64_t channels = d.channels, image = d.h.result * d.w.result * channels;
  d.streams = of_a_tile(activation) && worth_streaming(result, d.windows.images * image, channels);
  if (!d.h.covered() || !d.w.covered()) clear(context, result, d.windows.images * image);
  w = in_plane_order(d, w);
  // max lets NaN pass.
  const V least = broadcast(activation == Activation::relu ? 0.0f : -__builtin_inff());
  parallel_for(context, d.blocks.count, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    for (std::int64_t index = begin; index < end; ++index) {
      const Block block = block_at(d.windows, d.blocks, index);
      const float* images = images_of(d, block, source, d.copies + worker * d.copy_floats);
      for_each_stretch(d, block, [&](const Stretch& s) {
        const float* from = images + s.source;
        float* to = result + block.image * image + s.result;
        for_tiles(s.count, [&](std::int64_t i, auto pixels) {
          const float* a = from + i * s.steps.source;
          float* c = to + i * s.steps.result;
          const Below below = below_of(d, s, a, c);
          if (d.neighbours)
            neighbours_tile<pixels>(s, i > 0 || d.left, i + pixels < s.count || d.right, channels,
                                    a, w + s.weight, bias, least, c, below);
          else
            depthwise_tile<pixels>(s, channels, a, w + s.weight, bias, least, c, below);
        });
        activate_pixels(activation, s.count, s.steps.result, channels, to);
      });
    }
    if (d.streams) finish_streaming();
  });
}

}  // namespace convlet::CONVLET_ISA
