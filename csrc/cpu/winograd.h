// conv2d by Winograd's F(4x4,3x3): a 4x4 tile of the output is made of a 6x6 patch of the input
// with 36 multiplications per pair of channels instead of 144.
//
//   y = A^T [ sum over c of (G w G^T) * (B^T x B) ] A      (* by element)
//
// The matrices come of interpolation at 0, a, -a, b, -b and infinity with a = 1/sqrt(2) and
// b = sqrt(2): reciprocal, so that the transforms need few constants, and close to 1, which keeps
// the rounding error near that of the plain sum (at 1 and 2, as first published, it is twice that;
// Barabasz et al., "Error analysis and improving the accuracy of Winograd convolution", 2020).
//
// The sums over the channels are 36 products of matrices, tiles x channels by channels x output
// channels: the tile of gemm.h. A block of tiles is transformed, and then each panel of output
// channels is multiplied and transformed back while its 36 products lie in the cache. What a tile
// becomes does not depend on the other tiles of its block.
namespace convlet::CONVLET_ISA {

constexpr int kWinogradOut = 4, kWinogradIn = 6, kWinogradPositions = 36;
// Of a block's transformed input: a part of the second-level cache.
constexpr std::int64_t kWinogradBytes = 448 * 1024;
constexpr std::int64_t kLeastWinogradTiles = 16;  // for which the weights are read
// Neighbouring positions lie apart by other than a power of two, on lines of the cache of their
// own.
constexpr std::int64_t kWinogradSkew = 16;

constexpr double kSqrtHalf = 0.70710678118654752440, kSqrtTwo = 1.41421356237309504880;

// Worth it where the direct sum is long enough to pay for the transforms, and the image large
// enough for the weights, four times their size now. Neither the batch nor the threads matter, so
// that they do not change the bits.
inline bool worth_winograd(const Conv2dShape& s) {
  const bool fits = s.R == 3 && s.S == 3 && s.stride_h == 1 && s.stride_w == 1 &&
                    s.dilation_h == 1 && s.dilation_w == 1 && s.groups == 1;
  return fits && s.C >= 32 && s.K >= 32 && s.P >= 8 && s.Q >= 8;
}

struct WinogradWork {
  std::int64_t tiles_h, tiles_w, tiles;  // per image, and in all
  std::int64_t blocks, most_tiles;       // per block
  Panels panels;
  std::int64_t panel_chunks;                 // into which a block's panels are cut
  std::int64_t source_pitch, product_pitch;  // floats from position to position
  float *source, *products, *patch;          // per worker
  std::int64_t source_floats, product_floats, patch_floats;
  Row* rows;
  std::size_t bytes;

