// The gradient of the weights of conv2d and conv2d_pool, for images with one to three channels. As
// in first_layer.cuh a block brings the lines of the image that a tile needs to shared memory, here
// as they are, by 16 bytes where lines are aligned: a row of the product is a tap and a channel, at
// one distance from wherever a pixel begins. dy comes beside them. A block adds up several tiles;
// its warps that are not needed for rows and columns share their terms.
#pragma once
#include "core/host_device.h"
#include "cuda/image_tiles.cuh"

namespace convlet::cuda {

constexpr int kGradientTile = 64;  // results
constexpr int kStepsOfTile = kGradientTile / kDepth;
constexpr int kGradientThreads = 128;

struct FirstLayerGradient : ImageTiles {
  int terms, run;          // rows of the product, and how many of them lie side by side
  int piece;               // elements of a copy: 4 or 1
  int patch_width, pitch;  // of the lines in shared memory; elements
  std::int64_t tiles_of_part;
};

// How a block's warps are laid out: as a tile of the product with the shares of the same rows under
// each other.
template <int rows_, int columns_>
struct GradientTile : Tile<32 * (kGradientThreads / 32) / (columns_ / 32), columns_, 32, 32> {
  using Whole = Tile<32 * (kGradientThreads / 32) / (columns_ / 32), columns_, 32, 32>;
  static constexpr int result_rows = rows_, shares = Whole::rows / rows_;
};

CONVLET_HOST_DEVICE inline int patch_floats(const FirstLayerGradient& f) {
  return f.lines * f.pitch;
}

// How often two threads of a warp need the same bank, that read the pixels 0, step, 2 step, 3 step
// for each eight rows.
inline int bank_conflicts(const FirstLayerGradient& f, int step, int pitch) {
  int conflicts = 0;
  for (int row = 0; row < std::min(f.terms, 64); row += 8) {
    int last[32];
    std::fill(last, last + 32, -1);
    for (int i = row; i < std::min(row + 8, f.terms); ++i)
      for (int t = 0; t < 4; ++t) {
        const int at = i / f.run * f.dilation_h * pitch + i % f.run + t * step;
        conflicts += last[at % 32] >= 0 && last[at % 32] != at;
        last[at % 32] = at;
      }
  }
  return conflicts;
}

inline FirstLayerGradient first_layer_gradient(const Conv2dShape& s, int window_h, int window_w,
                                               const Images& x) {
  FirstLayerGradient f;
  static_cast<ImageTiles&>(f) = image_tiles(s, window_h, window_w, kGradientTile, x);
  f.terms = static_cast<int>(s.R * s.S * s.C), f.run = static_cast<int>(s.S * s.C);
  // Parts of at least 256 pixels, and of fewer than kLongestPart; enough to fill a device.
  constexpr std::int64_t kFewestTiles = 4, kEnough = 1024;
  const std::int64_t blocks =
      ceil_div(f.terms, f.terms <= 32 ? 32 : 64) * ceil_div(s.K, s.K <= 32 ? 32 : 64);
  f.tiles_of_part = std::min(std::max(kFewestTiles, ceil_div(f.tiles * blocks, kEnough)),
                             kLongestPart / kGradientTile);
  const void* data = x.floats ? static_cast<const void*>(x.floats) : x.bytes.data;
  f.piece = is_aligned(data) && f.row % 4 == 0 ? 4 : 1;
  const int needed = f.width * f.channels + f.piece - 1;
  f.patch_width = static_cast<int>(ceil_div(needed, f.piece)) * f.piece;
  f.pitch = static_cast<int>(ceil_div(f.patch_width, 4)) * 4;
  const int step = window_w * f.stride_w * f.channels, least = f.pitch;
  for (int pitch = least + 4; pitch < least + 32; pitch += 4)
    if (bank_conflicts(f, step, pitch) < bank_conflicts(f, step, f.pitch)) f.pitch = pitch;
  return f;
}

inline std::int64_t parts_of(const FirstLayerGradient& f) {
  return std::max<std::int64_t>(1, ceil_div(f.tiles, f.tiles_of_part));
}

// dy in memory, and what 16 terms of it are in shared memory.
template <int columns>
struct PixelGradient {
  // Lines of pixels, with pieces of 8 exchanged so that four lines are in different banks.
  struct Layout {
    static constexpr bool kColumnsAreTerms = false;
    static constexpr int kLines = kDepth, kColumns = columns;
    CONVLET_DEVICE static int offset(int line, int column) {
      return line * columns + (column ^ ((line % 4) * 8));
    }
    CONVLET_DEVICE static void read(const float* tile, int i, int t, float (&value)[4]) {
#pragma unroll
      for (int j = 0; j < 4; ++j) value[j] = tile[offset(pixel(t, j), i)];
    }
  };
  static constexpr int kFloats = kDepth * columns;
  // Which of a step's pixels the term j of thread t is.
  CONVLET_DEVICE static int pixel(int t, int j) { return t + 4 * j; }

