// The results of a convolution cut into tiles, for kernels that bring the part of the image that a
// tile needs to shared memory: whole lines of results, or a part of one. With a pooling after it,
// lines of its windows. The results of a tile follow each other in the order of the product's rows.
#pragma once
#include "cuda/convolution.cuh"

namespace convlet::cuda {

// What a copy to shared memory finds.
enum class Pixels { floats, bytes, normalised_bytes };

// What a normalization does in a channel: (value - mean) * factor.
struct alignas(8) ChannelNorm {
  float mean, factor;
};
constexpr int kChannelNorms = 6;  // of the channels over and over: four in a row from any of three

struct ImageTiles {
  Images x;
  std::int64_t image;         // elements
  int height, row, channels;  // lines of an image, elements of a line
  int stride_h, stride_w, dilation_h;
  int first_h, first_w;  // where the first tap of the first result falls
  int taps_w;
  int P, Q, window_h, window_w;      // results, whole windows; 1x1 without pooling
  int tile_h, tile_w, down, across;  // of a tile, and how many tiles an image has
  int lines, width;                  // of the image for a tile; pixels
  std::int64_t tiles;

  CONVLET_DEVICE int results() const { return tile_h * tile_w; }
  // What a byte stands for: the arithmetic of `scale`, and then of `batch_norm`.
  CONVLET_DEVICE float value(std::uint8_t byte) const {
    return fmaf(x.bytes.factor, static_cast<float>(byte), x.bytes.offset);
  }
  CONVLET_DEVICE float value(std::uint8_t byte, const ChannelNorm& norm) const {
    return fmaf(value(byte) - norm.mean, norm.factor, 0.0f);
  }
};

// copy(pixels), where the type of pixels is a constant.
template <class Copy>
CONVLET_DEVICE int with_pixels(const Images& x, const Copy& copy) {
  if (x.floats) return copy(std::integral_constant<Pixels, Pixels::floats>{});
  if (!x.bytes.mean) return copy(std::integral_constant<Pixels, Pixels::bytes>{});
  return copy(std::integral_constant<Pixels, Pixels::normalised_bytes>{});
}

// Into shared memory, if there is a normalization; all threads may read them then.
CONVLET_DEVICE void make_channel_norms(const ImageTiles& t, ChannelNorm* norms) {
  if (!t.x.bytes.mean) return;
  if (threadIdx.x < kChannelNorms) {
    const int channel = static_cast<int>(threadIdx.x) % t.channels;
    norms[threadIdx.x] = {__ldg(t.x.bytes.mean + channel),
                          1.0f / sqrtf(__ldg(t.x.bytes.variance + channel) + t.x.bytes.epsilon)};
  }
  __syncthreads();
}

// Tiles of at most `most` results, which is a multiple of the windows' pixels.
inline ImageTiles image_tiles(const Conv2dShape& s, int window_h, int window_w, int most,
                              const Images& x) {
  ImageTiles t;
  t.x = x, t.image = s.H * s.W * s.C;
  t.height = static_cast<int>(s.H), t.row = static_cast<int>(s.W * s.C);
  t.channels = static_cast<int>(s.C);
  t.stride_h = static_cast<int>(s.stride_h), t.stride_w = static_cast<int>(s.stride_w);
  t.dilation_h = static_cast<int>(s.dilation_h);
  t.first_h = static_cast<int>(-s.pad_top), t.first_w = static_cast<int>(-s.pad_left);
  t.taps_w = static_cast<int>(s.S);
  t.P = static_cast<int>(s.P), t.Q = static_cast<int>(s.Q);
  t.window_h = window_h, t.window_w = window_w;
  const int longest = most / window_h;
  t.tile_w = std::min(t.Q, longest / window_w * window_w);
  t.tile_h = t.tile_w < t.Q ? window_h : std::min(t.P, longest / t.Q * window_h);
  t.down = static_cast<int>(ceil_div(t.P, t.tile_h));
  t.across = static_cast<int>(ceil_div(t.Q, t.tile_w));
  t.tiles = s.N * t.down * t.across;
  t.lines = (t.tile_h - 1) * t.stride_h + static_cast<int>((s.R - 1) * s.dilation_h) + 1;
  t.width = (t.tile_w - 1) * t.stride_w + t.taps_w;
  return t;
}

// Whether an image has one to three channels, and nothing that these kernels have no way for.
inline bool has_few_channels(const Conv2dShape& s) {
  return s.C <= 3 && s.groups == 1 && s.dilation_w == 1 && s.R * s.S <= 128 &&
         std::max({s.stride_h, s.stride_w, s.dilation_h}) <= 16 && s.P * s.Q > 0 && !is_direct(s);
}

constexpr std::size_t kMostShared = std::size_t{96} << 10;  // of a block where it is smallest

// A tile: its results begin with `first` of all.
struct TilePlace {
  std::int64_t image;  // its first element
  int h, w;            // of the pixel of the image that its first result begins with
  int count;
  std::int64_t first;
};

CONVLET_DEVICE TilePlace tile_place(const ImageTiles& t, std::int64_t tile) {
  const std::int64_t line = divide(tile, t.across), n = divide(line, t.down);
  const int p = static_cast<int>(line - n * t.down) * t.tile_h;
  const int q = static_cast<int>(tile - line * t.across) * t.tile_w;
  const int left_h = t.P - p, left_w = t.Q - q;
  return {n * t.image, p * t.stride_h + t.first_h, q * t.stride_w + t.first_w,
          (left_h < t.tile_h ? left_h : t.tile_h) * (left_w < t.tile_w ? left_w : t.tile_w),
          (n * t.P + p) * t.Q + q * t.window_h};
}

// Where in the image result m of a tile begins, from where the first does.
struct Pixel {
  int h, w;
};
CONVLET_DEVICE Pixel pixel_of(const ImageTiles& t, int m) {
  const int of_window = t.window_h * t.window_w, across = t.tile_w / t.window_w;
  const int window = m / of_window, pixel = m % of_window;
  return {(window / across * t.window_h + pixel / t.window_w) * t.stride_h,
          (window % across * t.window_w + pixel % t.window_w) * t.stride_w};
}

}  // namespace convlet::cuda
