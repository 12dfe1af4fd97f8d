// conv2d and conv2d_pool of images with one to three channels. Copies of 16 bytes would not be
// aligned there, and one of 4 for each term of each pixel is more work than the products: so a
// block brings the lines that its pixels need to shared memory once, as quads, and multiplies from
// there. The quad of a pixel holds four values in the order of memory from that pixel on: its own
// three channels and a zero, or where there are fewer channels those of the pixels after it, too.
// The four terms of a thread are a quad.
#pragma once
#include "cuda/image_tiles.cuh"

namespace convlet::cuda {

struct FirstLayer : ImageTiles {
  int reach;                       // pixels that a quad has values of
  int quads_across, quads, steps;  // of a line of taps, of all taps, and in steps of kDepth terms
  int patch_width, pitch;          // of the lines in shared memory; quads
};

constexpr int kQuadsOfStep = kDepth / 4;
constexpr int kSector = 8;  // pixels: lines in shared memory begin and end with whole sectors

using FirstLayerTile = Tile<128, 64, 32, 32>;  // NarrowTile for up to 32 columns

template <class Tile>
std::size_t first_layer_bytes(const FirstLayer& f) {
  const int weights = f.steps * kDepth * Tile::columns, table = f.steps * kQuadsOfStep;
  const int patch = 4 * f.lines * f.pitch, result = Tile::rows * Tile::pitch;
  return sizeof(float) * static_cast<std::size_t>(weights + table + std::max(patch, result));
}

// How often two of the eight threads whose 16 bytes are read at once, of two pixels and the four
// quads of a step, need the same banks.
inline int bank_conflicts(const FirstLayer& f, int pitch) {
  int conflicts = 0;
  for (int step = 0; step < f.steps; ++step) {
    int last[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
    for (int thread = 0; thread < 8; ++thread) {
      const int quad = std::min(step * kQuadsOfStep + thread % 4, f.quads - 1);
      const int at = thread / 4 * f.stride_w + quad / f.quads_across * f.dilation_h * pitch +
                     quad % f.quads_across * f.reach;
      conflicts += last[at % 8] >= 0 && last[at % 8] != at;
      last[at % 8] = at;
    }
  }
  return conflicts;
}

inline FirstLayer first_layer(const Conv2dShape& s, int window_h, int window_w, const Images& x) {
  FirstLayer f;
  static_cast<ImageTiles&>(f) = image_tiles(s, window_h, window_w, FirstLayerTile::rows, x);
  f.reach = s.C == 3 ? 1 : 4 / f.channels;
  f.quads_across = static_cast<int>(ceil_div(s.S, f.reach));
  f.quads = static_cast<int>(s.R) * f.quads_across;
  f.steps = static_cast<int>(ceil_div(f.quads, kQuadsOfStep));
  f.patch_width = static_cast<int>(ceil_div(f.width + kSector - 1, kSector)) * kSector;
  f.pitch = f.patch_width;
  for (int pitch = f.pitch + 1; pitch < f.patch_width + 8; ++pitch)
    if (bank_conflicts(f, pitch) < bank_conflicts(f, f.pitch)) f.pitch = pitch;
  return f;
}

// Whether tiles are at least half full, and fit into shared memory.
inline bool is_first_layer(const Conv2dShape& s, int window_h, int window_w) {
  if (!has_few_channels(s)) return false;
  const FirstLayer f = first_layer(s, window_h, window_w, nullptr);
  return 2 * f.tile_h * f.tile_w >= FirstLayerTile::rows &&
         first_layer_bytes<FirstLayerTile>(f) <= kMostShared;
}

// The quads of a tile, a line by a warp: 32 lanes bring eight, from memory without gaps. Bytes
// become values on the way. Returns how many come before the first that is needed.
template <int threads, Pixels pixels>
CONVLET_DEVICE int copy_quads(const FirstLayer& f, const TilePlace& place, const ChannelNorm* norms,
                              float* patch) {
  const int lane = static_cast<int>(threadIdx.x) % 32, part = lane % 4;
  const int lead = place.w & (kSector - 1);
  ChannelNorm norm = {};
  if constexpr (pixels == Pixels::normalised_bytes) norm = norms[part];
#pragma unroll 1
  for (int line = static_cast<int>(threadIdx.x) / 32; line < f.lines; line += threads / 32) {
    const int h = place.h + line;
    const bool there =
        part < f.reach * f.channels && static_cast<unsigned>(h) < static_cast<unsigned>(f.height);
    const std::int64_t from = place.image + static_cast<std::int64_t>(h) * f.row;
#pragma unroll 4
    for (int quad = lane / 4; quad < f.patch_width; quad += 8) {
      const int element = (place.w - lead + quad) * f.channels + part;
      const bool valid = there && static_cast<unsigned>(element) < static_cast<unsigned>(f.row);
      float* to = patch + (line * f.pitch + quad) * 4 + part;
      if constexpr (pixels == Pixels::floats)
        copy_async_4(to, f.x.floats + (valid ? from + element : 0), valid);
      else if constexpr (pixels == Pixels::bytes)
        *to = valid ? f.value(__ldg(f.x.bytes.data + from + element)) : 0.0f;
      else
        *to = valid ? f.value(__ldg(f.x.bytes.data + from + element), norm) : 0.0f;
    }
  }
  return lead;
}

// The weights in the order of the terms: zeros where a quad has no value.
template <class Layout, int columns, int threads>
CONVLET_DEVICE void copy_weights(const FirstLayer& f, const Matrix& w, std::int64_t first_column,
                                 float* weights) {
  const int piece = w.vectors ? 4 : 1, across = columns / piece, values = f.reach * f.channels;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x); i < f.steps * kDepth * across; i += threads) {
    const int term = i / across, column = i % across * piece, quad = term / 4;
    const int tap = quad % f.quads_across * values + term % 4;
    const bool valid = quad < f.quads && term % 4 < values && tap < f.taps_w * f.channels &&
                       first_column + column < w.columns;
    const std::int64_t line = quad / f.quads_across * f.taps_w * f.channels + tap;
    const float* from = w.data + (valid ? line * w.pitch + first_column + column : 0);
    float* to = weights + term / kDepth * kDepth * columns + Layout::offset(term % kDepth, column);
    if (w.vectors)
      copy_async_16(to, from, valid);
    else
      copy_async_4(to, from, valid);
  }
}

