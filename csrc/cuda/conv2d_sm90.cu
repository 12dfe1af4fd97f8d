// conv2d and its gradients in bfloat16 on sm_90a, where both sides have many channels. The factors
// are rounded to bfloat16 in the workspace first; then the copy engine finds the pixels that a tap
// meets, and zeros outside the image, so that every product takes in boxes of 64 channels or
// pixels.
#include "cuda/input_gradient.cuh"
#include "cuda/product_sm90.cuh"
#include "cuda/sm90.h"

namespace convlet::cuda {

// activation.cu
void activation(Context& context, std::int64_t n, Activation kind, float alpha, const float* x,
                float* y);

namespace sm90 {
namespace {

// ---------------------------------------------------------------- rounding

constexpr int kRoundThreads = 256;

// A row begins at a multiple of 16 bytes, as the copy engine wants it.
std::int64_t padded(std::int64_t channels) {
  return ceil_div(channels, 8) * 8;
}

// Rows of `columns` values become rows of 4 * pieces, with zeros at their end.
__global__ void __launch_bounds__(kRoundThreads)
    round_kernel(const float* from, std::int64_t rows, std::int64_t columns, bool vectors,
                 std::int64_t pieces, uint2* to) {
  const std::int64_t count = rows * pieces;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    const std::int64_t row = divide(i, pieces), column = (i - row * pieces) * 4;
    const float* values = from + row * columns + column;
    float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    if (vectors) {
      if (column < columns) v = *reinterpret_cast<const float4*>(values);
    } else {
      if (column < columns) v.x = values[0];
      if (column + 1 < columns) v.y = values[1];
      if (column + 2 < columns) v.z = values[2];
      if (column + 3 < columns) v.w = values[3];
    }
    using Rounded = Arithmetic<Precision::bfloat16>;
    to[i] = make_uint2(Rounded::pair(v.x, v.y), Rounded::pair(v.z, v.w));
  }
}

void round_rows(Context& context, const float* from, std::int64_t rows, std::int64_t columns,
                void* to) {
  const std::int64_t pieces = padded(columns) / 4;
  launch(context, round_kernel, dim3(blocks_for(context, rows * pieces, kRoundThreads, 8)),
         dim3(kRoundThreads), 0, from, rows, columns, is_aligned(from) && columns % 4 == 0, pieces,
         static_cast<uint2*>(to));
}

// ---------------------------------------------------------------- problems

// The windows of a map, by number.
struct WindowsOnDevice {
  Radix places = {1, 1};  // windows of an image
  int step_h, step_w, first_h, first_w;

  struct Place {
    int n, h, w;
  };
  CONVLET_DEVICE Place place(std::int64_t window) const {
    const Digits at = places.digits(window);
    return {static_cast<int>(at.high), at.middle * step_h + first_h, at.low * step_w + first_w};
  }
};

WindowsOnDevice on_device(const Windows& w) {
  return {{static_cast<int>(w.rows), static_cast<int>(w.columns)},
          static_cast<int>(w.step_h),
          static_cast<int>(w.step_w),
          static_cast<int>(w.first_h),
          static_cast<int>(w.first_w)};
}

// A window's taps, row by row, each of them `chunks` steps of channels.
struct Taps {
  int across, chunks;
  int offset_h, offset_w, step_h, step_w;  // in the window: of the first tap, and from one on
  int first, row, tap;                     // in the filter likewise
};

// y = patches of an image times a filter: conv2d, whose columns are next to each other in the
// filter, and one phase of the gradient of its input, whose terms are.
template <bool transposed_b>
struct ImageProduct {
  static constexpr bool kTransposedA = false, kTransposedB = transposed_b;

  CUtensorMap image, filter;
  WindowsOnDevice windows;
  Taps taps;
  Result y;

  struct Place {
    WindowsOnDevice::Place window;
    int column;
  };
  CONVLET_DEVICE Place place(int row_tile, int column) const {
    return {windows.place(std::int64_t{row_tile} * kTileRows), column};
  }
  template <int columns>
  CONVLET_DEVICE void copy(const Place& at, int step, __nv_bfloat16* a, __nv_bfloat16* b,
                           std::uint64_t* mbarrier) const {
    const int tap = step / taps.chunks, channel = (step - tap * taps.chunks) * kStepTerms;
    const int r = tap / taps.across, s = tap - r * taps.across;
    copy_pixels(a, &image, channel, at.window.w, at.window.h, at.window.n,
                taps.offset_w + s * taps.step_w, taps.offset_h + r * taps.step_h, mbarrier);
    const int filter_tap = taps.first + r * taps.row + s * taps.tap;
    if (transposed_b) {
#pragma unroll
      for (int i = 0; i < columns / 64; ++i)
        copy_box(b + i * kSquare, &filter, at.column + 64 * i, channel, filter_tap, mbarrier);
    } else {
      copy_box(b, &filter, channel, at.column, filter_tap, mbarrier);
    }
  }
  CONVLET_DEVICE RowRange rows(int unit) const {
    const std::int64_t first = std::int64_t{unit} * kUnit, left = y.rows - first;
    return {first, static_cast<int>(left < kUnit ? left : kUnit)};
  }
};

// dw = patches of x, transposed, times dy: the terms are pixels. 64 rows are channels of one tap.
struct WeightProduct {
  static constexpr bool kTransposedA = true, kTransposedB = true;

