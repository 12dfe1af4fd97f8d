// As bugs.cu, for the instructions of sm_90a: a product of matrices with the copy engine, mbarriers
// and warpgroups, and one through ordinary stores. Then single tiles and boxes for the tests that
// compare their layouts in shared memory with the manual's, in the emulator and on a GPU.
#include <string_view>

#include "cuda/launch.h"
#include "cuda/ptx_sm90.cuh"
#include "simt/on_device.h"

namespace {

using namespace convlet::cuda;

constexpr int kDepth = 64, kSize = 64;  // terms of a step; rows and columns
constexpr int kTile = kSize * kDepth;
constexpr int kStages = 2;

CONVLET_DEVICE __nv_bfloat16* aligned(void* memory) {
  const auto past = reinterpret_cast<std::uintptr_t>(memory) % 1024;
  return reinterpret_cast<__nv_bfloat16*>(static_cast<char*>(memory) + (1024 - past) % 1024);
}

CONVLET_DEVICE void store_sums(const float (&d)[32], float* y) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int i = 0; i < 32; ++i) {
    const int row = warp * 16 + lane / 4 + i % 4 / 2 * 8, column = i / 4 * 8 + lane % 4 * 2 + i % 2;
    y[row * kSize + column] = d[i];
  }
}

CONVLET_DEVICE void multiply_step(float (&d)[32], const __nv_bfloat16* a, const __nv_bfloat16* b,
                                  Swizzle swizzle) {
  for (int k = 0; k < kDepth; k += 16)
    wgmma<false, false>(d, wgmma_matrix(a + k, Swizzle::span_128, 0, 1024),
                        wgmma_matrix(b + k, swizzle, 0, 1024));
}

// ---------------------------------------------------------------- copies and products

// y (64,64) = a (64,terms) b (64,terms)^T: four warps multiply what the fifth has copied, two
// stages ahead.
__global__ void __launch_bounds__(160)
    pipeline_kernel(const __grid_constant__ CUtensorMap a, const __grid_constant__ CUtensorMap b,
                    int steps, float* y, int bug) {
  CONVLET_SHARED(std::uint64_t, full, [kStages]);
  CONVLET_SHARED(std::uint64_t, empty, [kStages]);
  CONVLET_DYNAMIC_SHARED(unsigned char, memory);
  __nv_bfloat16* stages = aligned(memory) + (bug == 15 ? 64 : 0);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      if (bug != 18) mbarrier_init(&full[i], 1);
      mbarrier_init(&empty[i], bug == 13 ? 3 : 4);
    }
    if (bug != 4) mbarrier_fence_init();
    if (bug == 16) stages[0] = __float2bfloat16(0.0f);
  }
  if (bug != 5) __syncthreads();
  if (threadIdx.x >= 128) {
    if (threadIdx.x != 128) return;
    for (int step = 0; step < steps + (bug == 14); ++step) {
      const int stage = step % kStages;
      __nv_bfloat16* to = stages + 2 * stage * kTile;
      if (bug != 7) mbarrier_wait(&empty[stage], step / kStages % 2 ^ 1);
      const int bytes = 2 * kTile * static_cast<int>(sizeof *to);
      mbarrier_arrive_expect(&full[stage], bug == 2 ? bytes + 16 : bug == 3 ? bytes / 2 : bytes);
      copy_box(to, &a, step * kDepth, 0, 0, &full[stage]);
      copy_box(to + kTile, &b, step * kDepth, 0, 0, &full[stage]);
    }
    return;
  }
  float d[32] = {};
  for (int step = 0; step < steps; ++step) {
    const int stage = step % kStages;
    __nv_bfloat16* tile = stages + 2 * stage * kTile;
    if (bug == 17 && threadIdx.x == 5) tile[step] = __float2bfloat16(0.0f);
    if (bug != 1) mbarrier_wait(&full[stage], step / kStages % 2 ^ (bug == 6));
    if (bug != 10) wgmma_fence(d);
    multiply_step(d, tile, tile + kTile, bug == 11 ? Swizzle::span_64 : Swizzle::span_128);
    wgmma_commit();
    if (bug == 9 && step == steps - 1) break;
    if (bug == 8 && threadIdx.x % 32 == 0) mbarrier_arrive(&empty[stage]);
    if (bug == 12)
      wgmma_wait<1>(d);
    else
      wgmma_wait<0>(d);
    __syncwarp();
    if (bug != 8 && threadIdx.x % 32 == 0) mbarrier_arrive(&empty[stage]);
  }
  store_sums(d, y);
  if (bug == 9) wgmma_wait<0>(d);
}

