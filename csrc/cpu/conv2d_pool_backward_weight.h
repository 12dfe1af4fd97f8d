// conv2d_pool's gradient with respect to the weights where the pooling's windows are 2x2. One of a
// window's four pixels has a gradient, another one for each channel k:
//   dw[r,s,c,k] = sum over n and windows (a,b) of dy[n,a,b,k] * x[n, place of the pixel that k
//   chose
//                 in (a,b), moved by tap (r,s), c]
// The images of a block are copied as quads: for each place the four values that the pixels of a
// window see from there. A vector of channels picks its values out of a quad, which is one shuffle,
// and multiplies once where a sum over pixels multiplies four times, three times by zero.
//
// As in conv2d_backward_weight.h the rows of the tiles are the taps (r,s,c), and the blocks are cut
// into parts that depend on the shape alone.
namespace convlet::CONVLET_ISA {

constexpr float kClosed = kNoChoice;

inline bool picks_weight_gradient(const Conv2dPoolShape& s) {
  return s.pool.R == 2 && s.pool.S == 2;
}

struct PickedWeights {
  Windows windows;  // of the convolution
  Blocks blocks;    // of whole windows of the pooling
  Pitch pitch;      // of the images, or of their padded copy
  // Quads lie in planes of a few channels, so that all taps of a plane find its block in the
  // first-level cache: of four channels, or of all where there are not more.
  std::int64_t plane_channels, planes;
  Pitch quads;  // within a plane, in floats
  std::int64_t plane_floats;
  bool copied;
  std::int64_t copy_floats, quad_floats, block_windows;  // per worker
  Panels panels;
  std::int64_t parts, panel_chunks;
  std::int64_t row_count, dw_size;

  Row* rows;
  float* parts_dw;  // of parts 1, 2, ...
  float* copies;
  float* block_quads;
  std::int64_t* offsets;  // of a block's windows
  float* gradients;       // of a stretch of windows, a panel of channels
  std::int32_t* picks;
  std::size_t bytes;
};

// Windows are taken this many at a time, so that their gradients stay in the first-level cache
// while all taps pass by.
constexpr std::int64_t kPickedWindows = smaller(112, 16384 / (2 * kPanel * sizeof(float)));

inline PickedWeights make_picked_weights(const Conv2dPoolShape& shape, int threads, void* memory) {
  const Conv2dShape& s = shape.conv;
  PickedWeights g;
  g.windows = windows_of_images(s);
  g.panels = {s.K};
  g.row_count = s.R * s.S * s.C;
  g.dw_size = g.row_count * s.K;
  constexpr std::int64_t kBytes = sizeof(float);
  const std::int64_t dw_bytes = kBytes * g.dw_size, x_bytes = kBytes * s.N * s.H * s.W * s.C;
  // Copies of dw take a quarter of x's memory at most: a step of a small batch should not need more
  // of it for them than for its activations.
  const std::int64_t parts =
      most_parts(s.N * s.P * s.Q, g.dw_size, smaller(kPartsBytes, dw_bytes + x_bytes / 4));
  Windows of_quads = g.windows;
  of_quads.channels = 4 * s.C;
  g.blocks = cut_into_blocks(of_quads, ceil_div(s.K, 2), larger(kBlockBytes, dw_bytes / 4), parts,
                             shape.pool.R);
  g.parts = smaller(parts, larger(1, g.blocks.count));
  g.panel_chunks = chunks_of_parts(g.parts, g.panels.count(), threads);

  g.copied = g.windows.padded();
  g.pitch = g.copied ? copy_pitch(g.windows, g.blocks, s.C) : source_pitch(g.windows);
  g.copy_floats = g.copied ? g.blocks.images * g.pitch.image : 0;
  g.plane_channels = smaller(4, s.C);
  const std::int64_t line = 4 * g.plane_channels * (g.windows.span_w() - s.stride_w);
  g.quads = {4 * g.plane_channels, line, line * (g.windows.span_h(g.blocks.rows) - s.stride_h)};
  g.plane_floats = g.blocks.images * g.quads.image;
  // Whole vectors are stored: some more planes, or the end of the last line.
  g.planes = s.C > 4 ? ceil_div(s.C, V::width) * ceil_div(V::width, 4) : 1;
  g.quad_floats = g.planes * g.plane_floats + 4 * V::width;
  g.block_windows = g.blocks.images * (g.blocks.rows / shape.pool.R) * shape.pool.Q;

  const std::int64_t panel_floats = kPickedWindows * kPanel * threads;
  Workspace workspace(memory);
  g.rows = workspace.take<Row>(g.row_count);
  g.parts_dw = workspace.take<float>((g.parts - 1) * g.dw_size);
  g.copies = workspace.take<float>(g.copy_floats * threads);
  g.block_quads = workspace.take<float>(g.quad_floats * threads);
  g.offsets = workspace.take<std::int64_t>(g.block_windows * threads);
  g.gradients = workspace.take<float>(panel_floats);
  g.picks = workspace.take<std::int32_t>(panel_floats);
  g.bytes = workspace.bytes();

  if (memory) {
    Row* row = g.rows;
    for (std::int64_t first = 0; first < s.C; first += g.plane_channels)
      for (std::int64_t tap = 0; tap < s.R * s.S; ++tap)
        for (std::int64_t c = first; c < smaller(s.C, first + g.plane_channels); ++c, ++row)
          *row = {first / g.plane_channels * g.plane_floats +
                      tap / s.S * s.dilation_h * g.quads.row +
                      tap % s.S * s.dilation_w * g.quads.pixel + 4 * (c - first),
                  (tap * s.C + c) * s.K};
  }
  return g;
}

// c[rows[i].c + j], or what is added to it, = sum over windows w of
//   quads[rows[i].a + offsets[w] + picks[w * width + j]] * gradients[w * width + j].
template <int kRows, int kVectors>
__attribute__((noinline)) void picked_tile(const float* quads, const Row* rows,
                                           const std::int64_t* offsets, std::int64_t windows,
                                           const float* gradients, const std::int32_t* picks,
                                           float* c, int columns, bool accumulate) {
  V sum[kRows][kVectors];
  const float* p[kRows];
  CONVLET_UNROLL
  for (int i = 0; i < kRows; ++i) {
    p[i] = quads + rows[i].a;
    CONVLET_UNROLL
    for (int j = 0; j < kVectors; ++j) sum[i][j] = zero();
  }
  for (std::int64_t w = 0; w < windows; ++w) {
    const std::int64_t at = offsets[w];
    V gradient[kVectors];
    Picks picked[kVectors];
    CONVLET_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      gradient[j] = load(gradients + j * V::width);
      picked[j] = load_picks(picks + j * V::width);
    }
    CONVLET_UNROLL
    for (int i = 0; i < kRows; ++i) {
      const V quad = broadcast_quad(p[i] + at);
      CONVLET_UNROLL
      for (int j = 0; j < kVectors; ++j)
        sum[i][j] = fma(pick(quad, picked[j]), gradient[j], sum[i][j]);
    }
    gradients += kVectors * V::width;
    picks += kVectors * V::width;
  }
  if (accumulate)
    for_sums(sum, rows, columns,
             [=](V& y, std::int64_t at, auto lanes) { y = load(c + at, lanes) + y; });
  for_sums(sum, rows, columns, [=](V& y, std::int64_t at, auto lanes) { store(c + at, y, lanes); });
}