  std::int64_t first_tile(std::int64_t block) const { return tiles * block / blocks; }
};

inline WinogradWork make_winograd(const Conv2dShape& s, int threads, void* memory) {
  WinogradWork g;
  g.tiles_h = ceil_div(s.P, kWinogradOut);
  g.tiles_w = ceil_div(s.Q, kWinogradOut);
  g.tiles = s.N * g.tiles_h * g.tiles_w;
  g.panels = {s.K};
  const std::int64_t tile_bytes = kWinogradPositions * s.C * std::int64_t{sizeof(float)};
  const std::int64_t most = larger(kLeastWinogradTiles, kWinogradBytes / tile_bytes);
  g.blocks = larger(1, ceil_div(g.tiles, most));
  // Equal shares for the threads: of tiles, or of panels where there are few tiles.
  if (g.blocks >= threads) g.blocks = ceil_div(g.blocks, threads) * threads;
  g.panel_chunks = g.blocks >= threads ? 1 : smaller(g.panels.count(), ceil_div(threads, g.blocks));
  g.most_tiles = ceil_div(g.tiles, g.blocks);
  g.source_pitch = g.most_tiles * s.C + kWinogradSkew;
  g.product_pitch = g.most_tiles * kPanel + kWinogradSkew;
  g.source_floats = kWinogradPositions * g.source_pitch;
  g.product_floats = kWinogradPositions * g.product_pitch;
  g.patch_floats = kWinogradPositions * s.C;
  Workspace workspace(memory);
  g.source = workspace.take<float>(g.source_floats * threads);
  g.products = workspace.take<float>(g.product_floats * threads);
  g.patch = workspace.take<float>(g.patch_floats * threads);
  g.rows = workspace.take<Row>(g.most_tiles);
  g.bytes = workspace.bytes();
  return g;
}

// B^T d.
inline void winograd_source(const V* d, V* t) {
  const V low = broadcast(-0.5f), high = broadcast(-2.0f), both = broadcast(-2.5f);
  const V a = broadcast(static_cast<float>(kSqrtHalf)), b = broadcast(static_cast<float>(kSqrtTwo));
  const V even_a = fma(high, d[2], d[4]), odd_a = fma(high, d[1], d[3]) * a;
  const V even_b = fma(low, d[2], d[4]), odd_b = fma(low, d[1], d[3]) * b;
  t[0] = fma(both, d[2], d[0] + d[4]);
  t[1] = even_a + odd_a;
  t[2] = even_a - odd_a;
  t[3] = even_b + odd_b;
  t[4] = even_b - odd_b;
  t[5] = fma(both, d[3], d[1] + d[5]);
}

// A^T m.
inline void winograd_result(const V* m, V* y) {
  const V half = broadcast(0.5f), two = broadcast(2.0f);
  const V a = broadcast(static_cast<float>(kSqrtHalf)), b = broadcast(static_cast<float>(kSqrtTwo));
  const V sum_a = m[1] + m[2], odd_a = (m[1] - m[2]) * a;
  const V sum_b = m[3] + m[4], odd_b = (m[3] - m[4]) * b;
  y[0] = m[0] + sum_a + sum_b;
  y[1] = odd_a + odd_b;
  y[2] = fma(half, sum_a, two * sum_b);
  y[3] = fma(half, odd_a, fma(two, odd_b, m[5]));
}

// G w for one of its columns.
inline void winograd_weight(const V* w, V* u) {
  const V third = broadcast(1.0f / 3), sixth = broadcast(1.0f / 6);
  const V even_a = fma(third, w[2], third * (w[0] + w[0]));  // all of a with the other sign
  const V odd_a = broadcast(static_cast<float>(kSqrtTwo / 3)) * w[1];
  const V even_b = fma(third, w[2], sixth * w[0]);
  const V odd_b = broadcast(static_cast<float>(kSqrtTwo / 6)) * w[1];
  u[0] = w[0];
  u[1] = zero() - (even_a + odd_a);
  u[2] = odd_a - even_a;
  u[3] = even_b + odd_b;
  u[4] = even_b - odd_b;
  u[5] = w[2];
}

// B^T d B of a patch of C channels, whose rows and pixels are so far apart; position i of the
// result is at v + i * pitch.
inline void transform_source(const float* d, std::int64_t row, std::int64_t pixel, std::int64_t C,
                             float* v, std::int64_t pitch) {
  for_vectors(0, C, [=](std::int64_t c, auto lanes) {
    V t[kWinogradIn][kWinogradIn];  // by column
    CONVLET_UNROLL
    for (int j = 0; j < kWinogradIn; ++j) {
      V column[kWinogradIn];
      CONVLET_UNROLL
      for (int i = 0; i < kWinogradIn; ++i) column[i] = load(d + i * row + j * pixel + c, lanes);
      winograd_source(column, t[j]);
    }
    CONVLET_UNROLL
    for (int i = 0; i < kWinogradIn; ++i) {
      V line[kWinogradIn], out[kWinogradIn];
      CONVLET_UNROLL
      for (int j = 0; j < kWinogradIn; ++j) line[j] = t[j][i];
      winograd_source(line, out);
      CONVLET_UNROLL
      for (int j = 0; j < kWinogradIn; ++j)
        store(v + (i * kWinogradIn + j) * pitch + c, out[j], lanes);
    }
  });
}

// A^T m A of one vector of channels, whose positions are `pitch` apart.
inline void transform_result(const float* m, std::int64_t pitch, V y[kWinogradOut][kWinogradOut]) {
  V t[kWinogradIn][kWinogradOut];  // by column
  CONVLET_UNROLL
  for (int j = 0; j < kWinogradIn; ++j) {
    V column[kWinogradIn];
    CONVLET_UNROLL
    for (int i = 0; i < kWinogradIn; ++i) column[i] = load(m + (i * kWinogradIn + j) * pitch);
    winograd_result(column, t[j]);
  }
  CONVLET_UNROLL
  for (int i = 0; i < kWinogradOut; ++i) {
    V line[kWinogradIn];
    CONVLET_UNROLL
    for (int j = 0; j < kWinogradIn; ++j) line[j] = t[j][i];
    winograd_result(line, y[i]);
  }
}

// Where a tile lies.
struct WinogradTile {
  std::int64_t image, row, column;  // of the output