// ---------------------------------------------------------------- stores and products

// The same for 64 terms that threads have stored themselves, swizzled by hand.
__global__ void __launch_bounds__(128)
    stores_kernel(const __nv_bfloat16* a, const __nv_bfloat16* b, float* y, int bug) {
  CONVLET_DYNAMIC_SHARED(unsigned char, memory);
  __nv_bfloat16* tiles = aligned(memory);
  const int t = static_cast<int>(threadIdx.x);
  auto place = [&](int i) { return i ^ (bug == 5 ? 0 : i / 64 % 8 * 8); };
  for (int i = t; i < kTile; i += 128) {
    if (bug != 6 || i > 8) tiles[place(i)] = a[i];
    tiles[kTile + place(i)] = b[i];
  }
  if (bug != 1) fence_async_proxy();
  if (bug != 2) __syncthreads();
  float d[32] = {};
  wgmma_fence(d);
  if (bug == 4 && t >= 96) {
    multiply_step(d, tiles, tiles, Swizzle::span_128);
  } else {
    multiply_step(d, tiles, tiles + kTile, Swizzle::span_128);
  }
  wgmma_commit();
  if (bug == 3) tiles[place(t)] = a[t];
  if (bug == 7) return;
  wgmma_wait<0>(d);
  store_sums(d, y);
}

// ---------------------------------------------------------------- single tiles and boxes

struct TileFactor {
  const uint4* image;  // as it lies in shared memory
  int pieces;          // of 16 bytes
  int first;           // byte from which the product reads
  Swizzle swizzle;
  int leading, stride;
};

// d by thread = a b + d0, for a and b as they are given.
template <int columns, bool transposed_a, bool transposed_b>
__global__ void __launch_bounds__(128)
    tile_kernel(const TileFactor a, const TileFactor b, float* d_of_threads) {
  CONVLET_DYNAMIC_SHARED(unsigned char, memory);
  uint4* tile_a = reinterpret_cast<uint4*>(aligned(memory));
  uint4* tile_b = tile_a + (a.pieces + 63) / 64 * 64;
  const int t = static_cast<int>(threadIdx.x);
  for (int i = t; i < a.pieces; i += 128) tile_a[i] = a.image[i];
  for (int i = t; i < b.pieces; i += 128) tile_b[i] = b.image[i];
  fence_async_proxy();
  __syncthreads();
  auto matrix = [](const uint4* tile, const TileFactor& factor) {
    return wgmma_matrix(reinterpret_cast<const char*>(tile) + factor.first, factor.swizzle,
                        factor.leading, factor.stride);
  };
  float d[columns / 2];
#pragma unroll
  for (int i = 0; i < columns / 2; ++i) d[i] = static_cast<float>(t);
  wgmma_fence(d);
  wgmma<transposed_a, transposed_b>(d, matrix(tile_a, a), matrix(tile_b, b));
  wgmma_commit();
  wgmma_wait<0>(d);
#pragma unroll
  for (int i = 0; i < columns / 2; ++i) d_of_threads[t * columns / 2 + i] = d[i];
}

// What one copy brings to shared memory, as it lies there.
__global__ void __launch_bounds__(32)
    box_kernel(const __grid_constant__ CUtensorMap map, bool windows, int at0, int at1, int at2,
               int at3, int offset_w, int offset_h, int bytes, uint4* image) {
  CONVLET_SHARED(std::uint64_t, landed, [1]);
  CONVLET_DYNAMIC_SHARED(unsigned char, memory);
  const uint4* box = reinterpret_cast<const uint4*>(aligned(memory));
  if (threadIdx.x == 0) {
    mbarrier_init(landed, 1);
    mbarrier_fence_init();
    mbarrier_arrive_expect(landed, bytes);
    if (windows)
      copy_pixels(aligned(memory), &map, at0, at1, at2, at3, offset_w, offset_h, landed);
    else
      copy_box(aligned(memory), &map, at0, at1, at2, landed);
  }
  __syncthreads();
  mbarrier_wait_or_fail(landed, 0);
  for (int i = static_cast<int>(threadIdx.x); i < bytes / 16; i += 32) image[i] = box[i];
}

template <int columns>
void launch_tile(CudaContext& context, bool transposed_a, bool transposed_b, const TileFactor& a,
                 const TileFactor& b, float* d) {
  auto kernel =
      transposed_a
          ? (transposed_b ? tile_kernel<columns, true, true> : tile_kernel<columns, true, false>)
          : (transposed_b ? tile_kernel<columns, false, true> : tile_kernel<columns, false, false>);
  launch(context, kernel, 1, 128, 64 << 10, a, b, d);
}

}  // namespace