// Sums, and for each column a gradient and the picks, in registers, beside a quad and what is
// picked.
constexpr int picked_rows(int vectors) {
  const int rows = (kVectorRegisters - 2 - 2 * vectors) / vectors;
  return rows < 6 ? rows : 6;
}

template <int kRows, int kVectors, class... Arguments>
inline void picked_tile_of(int count, const float* quads, const Row* rows, Arguments... arguments) {
  if (count == kRows)
    picked_tile<kRows, kVectors>(quads, rows, arguments...);
  else if constexpr (kRows > 1)
    picked_tile_of<kRows - 1, kVectors>(count, quads, rows, arguments...);
}

// All rows, in tiles of nearly equal height.
template <int kVectors, class... Arguments>
inline void multiply_picked(const float* quads, const Row* rows, std::int64_t row_count,
                            Arguments... arguments) {
  constexpr int kRows = picked_rows(kVectors);
  const std::int64_t tiles = ceil_div(row_count, kRows);
  for (std::int64_t t = 0; t < tiles; ++t) {
    const int count = static_cast<int>(row_count / tiles + (t < row_count % tiles));
    picked_tile_of<kRows, kVectors>(count, quads, rows, arguments...);
    rows += count;
  }
}

// The first window of a block in its images: in x, or with their padding in a copy made here.
inline const float* images_of(const PickedWeights& g, const Block& block, const float* x,
                              float* to) {
  const Windows& w = g.windows;
  if (!g.copied)
    return x +
           ((block.image * w.height + block.row * w.step_h + w.origin_h) * w.width + w.origin_w) *
               w.channels;
  copy_block(w, block, g.pitch, x, to, [&](const float* from, float* at, std::int64_t pixels) {
    copy(at, from, pixels * w.channels);
  });
  return to;
}

