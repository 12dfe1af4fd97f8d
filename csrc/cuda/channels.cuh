// Rows of channels: how normalizations walk over them, and sum along them. A thread has one group
// of neighbouring channels, whose factors it keeps in registers, and goes down the rows; the
// threads beside it have the next channels, so that a warp reads whole lines.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/host_device.h"
#include "cuda/gpu.cuh"
#include "cuda/launch.h"
#include "cuda/transform.cuh"

namespace convlet::cuda {

constexpr int kChannelThreads = 256;

// `segments` matrices of `rows` rows of C channels, one behind the other, in pieces of some
// channels of a part of a segment's rows. How they are cut depends on the shape alone.
struct ChannelGrid {
  std::int64_t segments, rows, channels;
  std::int64_t parts, tiles;  // of the rows of a segment, and of the channels
  int vector;                 // channels per thread: 1 or 4
  int width;                  // threads along the channels of a piece, a power of two

  CONVLET_HOST_DEVICE std::int64_t pieces() const { return segments * parts * tiles; }
  // Doubles that sum_channels writes.
  std::int64_t sums() const { return segments * parts * 2 * channels; }
};

inline ChannelGrid cut_channels(ChannelGrid g, int vector) {
  const std::int64_t groups = (g.channels + vector - 1) / vector;
  g.vector = vector;
  g.width = 1;
  while (g.width < 32 && g.width < groups) g.width *= 2;
  g.tiles = (groups + g.width - 1) / g.width;
  return g;
}

inline ChannelGrid channel_grid(std::int64_t segments, std::int64_t rows, std::int64_t channels) {
  // A thread has some rows to sum before threads are merged; more pieces than these fill no device
  // better.
  constexpr std::int64_t kRowsOfThread = 8, kMostPieces = 1024;
  ChannelGrid g = cut_channels({segments, rows, channels, 1, 1, 1, 1}, channels % 4 == 0 ? 4 : 1);
  const std::int64_t height = kChannelThreads / g.width;
  const std::int64_t most = kMostPieces / std::max<std::int64_t>(1, segments * g.tiles);
  g.parts = std::max<std::int64_t>(1, std::min(rows / (height * kRowsOfThread), most));
  return g;
}

// f(std::integral_constant<int, vector>, grid), with 4 channels per thread where the shape and
// these pointers allow it. The parts stay those of the shape.
template <class F, class... T>
void with_vector(ChannelGrid g, F&& f, const T*... pointers) {
  if (g.vector == 4 && (aligned_16(pointers) && ...))
    f(std::integral_constant<int, 4>(), g);
  else
    f(std::integral_constant<int, 1>(), cut_channels(g, 1));
}

template <int kVector>
CONVLET_DEVICE void load_values(const float* p, float (&v)[kVector]) {
  if constexpr (kVector == 4) {
    const float4 q = *reinterpret_cast<const float4*>(p);
    v[0] = q.x;
    v[1] = q.y;
    v[2] = q.z;
    v[3] = q.w;
  } else {
    v[0] = *p;
  }
}
template <int kVector>
CONVLET_DEVICE void store_values(float* p, const float (&v)[kVector]) {
  if constexpr (kVector == 4)
    *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
  else
    *p = v[0];
}
// The same of values that may be left out.
template <int kVector>
CONVLET_DEVICE void load_values(const float* p, std::int64_t at, float otherwise,
                                float (&v)[kVector]) {
  if (p)
    load_values(p + at, v);
  else
    for (int j = 0; j < kVector; ++j) v[j] = otherwise;
}

// What one thread has of a piece: rows first + i * step below last, and channels from `channel` on,
// none where that is not below the grid's.
struct ChannelPiece {
  std::int64_t segment, part, first, last, channel;
};

CONVLET_DEVICE ChannelPiece channel_piece(const ChannelGrid& g, std::int64_t index) {
  const std::int64_t tile = index % g.tiles, rest = index / g.tiles;
  const int column = static_cast<int>(threadIdx.x) & (g.width - 1);
  ChannelPiece piece;
  piece.segment = rest / g.parts;
  piece.part = rest % g.parts;
  piece.first = g.rows * piece.part / g.parts;
  piece.last = g.rows * (piece.part + 1) / g.parts;
  piece.channel = (tile * g.width + column) * g.vector;
  return piece;
}

inline unsigned blocks_of(std::int64_t pieces) {
  return static_cast<unsigned>(std::min<std::int64_t>(pieces, std::int64_t{1} << 30));
}

// ---------------------------------------------------------------- every element

// For every piece and thread: state = f.start(segment, channel), then f.apply(state, at) for
// the elements at, at + 1, ... of its channels in each row.
template <int kVector, class F>
__global__ void __launch_bounds__(kChannelThreads) map_channels_kernel(ChannelGrid g, F f) {
  const int step = kChannelThreads / g.width, line = static_cast<int>(threadIdx.x) / g.width;
  for (std::int64_t index = blockIdx.x; index < g.pieces(); index += gridDim.x) {
    const ChannelPiece piece = channel_piece(g, index);
    if (piece.channel >= g.channels || piece.first == piece.last) continue;
    const auto state = f.start(piece.segment, piece.channel);
    const std::int64_t before = piece.segment * g.rows;
#pragma unroll 1
    for (std::int64_t row = piece.first + line; row < piece.last; row += step)
      f.apply(state, (before + row) * g.channels + piece.channel);
  }
}

template <int kVector, class F>
void map_channels(Context& context, const ChannelGrid& g, const F& f) {
  launch(context, map_channels_kernel<kVector, F>, dim3(blocks_of(g.pieces())),
         dim3(kChannelThreads), 0, g, f);
}

// ---------------------------------------------------------------- sums along the rows

// For every part of every segment, two sums by channel over its rows:
//   sums[((segment * parts + part) * 2 + which) * C + c].
// state = f.start(segment, first row of the part, channel); f.add(state, row, at, a, b) adds
// a row's share to both; F::kUnroll rows are read ahead. Sums are in float32 over 32 rows of a
// thread, then in float64.
template <int kVector, class F>
__global__ void __launch_bounds__(kChannelThreads, 1)
    sum_channels_kernel(ChannelGrid g, F f, double* sums) {
  constexpr int kRowsOfFloat = 32;
  CONVLET_SHARED(double, partial, [2 * kVector][kChannelThreads]);
  const int thread = static_cast<int>(threadIdx.x);
  const int step = kChannelThreads / g.width, line = thread / g.width;
  for (std::int64_t index = blockIdx.x; index < g.pieces(); index += gridDim.x) {
    const ChannelPiece piece = channel_piece(g, index);
    double total[2][kVector] = {};
    if (piece.channel < g.channels && piece.first < piece.last) {
      const auto state = f.start(piece.segment, piece.first, piece.channel);
      const std::int64_t before = piece.segment * g.rows;
      for (std::int64_t row = piece.first + line; row < piece.last;) {
        float a[kVector] = {}, b[kVector] = {};
        const std::int64_t stop = min(piece.last, row + step * kRowsOfFloat);
#pragma unroll F::kUnroll
        for (; row < stop; row += step)
          f.add(state, before + row, (before + row) * g.channels + piece.channel, a, b);
        for (int j = 0; j < kVector; ++j) {
          total[0][j] += static_cast<double>(a[j]);
          total[1][j] += static_cast<double>(b[j]);
        }
      }
    }
    for (int j = 0; j < kVector; ++j) {
      partial[j][thread] = total[0][j];
      partial[kVector + j][thread] = total[1][j];
    }
    __syncthreads();
    for (int half = kChannelThreads / 2; half >= g.width; half /= 2) {
      if (thread < half)
        for (int j = 0; j < 2 * kVector; ++j) partial[j][thread] += partial[j][thread + half];
      __syncthreads();
    }
    if (line == 0 && piece.channel < g.channels) {
      double* to = sums + (piece.segment * g.parts + piece.part) * 2 * g.channels + piece.channel;
      for (int j = 0; j < kVector; ++j) {
        to[j] = partial[j][thread];
        to[g.channels + j] = partial[kVector + j][thread];
      }
    }
    __syncthreads();
  }
}

template <int kVector, class F>
void sum_channels(Context& context, const ChannelGrid& g, const F& f, double* sums) {
  launch(context, sum_channels_kernel<kVector, F>, dim3(blocks_of(g.pieces())),
         dim3(kChannelThreads), 0, g, f, sums);
}

// A block of 32 channels by 8 threads that share the parts of each.
constexpr int kMergeColumns = 32, kMergeLines = 8;

// The totals over `count` sums of two values by channel, `pitch` doubles apart, times the weight
// that weight(i) gives to the i-th: for the threads with threadIdx.y = 0.
struct ChannelTotals {
  double first, second;
};
template <class Weight>
CONVLET_DEVICE ChannelTotals merge_sums(const double* sums, std::int64_t count,
                                        std::int64_t channels, std::int64_t c, Weight weight) {
  CONVLET_SHARED(double, partial, [2][kMergeLines][kMergeColumns]);
  const int x = static_cast<int>(threadIdx.x), y = static_cast<int>(threadIdx.y);
  double first = 0.0, second = 0.0;
  if (c < channels)
    for (std::int64_t i = y; i < count; i += kMergeLines) {
      const double* at = sums + i * 2 * channels + c;
      first += at[0];
      second += weight(i) * at[channels];
    }
  partial[0][y][x] = first;
  partial[1][y][x] = second;
  __syncthreads();
  for (int half = kMergeLines / 2; half > 0; half /= 2) {
    if (y < half) {
      partial[0][y][x] += partial[0][y + half][x];
      partial[1][y][x] += partial[1][y + half][x];
    }
    __syncthreads();
  }
  return {partial[0][0][x], partial[1][0][x]};
}

inline dim3 merge_grid(std::int64_t channels) {
  return dim3(blocks_of((channels + kMergeColumns - 1) / kMergeColumns));
}
inline dim3 merge_block() {
  return dim3(kMergeColumns, kMergeLines);
}

}  // namespace convlet::cuda