  Matrix dy;
  using Source = Matrix;
  CONVLET_DEVICE Source results(std::int64_t first, int count) const {
    Matrix of_tile = dy;
    of_tile.lines = first + count;
    return of_tile;
  }
};

// A piece of bytes as values. value(byte, i) is that of its byte i.
template <class Value>
CONVLET_DEVICE void copy_values(const FirstLayerGradient& f, float* to, const std::uint8_t* from,
                                bool valid, const Value& value) {
  if (f.piece == 1) {
    *to = valid ? value(__ldg(from), 0) : 0.0f;
    return;
  }
  float4 values = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (valid) {
    const uchar4 v = __ldg(reinterpret_cast<const uchar4*>(from));
    values = make_float4(value(v.x, 0), value(v.y, 1), value(v.z, 2), value(v.w, 3));
  }
  *reinterpret_cast<float4*>(to) = values;
}

// The tile's part of the image. Returns how many elements come before the first that is needed.
template <Pixels pixels>
CONVLET_DEVICE int copy_lines(const FirstLayerGradient& f, const TilePlace& place,
                              const ChannelNorm* norms, float* patch) {
  const int from = place.w * f.channels, lead = from & (f.piece - 1);
  const int pieces = f.patch_width / f.piece;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < f.lines * pieces; i += kGradientThreads) {
    const int line = i / pieces, column = (i - line * pieces) * f.piece;
    const int h = place.h + line, element = from - lead + column;
    const bool valid = static_cast<unsigned>(h) < static_cast<unsigned>(f.height) &&
                       static_cast<unsigned>(element) < static_cast<unsigned>(f.row);
    float* to = patch + line * f.pitch + column;
    const std::int64_t at =
        valid ? place.image + static_cast<std::int64_t>(h) * f.row + element : 0;
    if constexpr (pixels == Pixels::bytes) {
      copy_values(f, to, f.x.bytes.data + at, valid,
                  [&](std::uint8_t byte, int) { return f.value(byte); });
    } else if constexpr (pixels == Pixels::normalised_bytes) {
      const ChannelNorm* of_piece = norms + (valid ? element % f.channels : 0);
      copy_values(f, to, f.x.bytes.data + at, valid,
                  [&](std::uint8_t byte, int i) { return f.value(byte, of_piece[i]); });
    } else if (f.piece == 4) {
      copy_async_16(to, f.x.floats + at, valid);
    } else {
      copy_async_4(to, f.x.floats + at, valid);
    }
  }
  return lead;
}

// That and dy.
template <class Gradient>
CONVLET_DEVICE int copy_tile(const FirstLayerGradient& f, const Gradient& gradient,
                             const TilePlace& place, const ChannelNorm* norms,
                             std::int64_t first_column, float* patch) {
  const int lead = with_pixels(
      f.x, [&](auto pixels) { return copy_lines<pixels.value>(f, place, norms, patch); });
  const auto results = gradient.results(place.first, place.count);
  Feed<typename Gradient::Source, typename Gradient::Layout, kGradientThreads> feed(
      results, first_column, place.first);
  float* dy = patch + patch_floats(f);
#pragma unroll 1
  for (int step = 0; step < kStepsOfTile; ++step) {
    feed.copy(dy + step * Gradient::kFloats);
    feed.advance();
  }
  return lead;
}