// y (64,64) = a (64,terms) b (64,terms)^T, both bfloat16.
EXPORT void sm90_bug(const char* name, int bug, int terms, const std::uint16_t* a_host,
                     const std::uint16_t* b_host, float* y_host) {
  CudaContext context(nullptr, 4);
  const auto size = static_cast<std::size_t>(kSize * terms);
  OnDevice<std::uint16_t> a(a_host, size), b(b_host, size);
  OnDevice<float> y(nullptr, kSize * kSize);
  if (std::string_view(name) == "pipeline") {
    const Box box = {terms, kSize, 1, terms, kDepth, kSize, Swizzle::span_128};
    launch(context, pipeline_kernel, 1, 160, 64 << 10, make_map(a.data, box), make_map(b.data, box),
           terms / kDepth, y.data, bug);
  } else {
    launch(context, stores_kernel, 1, 128, 32 << 10, reinterpret_cast<const __nv_bfloat16*>(a.data),
           reinterpret_cast<const __nv_bfloat16*>(b.data), y.data, bug);
  }
  y.read(y_host);
}

// a and b: transposed, swizzle, bytes of the image, first byte, leading and stride of the matrix.
EXPORT void sm90_tile(int columns, const int* a, const std::uint8_t* a_image, const int* b,
                      const std::uint8_t* b_image, float* d_host) {
  CudaContext context(nullptr, 4);
  OnDevice<std::uint8_t> A(a_image, static_cast<std::size_t>(a[2]));
  OnDevice<std::uint8_t> B(b_image, static_cast<std::size_t>(b[2]));
  OnDevice<float> d(nullptr, static_cast<std::size_t>(64 * columns));
  auto factor = [](const int* f, const OnDevice<std::uint8_t>& image) {
    return TileFactor{reinterpret_cast<const uint4*>(image.data),
                      f[2] / 16,
                      f[3],
                      static_cast<Swizzle>(f[1]),
                      f[4],
                      f[5]};
  };
  (columns == 64 ? launch_tile<64>
   : columns == 128
       ? launch_tile<128>
       : launch_tile<256>)(context, a[0] != 0, b[0] != 0, factor(a, A), factor(b, B), d.data);
  d.read(d_host);
}

// Of a tensor (z,y,x) the box (box_y,box_x) from `at` = x, y, z on.
EXPORT void sm90_box(const int* sizes, const int* box, int swizzle, const int* at,
                     const std::uint16_t* tensor, std::uint8_t* image) {
  CudaContext context(nullptr, 4);
  OnDevice<std::uint16_t> data(tensor, static_cast<std::size_t>(sizes[0] * sizes[1] * sizes[2]));
  const int bytes = box[0] * box[1] * 2;
  OnDevice<std::uint8_t> result(nullptr, static_cast<std::size_t>(bytes));
  const Box of = {
      sizes[0], sizes[1], sizes[2], sizes[0], box[0], box[1], static_cast<Swizzle>(swizzle)};
  launch(context, box_kernel, 1, 32, 40 << 10, make_map(data.data, of), false, at[0], at[1], at[2],
         0, 0, 0, bytes, reinterpret_cast<uint4*>(result.data));
  result.read(image);
}

// Of images (n,h,w,c) some windows: first h and w, rows, columns, steps h and w.
EXPORT void sm90_windows(const int* sizes, const int* windows, const int* box, int swizzle,
                         const int* at, const int* offset, const std::uint16_t* tensor,
                         std::uint8_t* image) {
  CudaContext context(nullptr, 4);
  OnDevice<std::uint16_t> data(tensor,
                               static_cast<std::size_t>(sizes[0] * sizes[1] * sizes[2] * sizes[3]));
  const int bytes = box[0] * box[1] * 2;
  OnDevice<std::uint8_t> result(nullptr, static_cast<std::size_t>(bytes));
  const Windows of = {sizes[0],   sizes[1],
                      sizes[2],   sizes[3],
                      sizes[3],   windows[0],
                      windows[1], windows[2],
                      windows[3], windows[4],
                      windows[5], box[0],
                      box[1],     static_cast<Swizzle>(swizzle)};
  launch(context, box_kernel, 1, 32, 40 << 10, make_map(data.data, of), true, at[0], at[1], at[2],
         at[3], offset[0], offset[1], bytes, reinterpret_cast<uint4*>(result.data));
  result.read(image);
}