// The quads of a block, from its first window on.
inline void make_quads(const PickedWeights& g, const Block& block, const float* x, float* quads) {
  const Windows& w = g.windows;
  const std::int64_t C = w.channels, pixels = w.span_w() - w.step_w;
  const std::int64_t right = w.step_w * C, below = w.step_h * g.pitch.row;
  for (std::int64_t n = 0; n < block.images; ++n)
    for (std::int64_t i = 0; i < w.span_h(block.rows) - w.step_h; ++i) {
      const float* line = x + n * g.pitch.image + i * g.pitch.row;
      float* to = quads + n * g.quads.image + i * g.quads.row;
      auto put = [&](const float* from, float* first, std::int64_t stride, auto lanes) {
        store_quads(first, stride, load(from, lanes), load(from + right, lanes),
                    load(from + below, lanes), load(from + below + right, lanes));
      };
      if (g.planes == 1)
        for_vectors(0, pixels * C,
                    [&](std::int64_t j, auto lanes) { put(line + j, to + 4 * j, 16, lanes); });
      else
        for (std::int64_t j = 0; j < pixels; ++j)
          for_vectors(0, C, [&](std::int64_t c, auto lanes) {
            put(line + j * C + c, to + c / 4 * g.plane_floats + j * g.quads.pixel, g.plane_floats,
                lanes);
          });
    }
}

// The gradients of a panel's channels in `windows` windows, zero where relu is closed, and which
// pixel has them.
inline void pack_picks(const float* dy, const std::uint8_t* choice, std::int64_t stride,
                       std::int64_t windows, int columns, int width, float* gradients,
                       std::int32_t* picks) {
  for (std::int64_t w = 0; w < windows; ++w)
    for_vectors(0, columns, [&](std::int64_t j, auto lanes) {
      const V chosen = load_from_bytes(choice + w * stride + j, lanes);
      store(gradients + w * width + j,
            select(chosen < broadcast(kClosed), load(dy + w * stride + j, lanes), zero()));
      store_picks(picks + w * width + j, picks_of(chosen));
    });
}

// Adds a block, whose first window's dy and choice are given, to a part's dw.
inline void add_picked_block(const PickedWeights& g, std::int64_t windows, std::int64_t K,
                             const float* quads, const std::int64_t* offsets, const float* dy,
                             const std::uint8_t* choice, std::int64_t first_panel,
                             std::int64_t last_panel, float* gradients, std::int32_t* picks,
                             float* dw, bool first_block) {
  const std::int64_t stretches = ceil_div(windows, kPickedWindows);
  for (std::int64_t i = 0; i < stretches; ++i) {
    const std::int64_t first = windows * i / stretches, last = windows * (i + 1) / stretches;
    for (std::int64_t panel = first_panel; panel < last_panel; ++panel) {
      const std::int64_t channel = panel * kPanel;
      const int columns = g.panels.columns_of(panel), width = g.panels.width_of(panel);
      pack_picks(dy + first * K + channel, choice + first * K + channel, K, last - first, columns,
                 width, gradients, picks);
      auto multiply = [&](auto vectors) {
        multiply_picked<vectors>(quads, g.rows, g.row_count, offsets + first, last - first,
                                 gradients, picks, dw + channel, columns, !first_block || i > 0);
      };
      with_vectors(columns, multiply);
    }
  }
}

inline void picked_weight_gradient(Context& context, const Conv2dPoolShape& shape, const float* dy,
                                   const std::uint8_t* choice, const float* x, float* dw,
                                   void* memory) {
  const Conv2dShape& s = shape.conv;
  const Pool2dShape& pool = shape.pool;
  if (s.N == 0) return clear(context, dw, s.R * s.S * s.C * s.K);
  const PickedWeights g = make_picked_weights(shape, context.threads(), memory);
  const Windows& w = g.windows;
  parallel_for(
      context, g.parts * g.panel_chunks, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
        float* copy_of_block = g.copies + worker * g.copy_floats;
        float* quads = g.block_quads + worker * g.quad_floats;
        std::int64_t* offsets = g.offsets + worker * g.block_windows;
        for (std::int64_t item = begin; item < end; ++item) {
          const std::int64_t part = item / g.panel_chunks, chunk = item % g.panel_chunks;
          const std::int64_t first_block = g.blocks.count * part / g.parts;
          const std::int64_t last_block = g.blocks.count * (part + 1) / g.parts;
          for (std::int64_t index = first_block; index < last_block; ++index) {
            const Block block = block_at(w, g.blocks, index);
            make_quads(g, block, images_of(g, block, x, copy_of_block), quads);
            std::int64_t windows = 0;
            for (std::int64_t n = 0; n < block.images; ++n)
              for (std::int64_t i = 0; i < block.rows; i += pool.R)
                for (std::int64_t j = 0; j < s.Q; j += pool.S)
                  offsets[windows++] = g.quads.window(w, n, i, j);
            const std::int64_t at = (block.image * pool.P + block.row / pool.R) * pool.Q * s.K;
            add_picked_block(g, windows, s.K, quads, offsets, dy + at, choice + at,
                             g.panels.count() * chunk / g.panel_chunks,
                             g.panels.count() * (chunk + 1) / g.panel_chunks,
                             g.gradients + worker * kPickedWindows * kPanel,
                             g.picks + worker * kPickedWindows * kPanel,
                             part == 0 ? dw : g.parts_dw + (part - 1) * g.dw_size,
                             index == first_block);
          }
        }
      });
  add_parts(context, g.parts, g.dw_size, g.parts_dw, dw);
}

}  // namespace convlet::CONVLET_ISA