template <class Tile, class Gradient, Precision precision>
struct GradientSums : WarpSums<typename Tile::Whole, typename Gradient::Layout,
                               typename Gradient::Layout, precision> {
  using Base = WarpSums<typename Tile::Whole, typename Gradient::Layout, typename Gradient::Layout,
                        precision>;
  using Base::column, Base::g, Base::kColumns, Base::kRows, Base::row, Base::sum, Base::t;

  // rows: where this lane's taps are from a pixel; pixels: where those of its terms begin, -1
  // beyond the last.
  CONVLET_DEVICE void add_step(const float* patch, const int (&rows)[kRows][2],
                               const int (&pixels)[4], const float* dy) {
    using Terms = Arithmetic<precision>;
    typename Terms::A a[kRows];
    float value[4], value8[4];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        value[j] = pixels[j] < 0 ? 0.0f : patch[rows[i][0] + pixels[j]];
        value8[j] = pixels[j] < 0 ? 0.0f : patch[rows[i][1] + pixels[j]];
      }
      a[i] = Terms::a(value, value8);
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      Gradient::Layout::read(dy, column + 8 * j + g, t, value);
      const typename Terms::B columns = Terms::b(value);
#pragma unroll
      for (int i = 0; i < kRows; ++i) Terms::multiply_add(sum[i][j], a[i], columns);
    }
  }
};

template <class Tile, class Gradient>
std::size_t gradient_bytes(const FirstLayerGradient& f) {
  const int stage = patch_floats(f) + kStepsOfTile * Gradient::kFloats;
  const int result = Tile::Whole::rows * Tile::Whole::pitch;
  return sizeof(float) * static_cast<std::size_t>(kGradientTile + std::max(2 * stage, result));
}

// Of a multiprocessor, as many as do not spill registers.
constexpr int gradient_blocks(Precision precision) {
  return precision == Precision::float32 ? 3 : 4;
}

template <class Tile, class Gradient, Precision precision>
__global__ void __launch_bounds__(kGradientThreads, gradient_blocks(precision))
    first_layer_gradient_kernel(const FirstLayerGradient f, const Gradient gradient, const Result y,
                                const bool whole) {
  using Sums = GradientSums<Tile, Gradient, precision>;
  using Whole = typename Tile::Whole;
  CONVLET_DYNAMIC_SHARED(float, shared);
  CONVLET_SHARED(ChannelNorm, norms, [kChannelNorms]);
  int* begins = reinterpret_cast<int*>(shared);  // of the terms of each thread; and then the stages
  float* stages = shared + kGradientTile;
  const int stage_floats = patch_floats(f) + kStepsOfTile * Gradient::kFloats;
  const int across = static_cast<int>((y.columns + Tile::columns - 1) / Tile::columns);
  const std::int64_t first_column =
      static_cast<std::int64_t>(static_cast<int>(blockIdx.y) % across) * Tile::columns;
  const std::int64_t first_row =
      static_cast<std::int64_t>(static_cast<int>(blockIdx.y) / across) * Tile::result_rows;
  if (threadIdx.x < kGradientTile) {
    const int i = static_cast<int>(threadIdx.x), t = i % kDepth / 4;
    const int m = i / kDepth * kDepth + Gradient::pixel(t, i % 4);
    const Pixel pixel = pixel_of(f, m < f.results() ? m : 0);
    begins[i] = pixel.h * f.pitch + pixel.w * f.channels;
  }
  make_channel_norms(f, norms);
  Sums sums;
  const int share = sums.row / Tile::result_rows;
  int rows[Sums::kRows][2];
#pragma unroll
  for (int i = 0; i < Sums::kRows; ++i)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row =
          static_cast<int>(first_row) + sums.row % Tile::result_rows + 16 * i + 8 * half + sums.g;
      const int tap = row < f.terms ? row : 0;  // nobody stores what is made of it
      rows[i][half] = tap / f.run * f.dilation_h * f.pitch + tap % f.run;
    }
  const std::int64_t begin = blockIdx.x * f.tiles_of_part;
  const std::int64_t end = begin + f.tiles_of_part < f.tiles ? begin + f.tiles_of_part : f.tiles;
  int lead = 0;
  if (begin < end) lead = copy_tile(f, gradient, tile_place(f, begin), norms, first_column, stages);
  copy_async_commit();