template <class Tile, Precision precision>
struct FirstLayerSums : WarpSums<Tile, TileLayout<false, Tile::columns>,
                                 TileLayout<false, Tile::columns>, precision> {
  using Layout = TileLayout<false, Tile::columns>;
  using Base = WarpSums<Tile, Layout, Layout, precision>;
  using Base::column, Base::g, Base::kColumns, Base::kRows, Base::row, Base::sum, Base::t;

  // The quad of the tile's result m.
  CONVLET_DEVICE static int quad_of(const FirstLayer& f, int m) {
    if (m >= f.results()) return 0;  // nobody stores it
    const Pixel pixel = pixel_of(f, m);
    return pixel.h * f.pitch + pixel.w;
  }

  // term: where the quad of this lane's terms is, times 8, and how many of its values count.
  CONVLET_DEVICE void add_step(const float* patch, const int (&quads)[kRows][2], int term,
                               const float* weights) {
    using Terms = Arithmetic<precision>;
    const int offset = term / 8, count = term % 8;
    auto read = [&](int quad, float (&value)[4]) {
      const float4 v = *reinterpret_cast<const float4*>(patch + (quad + offset) * 4);
      value[0] = v.x, value[1] = v.y, value[2] = v.z, value[3] = v.w;
#pragma unroll
      for (int j = 0; j < 4; ++j) value[j] = j < count ? value[j] : 0.0f;
    };
    typename Terms::A rows[kRows];
    float value[4], value8[4];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      read(quads[i][0], value);
      read(quads[i][1], value8);
      rows[i] = Terms::a(value, value8);
    }
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      Layout::read(weights, column + 8 * j + g, t, value);
      const typename Terms::B columns = Terms::b(value);
#pragma unroll
      for (int i = 0; i < kRows; ++i) Terms::multiply_add(sum[i][j], rows[i], columns);
    }
  }
};

