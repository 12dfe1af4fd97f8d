// Convolutions without tensor cores: a thread per result, neighbours in the channels next to each
// other. For depthwise convolutions, where every value of x meets only a few weights.
#include "cuda/convolution.h"
#include "cuda/launch.h"
#include "cuda/operands.cuh"
#include "cuda/product.cuh"

namespace convlet::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kLanes = 8;  // threads that share the pixels of a weight's gradient

CONVLET_DEVICE std::int64_t first_item() {
  return static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
CONVLET_DEVICE std::int64_t all_threads() {
  return static_cast<std::int64_t>(gridDim.x) * blockDim.x;
}

// A position in an array (any length, rows, columns, channels).
struct Position {
  std::int64_t n, row, column, channel;
};
CONVLET_DEVICE Position position_of(std::int64_t index, std::int64_t rows, std::int64_t columns,
                                    std::int64_t channels) {
  const std::int64_t pixel = divide(index, channels), line = divide(pixel, columns);
  const std::int64_t n = divide(line, rows);
  return {n, line - n * rows, pixel - line * columns, index - pixel * channels};
}

__global__ void __launch_bounds__(kThreads, 1)
    direct_kernel(const Conv2dShape s, const float* x, const float* w, const float* bias,
                  Activation activation, float* y) {
  const std::int64_t C = s.C / s.groups, K = s.K / s.groups;
  const std::int64_t count = s.N * s.P * s.Q * s.K;
  for (std::int64_t i = first_item(); i < count; i += all_threads()) {
    const Position at = position_of(i, s.P, s.Q, s.K);
    const float* image = x + at.n * s.H * s.W * s.C + divide(at.channel, K) * C;
    float sum = 0.0f;
    for (std::int64_t r = 0; r < s.R; ++r) {
      const std::int64_t h = at.row * s.stride_h + r * s.dilation_h - s.pad_top;
      if (h < 0 || h >= s.H) continue;
      for (std::int64_t t = 0; t < s.S; ++t) {
        const std::int64_t v = at.column * s.stride_w + t * s.dilation_w - s.pad_left;
        if (v < 0 || v >= s.W) continue;
        const float* pixel = image + (h * s.W + v) * s.C;
        const float* weight = w + (r * s.S + t) * C * s.K + at.channel;
        for (std::int64_t c = 0; c < C; ++c) sum = fmaf(pixel[c], weight[c * s.K], sum);
      }
    }
    if (bias) sum += bias[at.channel];
    y[i] = scalar::activate(activation, sum);
  }
}

// The pixel of dy whose tap r meets pixel h of x; -1 where there is none.
CONVLET_DEVICE std::int64_t result_of(std::int64_t h, std::int64_t r, std::int64_t pad,
                                      std::int64_t dilation, std::int64_t stride,
                                      std::int64_t size) {
  const std::int64_t place = h + pad - r * dilation;
  if (place < 0) return -1;
  const std::int64_t p = divide(place, stride);
  return p * stride == place && p < size ? p : -1;
}

__global__ void __launch_bounds__(kThreads)
    direct_input_kernel(const Conv2dShape s, const float* dy, const float* w, float* dx) {
  const std::int64_t C = s.C / s.groups, K = s.K / s.groups;
  const std::int64_t count = s.N * s.H * s.W * s.C;
  for (std::int64_t i = first_item(); i < count; i += all_threads()) {
    const Position at = position_of(i, s.H, s.W, s.C);
    const std::int64_t group = divide(at.channel, C);
    float sum = 0.0f;
    for (std::int64_t r = 0; r < s.R; ++r) {
      const std::int64_t p = result_of(at.row, r, s.pad_top, s.dilation_h, s.stride_h, s.P);
      if (p < 0) continue;
      for (std::int64_t t = 0; t < s.S; ++t) {
        const std::int64_t q = result_of(at.column, t, s.pad_left, s.dilation_w, s.stride_w, s.Q);
        if (q < 0) continue;
        const float* pixel = dy + ((at.n * s.P + p) * s.Q + q) * s.K + group * K;
        const float* weight = w + ((r * s.S + t) * C + at.channel - group * C) * s.K + group * K;
        for (std::int64_t k = 0; k < K; ++k) sum = fmaf(pixel[k], weight[k], sum);
      }
    }
    dx[i] = sum;
  }
}

// A block is 32 elements of dw by kLanes; its part of the pixels is shared among the lanes.
__global__ void __launch_bounds__(32 * kLanes)
    direct_weight_kernel(const Conv2dShape s, std::int64_t parts, const float* dy, const float* x,
                         float* partial) {
  CONVLET_SHARED(float, shares, [kLanes][32]);
  const std::int64_t C = s.C / s.groups, K = s.K / s.groups;
  const std::int64_t size = s.R * s.S * C * s.K, pixels = s.N * s.P * s.Q;
  const std::int64_t pieces = (size + 31) / 32;
  const int lane = static_cast<int>(threadIdx.y);
  for (std::int64_t block = blockIdx.x; block < pieces * parts; block += gridDim.x) {
    const std::int64_t part = divide(block, pieces);
    const std::int64_t i = (block - part * pieces) * 32 + threadIdx.x;
    const std::int64_t end = pixels * (part + 1) / parts;
    float sum = 0.0f;
    if (i < size) {
      const Position at = position_of(i, s.S, C, s.K);  // (r, s, c, k)
      const std::int64_t channel = divide(at.channel, K) * C + at.column;
      for (std::int64_t m = pixels * part / parts + lane; m < end; m += kLanes) {
        const Position pixel = position_of(m, s.P, s.Q, 1);
        const std::int64_t h = pixel.row * s.stride_h + at.n * s.dilation_h - s.pad_top;
        const std::int64_t v = pixel.column * s.stride_w + at.row * s.dilation_w - s.pad_left;
        if (h < 0 || h >= s.H || v < 0 || v >= s.W) continue;
        sum =
            fmaf(x[((pixel.n * s.H + h) * s.W + v) * s.C + channel], dy[m * s.K + at.channel], sum);
      }
    }
    __syncthreads();
    shares[lane][threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && i < size) {
      for (int other = 1; other < kLanes; ++other) sum += shares[other][threadIdx.x];
      partial[part * size + i] = sum;
    }
  }
}

std::int64_t weight_parts(const Conv2dShape& s) {
  const std::int64_t pixels = s.N * s.P * s.Q;
  const std::int64_t pieces = ceil_div(s.weight().elements("conv2d"), 32);
  constexpr std::int64_t kEnough = 1024, kShortest = 256, kLongest = kLanes * kLongestPart;
  return std::max({std::min(pixels / kShortest, kEnough / pieces), ceil_div(pixels, kLongest),
                   std::int64_t{1}});
}

}  // namespace