  CUtensorMap image, gradient;
  WindowsOnDevice windows;
  int units, across, chunks;  // of all taps; taps of a row; units of a tap
  int channels, step_h, step_w;
  Result y;

  struct Place {
    int channel[2], offset_h[2], offset_w[2];
    int column;
  };
  CONVLET_DEVICE Place place(int row_tile, int column) const {
    Place at;
    at.column = column;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int next = 2 * row_tile + i, unit = next < units ? next : units - 1;
      const int tap = unit / chunks;
      at.channel[i] = (unit - tap * chunks) * kUnit;
      at.offset_h[i] = tap / across * step_h;
      at.offset_w[i] = tap % across * step_w;
    }
    return at;
  }
  template <int columns>
  CONVLET_DEVICE void copy(const Place& at, int step, __nv_bfloat16* a, __nv_bfloat16* b,
                           std::uint64_t* mbarrier) const {
    const int pixel = step * kStepTerms;
    const auto window = windows.place(pixel);
#pragma unroll
    for (int i = 0; i < 2; ++i)
      copy_pixels(a + i * kSquare, &image, at.channel[i], window.w, window.h, window.n,
                  at.offset_w[i], at.offset_h[i], mbarrier);
#pragma unroll
    for (int i = 0; i < columns / 64; ++i)
      copy_box(b + i * kSquare, &gradient, at.column + 64 * i, pixel, 0, mbarrier);
  }
  CONVLET_DEVICE RowRange rows(int unit) const {
    const int tap = unit / chunks, channel = (unit - tap * chunks) * kUnit;
    const int left = unit < units ? channels - channel : 0;
    return {static_cast<std::int64_t>(tap) * channels + channel, left < kUnit ? left : kUnit};
  }
};

// ---------------------------------------------------------------- shapes

std::int64_t chunks_of(std::int64_t channels) {
  return ceil_div(channels, kStepTerms);
}

// The windows over x, and those over dy of one phase of dx.
Windows windows_of_x(const Conv2dShape& s, int box_pixels) {
  return {s.N, s.H, s.W,        s.C,        padded(s.C), -s.pad_top, -s.pad_left,
          s.P, s.Q, s.stride_h, s.stride_w, box_pixels,  kStepTerms, Swizzle::span_128};
}

// A tap's place in dy falls from tap to tap: the window begins with the last.
std::int64_t window_of_phase(const Axis::Phase& phase) {
  return phase.first_place + phase.place * (phase.taps - 1);
}
Windows windows_of_dy(const Conv2dShape& s, const Axis::Phase& h, const Axis::Phase& w) {
  return {s.N,      s.P,      s.Q, s.K, padded(s.K), window_of_phase(h), window_of_phase(w),
          h.pixels, w.pixels, 1,   1,   kTileRows,   kStepTerms,         Swizzle::span_128};
}

// Whether the copy engine's maps can describe the pass.
bool has_maps_for(const Conv2dShape& s, Pass pass) {
  if (pass != Pass::backward_input)
    return has_map(windows_of_x(s, kTileRows), (s.R - 1) * s.dilation_h, (s.S - 1) * s.dilation_w);
  const Axis vertical = vertical_axis(s), horizontal = horizontal_axis(s);
  for (int i = 0; i < vertical.phases(); ++i)
    for (int j = 0; j < horizontal.phases(); ++j) {
      const Axis::Phase h = vertical.phase(i), w = horizontal.phase(j);
      if (h.taps && w.taps &&
          !has_map(windows_of_dy(s, h, w), -h.place * (h.taps - 1), -w.place * (w.taps - 1)))
        return false;
    }
  return true;
}

// A pass as tiles of a product, and the workspace that it takes.
struct Work {
  Cut cut;
  int columns, steps;     // of a tile; of the longest sum
  std::int64_t elements;  // of the whole result
  char *first, *second;   // rounded: the image, and the filter or dy
  void* parts;
  std::size_t bytes;
};

void choose_tiles(Work& work, const ProductShape& shape) {
  constexpr std::int64_t kEnoughWide = 96;
  auto cut_by = [&](int columns) {
    work.columns = columns;
    work.cut = cut_into(shape, TileKind::wide, kTileRows, columns);
  };
  if (shape.columns <= 64) return cut_by(64);
  cut_by(256);  // reads least, where there are enough of them and not one half is empty
  if (ceil_div(shape.columns, 128) % 2 || work.cut.blocks() < kEnoughWide) cut_by(128);
}

Work make_work(const Conv2dShape& s, Pass pass, void* memory) {
  const std::int64_t taps = s.R * s.S, x_pixels = s.N * s.H * s.W, y_pixels = s.N * s.P * s.Q;
  const std::int64_t x = x_pixels * padded(s.C), dy = y_pixels * padded(s.K);
  const std::int64_t w = taps * s.C * padded(s.K);
  Work work = {};
  ProductShape shape = {};
  if (pass == Pass::forward) {
    shape = {y_pixels, s.K, taps * chunks_of(s.C) * kStepTerms, 1, y_pixels * s.K};
  } else if (pass == Pass::backward_input) {
    shape = backward_input_product(s, 1);
    shape.terms = shape.terms / s.K * chunks_of(s.K) * kStepTerms;
  } else {
    shape = {taps * chunks_of(s.C) * kUnit, s.K, ceil_div(y_pixels, kStepTerms) * kStepTerms, 1,
             taps * s.C * s.K};
  }
  choose_tiles(work, shape);
  work.cut.slices = 1;  // phases are launched one by one
  work.steps = static_cast<int>(shape.terms / kStepTerms);
  work.elements = shape.elements;

  char* next = static_cast<char*>(memory);
  auto take = [&](std::int64_t bytes) {
    char* taken = next;
    next += ceil_div(bytes, 256) * 256;
    return taken;
  };
  work.first = take(2 * (pass == Pass::backward_input ? dy : x));
  work.second = take(2 * (pass == Pass::backward_weight ? dy : w));
  work.parts = take(work.cut.parts > 1 ? 4 * work.cut.parts * work.elements : 0);
  work.bytes = static_cast<std::size_t>(next - static_cast<char*>(memory));
  return work;
}

// Fewer channels are bound by memory, and rounding them first only adds to that.
bool is_fit(const Conv2dShape& s, Pass pass) {
  constexpr std::int64_t kMostPixels = std::int64_t{1} << 30, kMostStride = 8;
  return s.groups == 1 && s.C >= 64 && s.K >= 64 && !is_direct(s) &&
         s.N * std::max(s.H * s.W, s.P * s.Q) < kMostPixels &&
         std::max(s.stride_h, s.stride_w) <= kMostStride && has_maps_for(s, pass) &&
         make_work(s, pass, nullptr).cut.blocks() < kMostPixels;
}

CUtensorMap filter_map(const Conv2dShape& s, const void* rounded, int box_rows) {
  return make_map(rounded,
                  Box{s.K, s.C, s.R * s.S, padded(s.K), kStepTerms, box_rows, Swizzle::span_128});
}

struct Destination {
  Result y;
};

}  // namespace

