// conv2d_pool (ops/conv2d_pool.h). Forward, the maxima are taken of a tile of the convolution in
// shared memory; where a tile has no whole windows, or the sum is cut, of the convolution in the
// workspace. Backward, the convolution's gradient is made there for the products of conv2d, but for
// the weights of windows of four pixels: conv2d_pool_backward_weight.cu.
#include "cuda/conv2d_pool.cuh"
#include "cuda/first_layer.cuh"

namespace convlet::cuda {
namespace {

constexpr std::int64_t kSmallestTile = 32;  // rows

ProductShape product_of(const Conv2dPoolShape& s) {
  return forward_product(s.conv, 1);
}

bool pools_tiles(const Conv2dPoolShape& s, Precision precision) {
  return kSmallestTile % (s.pool.R * s.pool.S) == 0 && !is_direct(s.conv) &&
         cut_product(product_of(s), precision).parts == 1;
}

PooledResult pooled_result(const Conv2dPoolShape& s, const float* bias, Activation activation,
                           float* y, std::uint8_t* choice) {
  const bool vectors = wide_rows(s.pool.C, y) && reinterpret_cast<std::uintptr_t>(choice) % 4 == 0;
  return {y,      choice, s.conv.N * s.conv.P * s.conv.Q,        s.pool.C,
          0,      bias,   static_cast<int>(s.pool.R * s.pool.S), activation == Activation::relu,
          vectors};
}

PooledConvolution pooled_convolution(const Conv2dPoolShape& s, const float* x, const float* w,
                                     const PooledResult& y) {
  PooledConvolution problem;
  problem.a = window_patches(s, x);
  problem.terms = product_of(s).terms;
  problem.b = matrix(w, problem.terms, s.conv.K, s.conv.K, 0);
  problem.y = y;
  return problem;
}

std::int64_t pixels_of(const Conv2dPoolShape& s) {
  return s.conv.N * s.conv.P * s.conv.Q * s.conv.K;
}

// A piece of workspace for the convolution or its gradient; what conv2d needs lies behind it.
std::size_t plane_bytes(const Conv2dPoolShape& s) {
  return static_cast<std::size_t>((pixels_of(s) + 63) / 64 * 64) * sizeof(float);
}
void* behind_plane(const Conv2dPoolShape& s, void* workspace) {
  return static_cast<char*>(workspace) + plane_bytes(s);
}

// An item is four channels of a window.
struct WindowPlace {
  std::int64_t window, channel, first;  // first: its first pixel in the convolution
};
CONVLET_DEVICE WindowPlace window_place(std::int64_t item, const Pool2dShape& s) {
  WindowPlace at;
  at.channel = 4 * take_coordinate(item, (s.C + 3) / 4);
  at.window = item;
  const std::int64_t q = take_coordinate(item, s.Q);  // item is now a row of windows
  at.first = (item * s.R * s.W + q * s.S) * s.C + at.channel;
  return at;
}

__global__ void __launch_bounds__(kThreads, 1)
    choose_kernel(std::int64_t items, Pool2dShape s, const float* z, PooledResult y) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const WindowPlace at = window_place(item, s);
    Chosen chosen;
    int pixel = 0;
    for (std::int64_t i = 0; i < s.R; ++i)
      for (std::int64_t j = 0; j < s.S; ++j)
        chosen.take(load_quad(z + at.first + (i * s.W + j) * s.C, s.C - at.channel, y.vectors),
                    pixel++);
    y.store(at.window, at.channel, chosen);
  }
}

// dz: dy where the forward chose, 0 elsewhere.
__global__ void __launch_bounds__(kThreads, 1)
    unpool_kernel(std::int64_t items, Pool2dShape s, const float* dy, const std::uint8_t* choice,
                  float* dz, bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const WindowPlace at = window_place(item, s);
    const std::int64_t from = at.window * s.C + at.channel, left = s.C - at.channel;
    const Quad g = load_quad(dy + from, left, wide);
    int chosen[4];
    if (wide) {
      const uchar4 c = *reinterpret_cast<const uchar4*>(choice + from);
      chosen[0] = c.x, chosen[1] = c.y, chosen[2] = c.z, chosen[3] = c.w;
    } else {
#pragma unroll
      for (int k = 0; k < 4; ++k) chosen[k] = k < left ? choice[from + k] : kNoChoice;
    }
    int pixel = 0;
    for (std::int64_t i = 0; i < s.R; ++i)
      for (std::int64_t j = 0; j < s.S; ++j, ++pixel) {
        Quad share;
#pragma unroll
        for (int k = 0; k < 4; ++k) share[k] = chosen[k] == pixel ? g[k] : 0.0f;
        store_quad(dz + at.first + (i * s.W + j) * s.C, share, left, wide);
      }
  }
}