  WinogradTile(const WinogradWork& g, std::int64_t index)
      : image(index / (g.tiles_h * g.tiles_w)),
        row(index / g.tiles_w % g.tiles_h * kWinogradOut),
        column(index % g.tiles_w * kWinogradOut) {}
};

// The patch under a tile: in x, or where it reaches into the padding copied with its zeros.
inline void transform_tile(const Conv2dShape& s, const WinogradTile& tile, const float* x,
                           float* patch, float* v, std::int64_t pitch) {
  const std::int64_t top = tile.row - s.pad_top, left = tile.column - s.pad_left;
  const float* image = x + tile.image * s.H * s.W * s.C;
  if (top >= 0 && left >= 0 && top + kWinogradIn <= s.H && left + kWinogradIn <= s.W)
    return transform_source(image + (top * s.W + left) * s.C, s.W * s.C, s.C, s.C, v, pitch);
  const std::int64_t first = smaller(kWinogradIn, larger(0, -left));
  const std::int64_t end = larger(first, smaller(kWinogradIn, s.W - left));
  for (std::int64_t i = 0; i < kWinogradIn; ++i) {
    float* to = patch + i * kWinogradIn * s.C;
    const std::int64_t h = top + i;
    const bool inside = h >= 0 && h < s.H && end > first;
    if (!inside || first > 0 || end < kWinogradIn) clear(to, kWinogradIn * s.C);
    if (inside) copy(to + first * s.C, image + (h * s.W + left + first) * s.C, (end - first) * s.C);
  }
  transform_source(patch, kWinogradIn * s.C, s.C, s.C, v, pitch);
}

struct WinogradEpilogue {
  const float *bias, *residual;  // null is zero
  Activation activation;
  bool pool;  // by windows of 2x2
};

// The maximum of a 2x2 window, NaN being the largest.
inline V maximum_of_four(V a, V b, V c, V d) {
  const V sum = a + b + c + d;
  return select(is_nan(sum), sum, max(max(a, b), max(c, d)));
}

// Writes columns [channel, channel + columns) of a tile's 2x2 windows, as far as they are in the
// image, whose sizes are even.
inline void pool_tile(const Conv2dShape& s, const WinogradTile& tile, const float* m,
                      std::int64_t pitch, std::int64_t channel, int columns, const float* bias,
                      bool relu, float* result) {
  const std::int64_t P = s.P / 2, Q = s.Q / 2;
  const int height = static_cast<int>(smaller(2, P - tile.row / 2));
  const int width = static_cast<int>(smaller(2, Q - tile.column / 2));
  float* to = result + ((tile.image * P + tile.row / 2) * Q + tile.column / 2) * s.K + channel;
  for_vectors(0, columns, [&](std::int64_t k, auto lanes) {
    V y[kWinogradOut][kWinogradOut];
    transform_result(m + k, pitch, y);
    const V start = bias ? load(bias + channel + k, lanes) : zero();
    for (int i = 0; i < height; ++i)
      for (int j = 0; j < width; ++j) {
        const V *top = y[2 * i] + 2 * j, *bottom = y[2 * i + 1] + 2 * j;
        V value = maximum_of_four(top[0], top[1], bottom[0], bottom[1]) + start;
        if (relu) value = activate(Activation::relu, value);
        store(to + (i * Q + j) * s.K + k, value, lanes);
      }
  });
}

// Writes columns [channel, channel + columns) of a tile's pixels, as far as they are in the image.
inline void write_tile(const Conv2dShape& s, const WinogradTile& tile, const float* m,
                       std::int64_t pitch, std::int64_t channel, int columns,
                       const WinogradEpilogue& epilogue, float* result) {
  const int height = static_cast<int>(smaller(kWinogradOut, s.P - tile.row));
  const int width = static_cast<int>(smaller(kWinogradOut, s.Q - tile.column));
  const std::int64_t first = ((tile.image * s.P + tile.row) * s.Q + tile.column) * s.K + channel;
  const bool relu = epilogue.activation == Activation::relu;
  if (epilogue.pool)
    return pool_tile(s, tile, m, pitch, channel, columns, epilogue.bias, relu, result);
  for_vectors(0, columns, [&](std::int64_t k, auto lanes) {
    V y[kWinogradOut][kWinogradOut];
    transform_result(m + k, pitch, y);
    const V bias = epilogue.bias ? load(epilogue.bias + channel + k, lanes) : zero();
    for (int i = 0; i < height; ++i)
      for (int j = 0; j < width; ++j) {
        const std::int64_t at = first + (i * s.Q + j) * s.K + k;
        V value = y[i][j] + bias;
        if (epilogue.residual) value = value + load(epilogue.residual + at, lanes);
        if (relu) value = activate(Activation::relu, value);
        store(result + at, value, lanes);
      }
  });
  if (relu || epilogue.activation == Activation::none) return;
  Row pixels[kWinogradOut];
  for (int i = 0; i < height; ++i) {
    for (int j = 0; j < width; ++j) pixels[j] = {0, first + (i * s.Q + j) * s.K};
    activate_rows(epilogue.activation, pixels, width, result, columns);
  }
}

// G w G^T of a vector of weights, whose taps are `pitch` apart; position i of the result is at
// u + i * result_pitch.
inline void transform_weight(const float* w, std::int64_t pitch, float* u,
                             std::int64_t result_pitch) {
  V t[3][kWinogradIn];  // by column
  CONVLET_UNROLL
  for (int j = 0; j < 3; ++j) {
    V column[3];
    CONVLET_UNROLL
    for (int i = 0; i < 3; ++i) column[i] = load(w + (i * 3 + j) * pitch);
    winograd_weight(column, t[j]);
  }
  CONVLET_UNROLL
  for (int i = 0; i < kWinogradIn; ++i) {
    const V line[3] = {t[0][i], t[1][i], t[2][i]};
    V out[kWinogradIn];
    winograd_weight(line, out);
    CONVLET_UNROLL
    for (int j = 0; j < kWinogradIn; ++j) store(u + (i * kWinogradIn + j) * result_pitch, out[j]);
  }
}

// PreparedConv2d of ops/kernels.h: the transformed weights are panels, each with its 36 positions,
// each with its rows, the input channels. Windows of 2x2 are pooled within the tiles.
inline std::size_t winograd_bytes(const Conv2dShape& s, const Pool2dShape* pool) {
  if (!worth_winograd(s) || (pool && !(pool->R == 2 && pool->S == 2))) return 0;
  return static_cast<std::size_t>(kWinogradPositions * s.C * Panels{s.K}.padded_columns()) *
         sizeof(float);
}

// The weights of s, or with `turned`, of the convolution that makes the gradient of its input.
template <bool turned>
inline void winograd_weights(Context& context, const Conv2dShape& s, const float* w,
                             float* prepared) {
  constexpr std::int64_t kRows = 8;  // of a panel at a time
  const std::int64_t terms = turned ? s.K : s.C, chunks = ceil_div(terms, kRows);
  const Panels panels = {turned ? s.C : s.K};
  parallel_for(context, panels.count() * chunks, 4, [&](std::int64_t begin, std::int64_t end, int) {
    float taps[9 * kRows * kPanel];
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t panel = item / chunks, first = item % chunks * kRows;
      const std::int64_t rows = smaller(kRows, terms - first);
      const int columns = panels.columns_of(panel), width = panels.width_of(panel);
      const std::int64_t count = rows * width;
      for (std::int64_t tap = 0; tap < 9; ++tap)
        if (turned)
          pack_transposed(w + ((8 - tap) * s.C + panel * kPanel) * s.K + first, s.K, rows, columns,
                          width, taps + tap * count);
        else
          pack_rows(w + (tap * s.C + first) * s.K + panel * kPanel, s.K, rows, columns, width,
                    taps + tap * count);
      float* to = prepared + panels.offset_of(panel, kWinogradPositions * terms) + first * width;
      for (std::int64_t i = 0; i < count; i += V::width)
        transform_weight(taps + i, count, to + i, terms * width);
    }
  });
}