#pragma unroll 1
  for (std::int64_t tile = begin; tile < end; ++tile) {
    const int now = static_cast<int>(tile - begin) % 2;
    int next_lead = 0;
    if (tile + 1 < end)
      next_lead = copy_tile(f, gradient, tile_place(f, tile + 1), norms, first_column,
                            stages + (1 - now) * stage_floats);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    const int count = tile_place(f, tile).count;
    const float* patch = stages + now * stage_floats;
#pragma unroll 1
    for (int step = share; step * kDepth < count; step += Tile::shares) {
      const int4 begin_of = *reinterpret_cast<const int4*>(begins + step * kDepth + 4 * sums.t);
      int pixels[4] = {begin_of.x, begin_of.y, begin_of.z, begin_of.w};
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (step * kDepth + Gradient::pixel(sums.t, j) >= count) pixels[j] = -1;
      sums.add_step(patch + lead, rows, pixels, patch + patch_floats(f) + step * Gradient::kFloats);
    }
    lead = next_lead;
    __syncthreads();
  }
  copy_async_wait<0>();
  __syncthreads();
  sums.write(stages);
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < Tile::result_rows * Tile::columns;
       i += kGradientThreads) {
    float* at = stages + i / Tile::columns * Whole::pitch + i % Tile::columns;
    float sum = *at;
#pragma unroll
    for (int other = 1; other < Tile::shares; ++other)
      sum += at[other * Tile::result_rows * Whole::pitch];
    *at = sum;
  }
  __syncthreads();
  Result part = y;
  if (part.rows > first_row + Tile::result_rows) part.rows = first_row + Tile::result_rows;
  store_tile<Whole>(stages, part, first_row, first_column, y.data + blockIdx.x * y.part, whole);
}

// Whatever x is aligned to.
template <template <int> class Gradient>
bool fits(FirstLayerGradient f) {
  f.pitch = f.patch_width + 32;
  return 2 * f.tile_h * f.tile_w >= kGradientTile && f.terms <= 512 &&
         gradient_bytes<GradientTile<64, 64>, Gradient<64>>(f) <= kMostShared;
}

inline std::size_t first_layer_gradient_workspace(const FirstLayerGradient& f, std::int64_t K) {
  const std::int64_t parts = parts_of(f);
  return parts > 1 ? static_cast<std::size_t>(parts * f.terms * K) * sizeof(float) : 0;
}

template <int rows, int columns, template <int> class Gradient, Precision precision, class... Dy>
void launch_gradient(Context& context, const FirstLayerGradient& f, const Result& y, Dy... dy) {
  using Tile = GradientTile<rows, columns>;
  const Gradient<columns> gradient{dy...};
  const std::int64_t parts = parts_of(f),
                     blocks = ceil_div(y.rows, rows) * ceil_div(y.columns, columns);
  launch(context, first_layer_gradient_kernel<Tile, Gradient<columns>, precision>,
         dim3(static_cast<unsigned>(parts), static_cast<unsigned>(blocks)), kGradientThreads,
         gradient_bytes<Tile, Gradient<columns>>(f), f, gradient, y, parts == 1);
}

// dw from what Gradient is made of.
template <template <int> class Gradient, Precision precision, class... Dy>
void multiply_first_layer_gradient(Context& context, const FirstLayerGradient& f, std::int64_t K,
                                   float* dw, void* workspace, Dy... dy) {
  struct Problem {
    Result y;
  };
  Cut cut = {};
  cut.parts = parts_of(f);
  const std::int64_t elements = f.terms * K;
  multiply_parts(context, Problem{matrix_result(dw, f.terms, K, K, 0)}, cut, elements, K, workspace,
                 [&](const Problem& p) {
                   if (f.terms <= 32 && K <= 32)
                     launch_gradient<32, 32, Gradient, precision>(context, f, p.y, dy...);
                   else if (f.terms <= 32)
                     launch_gradient<32, 64, Gradient, precision>(context, f, p.y, dy...);
                   else if (K <= 32)
                     launch_gradient<64, 32, Gradient, precision>(context, f, p.y, dy...);
                   else
                     launch_gradient<64, 64, Gradient, precision>(context, f, p.y, dy...);
                 });
}

}  // namespace convlet::cuda