// ---------------------------------------------------------------- the members of Kernels

std::size_t conv2d_workspace(const Conv2dShape& s, Pass pass, int threads) {
  if (!is_fit(s, pass)) return cuda::conv2d_workspace<Precision::bfloat16>(s, pass, threads);
  return make_work(s, pass, nullptr).bytes;
}

void conv2d(Context& context, const Conv2dShape& s, const float* x, const float* w,
            const float* bias, Activation kind, float* y, void* workspace) {
  if (!is_fit(s, Pass::forward))
    return cuda::conv2d<Precision::bfloat16>(context, s, x, w, bias, kind, y, workspace);
  if (s.N == 0) return;
  const Work work = make_work(s, Pass::forward, workspace);
  round_rows(context, x, s.N * s.H * s.W, s.C, work.first);
  round_rows(context, w, s.R * s.S * s.C, s.K, work.second);

  const Windows windows = windows_of_x(s, kTileRows);
  ImageProduct<true> product = {};
  product.image = make_map(work.first, windows);
  product.filter = filter_map(s, work.second, kStepTerms);
  product.windows = on_device(windows);
  const int S = static_cast<int>(s.S);
  product.taps = {S,
                  static_cast<int>(chunks_of(s.C)),
                  0,
                  0,
                  static_cast<int>(s.dilation_h),
                  static_cast<int>(s.dilation_w),
                  0,
                  S,
                  1};
  Destination whole = {matrix_result(y, s.N * s.P * s.Q, s.K, s.K, 0)};
  whole.y.bias = bias;
  whole.y.activation = kind;
  multiply_parts(context, whole, work.cut, work.elements, s.K, work.parts,
                 [&](const Destination& to) {
                   product.y = to.y;
                   launch_product(context, product, work.cut, work.columns, work.steps);
                 });
  // A tile's sums leave no registers for the other formulas.
  if (work.cut.parts == 1 && kind != Activation::none && kind != Activation::relu)
    activation(context, work.elements, kind, 0.0f, y, y);
}