inline std::size_t winograd_workspace(const Conv2dShape& s, const Pool2dShape*, int threads) {
  return make_winograd(s, threads, nullptr).bytes;
}

inline bool winograd_in_place(const Conv2dShape&) {
  return true;
}

inline void conv2d_winograd(Context& context, const Conv2dShape& s, const Pool2dShape* pool,
                            const float* x, const float* prepared, const float* bias,
                            const float* residual, Activation activation, float* result,
                            void* memory) {
  const WinogradWork g = make_winograd(s, context.threads(), memory);
  if (g.tiles == 0) return;
  const bool fetches = worth_fetching(kWinogradPositions * s.C * s.K);
  const WinogradEpilogue epilogue = {bias, residual, activation, pool != nullptr};
  for (std::int64_t i = 0; i < g.most_tiles; ++i) g.rows[i] = {i * s.C, i * kPanel};
  parallel_for(
      context, g.blocks * g.panel_chunks, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
        float* source = g.source + worker * g.source_floats;
        float* products = g.products + worker * g.product_floats;
        float* patch = g.patch + worker * g.patch_floats;
        for (std::int64_t item = begin; item < end; ++item) {
          const std::int64_t block = item / g.panel_chunks, chunk = item % g.panel_chunks;
          const std::int64_t first = g.first_tile(block), count = g.first_tile(block + 1) - first;
          for (std::int64_t i = 0; i < count; ++i)
            transform_tile(s, WinogradTile(g, first + i), x, patch, source + i * s.C,
                           g.source_pitch);
          const std::int64_t panels = g.panels.count();
          for (std::int64_t panel = panels * chunk / g.panel_chunks;
               panel < panels * (chunk + 1) / g.panel_chunks; ++panel) {
            const int columns = g.panels.columns_of(panel), width = g.panels.width_of(panel);
            const float* b = prepared + g.panels.offset_of(panel, kWinogradPositions * s.C);
            for (int i = 0; i < kWinogradPositions; ++i)
              multiply_packed(source + i * g.source_pitch, g.rows, count, s.C, 1,
                              b + i * s.C * width, Panels{width}, products + i * g.product_pitch,
                              false, fetches);
            for (std::int64_t i = 0; i < count; ++i)
              write_tile(s, WinogradTile(g, first + i), products + i * kPanel, g.product_pitch,
                         panel * kPanel, columns, epilogue, result);
          }
        }
      });
}