constexpr int kLanes = 8;  // threads that share the rows of a part

// The sum of dy where something was chosen, by channel and part of the rows. A block is 32 channels
// by kLanes.
__global__ void __launch_bounds__(32 * kLanes, 1)
    chosen_sums_kernel(std::int64_t rows, std::int64_t channels, std::int64_t parts,
                       const float* dy, const std::uint8_t* choice, float* sums) {
  CONVLET_SHARED(float, shares, [kLanes][32]);
  const std::int64_t columns = (channels + 31) / 32;
  const int lane = static_cast<int>(threadIdx.y);
  for (std::int64_t block = blockIdx.x; block < columns * parts; block += gridDim.x) {
    const std::int64_t part = divide(block, columns);
    const std::int64_t c = (block - part * columns) * 32 + threadIdx.x;
    float sum = 0.0f;
    if (c < channels)
      for (std::int64_t n = rows * part / parts + lane; n < rows * (part + 1) / parts;
           n += kLanes) {
        const float value = dy[n * channels + c];  // does not wait for the choice
        sum += choice[n * channels + c] == kNoChoice ? 0.0f : value;
      }
    shares[lane][threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && c < channels) {
      for (int other = 1; other < kLanes; ++other) sum += shares[other][threadIdx.x];
      sums[part * channels + c] = sum;
    }
    __syncthreads();
  }
}

std::int64_t window_items(const Pool2dShape& s) {
  return s.N * s.P * s.Q * quads_of(s.C);
}

float* unpool(Context& context, const Pool2dShape& s, const float* dy, const std::uint8_t* choice,
              void* workspace) {
  float* dz = static_cast<float*>(workspace);
  const bool wide =
      wide_rows(s.C, dy) && wide_rows(s.C, dz) && reinterpret_cast<std::uintptr_t>(choice) % 4 == 0;
  launch_items(context, unpool_kernel, window_items(s), s, dy, choice, dz, wide);
  return dz;
}

}  // namespace

// A pooling that tiles have no windows of comes after the whole convolution.
bool serves_bytes(const Conv2dPoolShape& s) {
  const auto window_h = static_cast<int>(s.pool.R), window_w = static_cast<int>(s.pool.S);
  const bool windows =
      kSmallestTile % (s.pool.R * s.pool.S) != 0 || is_first_layer(s.conv, window_h, window_w);
  const bool choices = multiplies_choices(s) ? multiplies_choices_of_first_layer(s)
                                             : is_first_layer_gradient(s.conv);
  return is_first_layer(s.conv, 1, 1) && windows && choices;
}

template <Precision precision>
std::size_t conv2d_pool_workspace(const Conv2dPoolShape& s, Pass pass, int threads) {
  if (pass == Pass::forward && pools_tiles(s, precision)) return 0;
  if (pass == Pass::backward_weight && multiplies_choices(s))
    return choices_workspace(s, precision);
  return plane_bytes(s) + conv2d_workspace<precision>(s.conv, pass, threads);
}

template <Precision precision>
void convolve_pool(Context& context, const Conv2dPoolShape& s, const Images& x, const float* w,
                   const float* bias, Activation activation, float* y, std::uint8_t* choice,
                   void* workspace) {
  PooledResult result = pooled_result(s, bias, activation, y, choice);
  if (pools_tiles(s, precision)) {
    const auto window_h = static_cast<int>(s.pool.R), window_w = static_cast<int>(s.pool.S);
    if (is_first_layer(s.conv, window_h, window_w)) {
      multiply_first_layer<precision>(context, first_layer(s.conv, window_h, window_w, x),
                                      matrix(w, product_of(s).terms, s.conv.K, s.conv.K, 0),
                                      result);
      return;
    }
    launch_tiles<precision>(context, pooled_convolution(s, x.floats, w, result),
                            cut_product(product_of(s), precision));
    return;
  }
  float* z = static_cast<float*>(workspace);
  convolve<precision>(context, s.conv, kAlone, x, w, bias, Activation::none, z,
                      behind_plane(s, workspace));
  result.vectors = result.vectors && wide_rows(s.pool.C, z);
  launch_items(context, choose_kernel, window_items(s.pool), s.pool, z, result);
}