void conv2d_backward_input(Context& context, const Conv2dShape& s, const float* dy, const float* w,
                           float* dx, void* workspace) {
  if (!is_fit(s, Pass::backward_input))
    return cuda::conv2d_backward_input<Precision::bfloat16>(context, s, dy, w, dx, workspace);
  if (s.N == 0) return;
  const Work work = make_work(s, Pass::backward_input, workspace);
  round_rows(context, dy, s.N * s.P * s.Q, s.K, work.first);
  round_rows(context, w, s.R * s.S * s.C, s.K, work.second);

  const Axis vertical = vertical_axis(s), horizontal = horizontal_axis(s);
  const std::int64_t pixel = s.C, row = s.W * s.C;
  auto run_phase = [&](Result y, int i, int j) {
    const Axis::Phase h = vertical.phase(i), v = horizontal.phase(j);
    const int taps = h.taps * v.taps, chunks = static_cast<int>(chunks_of(s.K));
    y.data += i * row + j * pixel;
    y.rows = s.N * h.pixels * v.pixels;
    y.pixels = {h.pixels, v.pixels};
    y.image = s.H * row, y.row = s.stride_h * row, y.pixel = s.stride_w * pixel;
    ImageProduct<false> product = {};
    product.y = y;
    if (taps) {
      const Windows windows = windows_of_dy(s, h, v);
      product.image = make_map(work.first, windows);
      product.windows = on_device(windows);
      product.taps = {v.taps,
                      chunks,
                      -h.place * (h.taps - 1),
                      -v.place * (v.taps - 1),
                      h.place,
                      v.place,
                      h.first_tap * static_cast<int>(s.S) + v.first_tap,
                      vertical.tap_step * static_cast<int>(s.S),
                      horizontal.tap_step};
    }
    product.filter = filter_map(s, work.second, work.columns);
    Cut cut = work.cut;
    cut.row_tiles = ceil_div(y.rows, kTileRows);
    launch_product(context, product, cut, work.columns, taps * chunks);
  };
  multiply_parts(context, Destination{matrix_result(dx, 0, s.C, s.C, 0)}, work.cut, work.elements,
                 s.C, work.parts, [&](const Destination& to) {
                   for (int i = 0; i < vertical.phases(); ++i)
                     for (int j = 0; j < horizontal.phases(); ++j) run_phase(to.y, i, j);
                 });
}

void conv2d_backward_weight(Context& context, const Conv2dShape& s, const float* dy, const float* x,
                            float* dw, void* workspace) {
  if (s.N == 0 || !is_fit(s, Pass::backward_weight))
    return cuda::conv2d_backward_weight<Precision::bfloat16>(context, s, dy, x, dw, workspace);
  const Work work = make_work(s, Pass::backward_weight, workspace);
  const std::int64_t pixels = s.N * s.P * s.Q;
  round_rows(context, x, s.N * s.H * s.W, s.C, work.first);
  round_rows(context, dy, pixels, s.K, work.second);

  const Windows windows = windows_of_x(s, kStepTerms);
  WeightProduct product = {};
  product.image = make_map(work.first, windows);
  product.gradient = make_map(
      work.second, Box{s.K, pixels, 1, padded(s.K), kStepTerms, kStepTerms, Swizzle::span_128});
  product.windows = on_device(windows);
  product.chunks = static_cast<int>(chunks_of(s.C));
  product.units = static_cast<int>(s.R * s.S) * product.chunks;
  product.across = static_cast<int>(s.S);
  product.channels = static_cast<int>(s.C);
  product.step_h = static_cast<int>(s.dilation_h), product.step_w = static_cast<int>(s.dilation_w);
  multiply_parts(context, Destination{matrix_result(dw, s.R * s.S * s.C, s.K, s.K, 0)}, work.cut,
                 work.elements, s.K, work.parts, [&](const Destination& to) {
                   product.y = to.y;
                   launch_product(context, product, work.cut, work.columns, work.steps);
                 });
}

}  // namespace sm90
}  // namespace convlet::cuda