bool is_direct(const Conv2dShape& s) {
  if (s.groups > 1 && s.C == s.groups) return true;
  const std::int64_t sizes[] = {s.C,
                                s.K,
                                s.R,
                                s.S,
                                s.stride_h,
                                s.stride_w,
                                s.dilation_h,
                                s.dilation_w,
                                s.H + s.pad_top + s.pad_bottom,
                                s.W + s.pad_left + s.pad_right};
  return *std::max_element(std::begin(sizes), std::end(sizes)) >= kLargestExtent;
}

std::size_t direct_workspace(const Conv2dShape& s, Pass pass) {
  if (pass != Pass::backward_weight || weight_parts(s) == 1) return 0;
  return static_cast<std::size_t>(weight_parts(s) * s.weight().elements("conv2d")) * sizeof(float);
}

void direct_convolve(Context& context, const Conv2dShape& s, const float* x, const float* w,
                     const float* bias, Activation activation, float* y) {
  launch(context, direct_kernel, dim3(blocks_for(context, s.N * s.P * s.Q * s.K, kThreads, 32)),
         dim3(kThreads), 0, s, x, w, bias, activation, y);
}

void direct_backward_input(Context& context, const Conv2dShape& s, const float* dy, const float* w,
                           float* dx) {
  launch(context, direct_input_kernel,
         dim3(blocks_for(context, s.N * s.H * s.W * s.C, kThreads, 32)), dim3(kThreads), 0, s, dy,
         w, dx);
}

void direct_backward_weight(Context& context, const Conv2dShape& s, const float* dy, const float* x,
                            float* dw, void* workspace) {
  const std::int64_t parts = weight_parts(s), size = s.weight().elements("conv2d");
  float* partial = parts == 1 ? dw : static_cast<float*>(workspace);
  launch(context, direct_weight_kernel,
         dim3(blocks_for(context, ceil_div(size, 32) * parts, 1, 32)), dim3(32, kLanes), 0, s,
         parts, dy, x, partial);
  if (parts > 1) finish_parts(context, parts, partial, size, s.K, nullptr, Activation::none, dw);
}

}  // namespace convlet::cuda