template <Precision precision>
void conv2d_pool(Context& context, const Conv2dPoolShape& s, const float* x, const float* w,
                 const float* bias, Activation activation, float* y, std::uint8_t* choice,
                 void* workspace) {
  convolve_pool<precision>(context, s, x, w, bias, activation, y, choice, workspace);
}

template <Precision precision>
void conv2d_pool_backward_input(Context& context, const Conv2dPoolShape& s, const float* dy,
                                const std::uint8_t* choice, const float* w, float* dx,
                                void* workspace) {
  conv2d_backward_input<precision>(context, s.conv, unpool(context, s.pool, dy, choice, workspace),
                                   w, dx, behind_plane(s, workspace));
}

template <Precision precision>
void convolve_pool_backward_weight(Context& context, const Conv2dPoolShape& s, const float* dy,
                                   const std::uint8_t* choice, const Images& x, float* dw,
                                   void* workspace) {
  if (multiplies_choices(s))
    return multiply_choices<precision>(context, s, dy, choice, x, dw, workspace);
  convolve_backward_weight<precision>(context, s.conv, kAlone,
                                      unpool(context, s.pool, dy, choice, workspace), x, dw,
                                      behind_plane(s, workspace));
}

template <Precision precision>
void conv2d_pool_backward_weight(Context& context, const Conv2dPoolShape& s, const float* dy,
                                 const std::uint8_t* choice, const float* x, float* dw,
                                 void* workspace) {
  convolve_pool_backward_weight<precision>(context, s, dy, choice, x, dw, workspace);
}

// In as many parts as the workspace of bias_gradient has room for.
void conv2d_pool_backward_bias(Context& context, const Conv2dPoolShape& s, const float* dy,
                               const std::uint8_t* choice, float* db, void* workspace) {
  const RowsShape rows = {s.pool.N * s.pool.P * s.pool.Q, s.pool.C};
  const auto room = static_cast<std::int64_t>(bias_gradient_workspace(rows) / sizeof(float));
  const std::int64_t parts = std::max<std::int64_t>(1, room / std::max<std::int64_t>(1, rows.C));
  float* sums = parts == 1 ? db : static_cast<float*>(workspace);
  launch(context, chosen_sums_kernel,
         dim3(blocks_for(context, ceil_div(rows.C, 32) * parts, 1, 32)), dim3(32, kLanes), 0,
         rows.N, rows.C, parts, dy, choice, sums);
  if (parts > 1) finish_parts(context, parts, sums, rows.C, rows.C, nullptr, Activation::none, db);
}

#define CONVLET_CONV2D_POOL(precision)                                                      \
  template std::size_t conv2d_pool_workspace<precision>(const Conv2dPoolShape&, Pass, int); \
  template void convolve_pool<precision>(Context&, const Conv2dPoolShape&, const Images&,   \
                                         const float*, const float*, Activation, float*,    \
                                         std::uint8_t*, void*);                             \
  template void convolve_pool_backward_weight<precision>(Context&, const Conv2dPoolShape&,  \
                                                         const float*, const std::uint8_t*, \
                                                         const Images&, float*, void*);     \
  template void conv2d_pool<precision>(Context&, const Conv2dPoolShape&, const float*,      \
                                       const float*, const float*, Activation, float*,      \
                                       std::uint8_t*, void*);                               \
  template void conv2d_pool_backward_input<precision>(Context&, const Conv2dPoolShape&,     \
                                                      const float*, const std::uint8_t*,    \
                                                      const float*, float*, void*);         \
  template void conv2d_pool_backward_weight<precision>(Context&, const Conv2dPoolShape&,    \
                                                       const float*, const std::uint8_t*,   \
                                                       const float*, float*, void*);
CONVLET_CONV2D_POOL(Precision::float32)
CONVLET_CONV2D_POOL(Precision::tf32)
CONVLET_CONV2D_POOL(Precision::bfloat16)
#undef CONVLET_CONV2D_POOL

}  // namespace convlet::cuda