// The same for the gradient of the input: a convolution of dy with the windows turned by half a
// turn and the channels' parts exchanged.
inline Conv2dShape turned(const Conv2dShape& s) {
  Conv2dShape t = s;
  t.H = s.P, t.W = s.Q, t.C = s.K;
  t.P = s.H, t.Q = s.W, t.K = s.C;
  t.pad_top = s.R - 1 - s.pad_top, t.pad_bottom = s.R - 1 - s.pad_bottom;
  t.pad_left = s.S - 1 - s.pad_left, t.pad_right = s.S - 1 - s.pad_right;
  return t;
}

inline std::size_t winograd_backward_input_bytes(const Conv2dShape& s, const Pool2dShape* pool) {
  return winograd_bytes(turned(s), pool);
}

inline std::size_t winograd_backward_input_workspace(const Conv2dShape& s, const Pool2dShape* pool,
                                                     int threads) {
  return winograd_workspace(turned(s), pool, threads);
}

inline void conv2d_winograd_backward_input(Context& context, const Conv2dShape& s,
                                           const Pool2dShape* pool, const float* dy,
                                           const float* prepared, const float* bias,
                                           const float* residual, Activation activation, float* dx,
                                           void* memory) {
  conv2d_winograd(context, turned(s), pool, dy, prepared, bias, residual, activation, dx, memory);
}

}  // namespace convlet::CONVLET_ISA