// For the registers of as many threads of a multiprocessor as do not spill any.
constexpr int first_layer_threads(Precision precision) {
  return precision == Precision::float32 ? 256 : 512;
}

template <class Y, class Tile, Precision precision>
__global__ void __launch_bounds__(Tile::threads, first_layer_threads(precision) / Tile::threads)
    first_layer_kernel(const FirstLayer f, const Matrix w, const Y y) {
  using Sums = FirstLayerSums<Tile, precision>;
  CONVLET_DYNAMIC_SHARED(float, weights);
  CONVLET_SHARED(ChannelNorm, norms, [kChannelNorms]);
  int* table = reinterpret_cast<int*>(weights + f.steps * kDepth * Tile::columns);
  float* patch = reinterpret_cast<float*>(table + f.steps * kQuadsOfStep);  // then the results
  const std::int64_t first_column = std::int64_t{blockIdx.y} * Tile::columns;
  copy_weights<typename Sums::Layout, Tile::columns, Tile::threads>(f, w, first_column, weights);
  for (int quad = static_cast<int>(threadIdx.x); quad < f.steps * kQuadsOfStep;
       quad += Tile::threads) {
    const int r = quad / f.quads_across, s = quad % f.quads_across * f.reach;
    const int pixels = f.taps_w - s < f.reach ? f.taps_w - s : f.reach;
    table[quad] = quad < f.quads ? (r * f.dilation_h * f.pitch + s) * 8 + pixels * f.channels : 0;
  }
  make_channel_norms(f, norms);
  int quads[Sums::kRows][2];
  {
    const Sums lane;
#pragma unroll
    for (int i = 0; i < Sums::kRows; ++i)
#pragma unroll
      for (int half = 0; half < 2; ++half)
        quads[i][half] = Sums::quad_of(f, lane.row + 16 * i + 8 * half + lane.g);
  }
#pragma unroll 1
  for (std::int64_t tile = blockIdx.x; tile < f.tiles; tile += gridDim.x) {
    const TilePlace place = tile_place(f, tile);
    const int lead = with_pixels(f.x, [&](auto pixels) {
      return copy_quads<Tile::threads, pixels.value>(f, place, norms, patch);
    });
    copy_async_commit();
    copy_async_wait<0>();
    __syncthreads();
    Sums sums;
#pragma unroll 1
    for (int step = 0; step < f.steps; ++step)
      sums.add_step(patch + lead * 4, quads, table[step * kQuadsOfStep + sums.t],
                    weights + step * kDepth * Tile::columns);
    __syncthreads();
    sums.write(patch);
    __syncthreads();
    Y part = y;
    part.rows = place.first + place.count;
    store_tile<Tile>(patch, part, place.first, first_column, y.data, true);
    __syncthreads();
  }
}

template <class Tile, Precision precision, class Y>
void launch_first_layer(Context& context, const FirstLayer& f, const Matrix& w, const Y& y) {
  const auto columns = static_cast<unsigned>(ceil_div(w.columns, Tile::columns));
  launch(context, first_layer_kernel<Y, Tile, precision>,
         dim3(blocks_for(context, f.tiles, 1), columns), Tile::threads, first_layer_bytes<Tile>(f),
         f, w, y);
}

// Into y, whose rows are the results in the order of the tiles.
template <Precision precision, class Y>
void multiply_first_layer(Context& context, const FirstLayer& f, const Matrix& w, const Y& y) {
  if (w.columns <= NarrowTile::columns)
    launch_first_layer<NarrowTile, precision>(context, f, w, y);
  else
    launch_first_layer<FirstLayerTile, precision>(context, f, w, y);
}

}  // namespace convlet::cuda
