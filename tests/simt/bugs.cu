// Small kernels that are right with bug 0 and wrong in one way each with another number: what the
// emulator must find. test_simt.py lists what each number breaks.
#include <cstring>
#include <string_view>

#include "cuda/launch.h"
#include "cuda/ptx.cuh"
#include "simt/on_device.h"

namespace {

using namespace convlet::cuda;

// ---------------------------------------------------------------- transpose: tails, barriers

constexpr int kTile = 32;

// y (C,R) = transpose of x (R,C), through a tile; bug 5 is only slow.
__global__ void transpose_kernel(int R, int C, const float* x, float* y, int bug) {
  CONVLET_SHARED(float, padded, [kTile][kTile + 1]);
  CONVLET_SHARED(float, plain, [kTile][kTile]);
  float* tile = bug == 5 ? &plain[0][0] : &padded[0][0];
  const int width = bug == 5 ? kTile : kTile + 1;
  const int c = static_cast<int>(blockIdx.x * kTile + threadIdx.x);
  const int r0 = static_cast<int>(blockIdx.y * kTile), t = static_cast<int>(threadIdx.y);
  for (int i = t; i < kTile; i += 8)
    if ((c < C || bug == 1) && r0 + i < R)
      tile[i * width + static_cast<int>(threadIdx.x) + (bug == 3 ? 3 : 0)] = x[(r0 + i) * C + c];
  if (bug == 6 && t < 4)
    __syncthreads();
  else if (bug != 2)
    __syncthreads();
  const int r = r0 + static_cast<int>(threadIdx.x), c0 = static_cast<int>(blockIdx.x * kTile);
  for (int i = t; i < kTile; i += 8)
    if ((r < R || bug == 4) && c0 + i < C)
      y[(c0 + i) * R + r] = tile[(static_cast<int>(threadIdx.x) + (bug == 7)) * width + i];
}

// ---------------------------------------------------------------- sums: shuffles, uninitialised

// y[b] = the sum of x[b*n, b*n + n) in a fixed order.
__global__ void sums_kernel(int n, const float* x, float* y, int bug) {
  CONVLET_SHARED(float, parts, [8]);
  const int lane = static_cast<int>(threadIdx.x % 32), warp = static_cast<int>(threadIdx.x / 32);
  const float* row = x + static_cast<std::int64_t>(blockIdx.x) * n;
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < n + (bug == 1); i += 256) sum += row[i];
  const unsigned lanes = bug == 6 ? 0xffffu << lane / 16 * 16 : bug == 7 ? 0xffffu : 0xffffffffu;
  for (int step = 16; step > 0; step /= 2)
    if (bug != 2 || lane < step) sum += __shfl_down_sync(lanes, sum, step);
  if (lane == 0 && !(bug == 3 && warp == 7)) parts[warp] = sum;
  if (!(bug == 4 && warp == 7)) __syncthreads();
  if (threadIdx.x == 0) {
    float total = 0;
    for (int w = 0; w < 8; ++w) total += parts[w];
    y[blockIdx.x] = total;
    if (bug == 5) y[gridDim.x - 1 - blockIdx.x] += 0;
  }
}

// ---------------------------------------------------------------- cp.async in two stages

// y[i] = the sum over chunks of x[chunk*256 + (i + 1) % 256]: every thread reads what its neighbour
// has copied.
__global__ void stages_kernel(int chunks, const float* x, float* y, int bug) {
  CONVLET_SHARED(float4, stage, [2][64]);
  const int t = static_cast<int>(threadIdx.x);
  auto fetch = [&](int chunk) {
    const float* from = x + static_cast<std::int64_t>(chunk) * 256 + 4 * t + (bug == 4);
    if (t < 64) copy_async_16(&stage[chunk % 2][t], from, bug == 5 || chunk < chunks);
    if (bug != 6) copy_async_commit();
    if (bug == 7) stage[chunk % 2][t % 64].x = 0;
  };
  fetch(0);
  float sum = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    fetch(chunk + 1);
    if (bug == 1)
      copy_async_wait<2>();
    else
      copy_async_wait<1>();
    if (bug != 2) __syncthreads();
    sum += reinterpret_cast<const float*>(&stage[chunk % 2][0])[(t + 1) % 256];
    if (bug != 3) __syncthreads();
  }
  y[t] = sum;
}

// ---------------------------------------------------------------- between lanes and blocks

// y[i] = x[i] of the neighbour lane, through shared memory.
__global__ void neighbours_kernel(const float* x, float* y, int bug) {
  CONVLET_DYNAMIC_SHARED(float, values);
  values[threadIdx.x] = x[threadIdx.x];
  if (bug != 1) __syncwarp();
  y[threadIdx.x] = values[(threadIdx.x + 1) % 32];
}

// y[i] = x[0] + x[1], which thread 0 gives to all one after the other.
__global__ void rounds_kernel(const float* x, float* y, int bug) {
  CONVLET_SHARED(float, value, [1]);
  float sum = 0;
  for (int round = 0; round < 2; ++round) {
    if (threadIdx.x == 0) value[0] = x[round];
    __syncthreads();
    sum += value[0];
    if (bug == 1)
      __syncwarp();
    else
      __syncthreads();
  }
  y[threadIdx.x] = sum;
}

// y[0] = the sum of all blocks' sums; the last block to finish adds them up.
__global__ void last_block_kernel(const float* x, float* parts, unsigned* count, float* y,
                                  int bug) {
  CONVLET_SHARED(unsigned, ticket, [1]);
  const unsigned lane = threadIdx.x;
  float sum = x[blockIdx.x * 32 + lane];
  for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
  if (lane == 0) {
    parts[blockIdx.x] = sum;
    if (bug != 1) __threadfence();
    if (bug == 2)
      ticket[0] = (*count)++;
    else
      ticket[0] = atomicAdd(count, 1u);
  }
  __syncthreads();
  if (ticket[0] != gridDim.x - 1 || lane) return;
  float total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += parts[b];
  y[0] = total;
}

// ---------------------------------------------------------------- single accesses

__global__ void copy_kernel(int n, const float* x, float* y, int bug) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (bug == 1) {
    if (4 * i + 1 < n - 4) *reinterpret_cast<float4*>(y + 4 * i + 1) = make_float4(0, 0, 0, 0);
    return;
  }
  if (bug == 2) y[i] = y[i] + 1;                                    // read before anyone wrote
  if (bug == 3) y[0] = x[0] + i;                                    // everyone writes one place
  if (bug == 4 && i == 0) y[-1] = 0;                                // before the beginning
  if (bug == 5 && i < n) y[i] = static_cast<float>(1 << (i + 20));  // a shift by 32 and more
  if (bug == 8 && i < n) y[i] = static_cast<float>(n / (i % 2));    // a division by zero
  if (bug == 9 && i < n) {                                          // outside a thread's own array
    int own[4] = {i, i, i, i};
    y[i] = static_cast<float>(own[i % 8]);
  }
  if (i < n) y[i] = x[bug == 6 ? i * 8 % n : i];  // 6 is only slow
}

// The fragments of one product: 4 numbers of d by lane, then r by lane of both matrix loads;
// numbers rounded to tf32; the words of the matrices by copies of 16, 8 and 4 bytes, some of them
// not valid.
__global__ void fragments_kernel(const std::uint32_t* a, const std::uint32_t* b, const float* c,
                                 const std::uint16_t* matrices, const float* numbers, float* bf16,
                                 float* tf32, std::uint32_t* rows, std::uint32_t* columns,
                                 std::uint32_t* rounded, std::uint32_t* copied) {
  CONVLET_SHARED(uint4, tile, [32]);
  const int lane = static_cast<int>(threadIdx.x);
  tile[lane] = reinterpret_cast<const uint4*>(matrices)[lane];
  std::uint32_t A[4], r[4];
  float d[4], e[4];
  for (int i = 0; i < 4; ++i) {
    A[i] = a[4 * lane + i];
    d[i] = e[i] = c[4 * lane + i];
  }
  __syncwarp();
  mma_bf16(d, A, b[2 * lane], b[2 * lane + 1]);
  mma_tf32(e, A, b[2 * lane], b[2 * lane + 1]);
  for (int i = 0; i < 4; ++i) {
    bf16[4 * lane + i] = d[i];
    tf32[4 * lane + i] = e[i];
  }
  load_matrix_x4(r, &tile[lane]);
  for (int i = 0; i < 4; ++i) rows[4 * lane + i] = r[i];
  load_matrix_x4_transposed(r, &tile[lane]);
  for (int i = 0; i < 4; ++i) columns[4 * lane + i] = r[i];
  for (int i = 0; i < 4; ++i) rounded[4 * lane + i] = to_tf32(numbers[4 * lane + i]);

  CONVLET_SHARED(uint4, copies, [32]);
  auto* words = reinterpret_cast<std::uint32_t*>(copies);
  const auto* from = reinterpret_cast<const std::uint32_t*>(matrices);
  if (lane < 16) {
    copy_async_16(words + 4 * lane, from + 4 * lane, lane % 3 != 0);
    copy_async_8(words + 64 + 2 * lane, from + 64 + 2 * lane, lane % 2 != 0);
  }
  copy_async_4(words + 96 + lane, from + 96 + lane, lane % 4 != 1);
  copy_async_commit();
  copy_async_wait<0>();
  __syncwarp();
  for (int i = 0; i < 4; ++i) copied[i * 32 + lane] = words[i * 32 + lane];
}

}  // namespace

// Runs a kernel on x (n numbers) and reads y (m numbers).
EXPORT void simt_bug(const char* name, int bug, int n, const float* x_host, int m, float* y_host) {
  CudaContext context(nullptr, 4);
  OnDevice<float> x(x_host, static_cast<std::size_t>(n)), y(nullptr, static_cast<std::size_t>(m));
  const std::string_view kernel = name;
  if (kernel == "transpose") {  // x (37,45)
    const unsigned rows = 37, columns = 45;
    launch(context, transpose_kernel, {(columns + 31) / 32, (rows + 31) / 32}, {32, 8}, 0,
           static_cast<int>(rows), static_cast<int>(columns), x.data, y.data, bug);
  } else if (kernel == "sums") {  // x (m,n/m)
    launch(context, sums_kernel, static_cast<unsigned>(m), 256, 0, n / m, x.data, y.data, bug);
  } else if (kernel == "stages") {  // x (n/256,256)
    launch(context, stages_kernel, 1, 256, 0, n / 256, x.data, y.data, bug);
  } else if (kernel == "neighbours") {
    launch(context, neighbours_kernel, 1, 32, 32 * sizeof(float), x.data, y.data, bug);
  } else if (kernel == "rounds") {
    launch(context, rounds_kernel, 1, 64, 0, x.data, y.data, bug);
  } else if (kernel == "last_block") {
    const unsigned zero = 0;
    OnDevice<unsigned> count(&zero, 1);
    OnDevice<float> parts(nullptr, static_cast<std::size_t>(n / 32));
    launch(context, last_block_kernel, static_cast<unsigned>(n / 32), 32, 0, x.data, parts.data,
           count.data, y.data, bug);
  } else if (kernel == "copy") {
    launch(context, copy_kernel, static_cast<unsigned>((n + 63) / 64), 64, 0, n,
           bug == 7 ? x_host : x.data, y.data, bug);
  } else if (kernel == "configuration" && bug == 3) {
    launch(context, neighbours_kernel, 1, 32, 16 * sizeof(float), x.data, y.data, 0);
  } else if (kernel == "configuration") {
    const unsigned threads = bug == 1 ? 48 : 64;
    const dim3 grid(static_cast<unsigned>((n + 63) / 64), bug == 4 ? 65536 : 1);
    launch(context, copy_kernel, grid, threads, bug == 2 ? std::size_t{300} << 10 : 0, n, x.data,
           y.data, 0);
  }
  y.read(y_host);
}

// y (n numbers) = x, by a kernel on each of two streams; wrong in one way each with another bug.
EXPORT void simt_stream_bug(int bug, int n, const float* x_host, float* y_host) {
  cudaStream_t first = nullptr, second = nullptr;
  cudaEvent_t event = nullptr;
  cudaStreamCreateWithFlags(&first, cudaStreamNonBlocking);
  cudaStreamCreateWithFlags(&second, cudaStreamNonBlocking);
  cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
  const auto bytes = static_cast<std::size_t>(n) * sizeof(float);
  void *source = nullptr, *target = nullptr, *between = nullptr;
  cudaHostAlloc(&source, bytes, cudaHostAllocDefault);
  cudaHostAlloc(&target, bytes, cudaHostAllocDefault);
  std::memcpy(source, x_host, bytes);
  {
    const auto size = static_cast<std::size_t>(n);
    const OnDevice<float> x(nullptr, size), y(nullptr, size);
    cudaMallocAsync(&between, bytes, first);
    CudaContext on_first(first, 4), on_second(second, 4);
    const auto blocks = static_cast<unsigned>((n + 63) / 64);
    cudaMemcpyAsync(x.data, source, bytes, cudaMemcpyHostToDevice, first);
    launch(on_first, copy_kernel, blocks, 64, 0, n, x.data, static_cast<float*>(between), 0);
    cudaEventRecord(event, first);
    if (bug != 1) cudaStreamWaitEvent(second, event, 0);
    launch(on_second, copy_kernel, blocks, 64, 0, n, static_cast<float*>(between), y.data, 0);
    cudaMemcpyAsync(target, y.data, bytes, cudaMemcpyDeviceToHost, second);
    if (bug == 2) cudaFreeAsync(between, first);
    if (bug == 2) cudaStreamSynchronize(first);
    if (bug == 3) static_cast<float*>(source)[0] = 7;
    if (bug != 4) cudaStreamSynchronize(second);
    std::memcpy(y_host, target, bytes);
    if (bug != 2) cudaFreeAsync(between, second);
    cudaStreamSynchronize(second);
  }
  cudaEventDestroy(event);
  cudaStreamDestroy(first);
  cudaStreamDestroy(second);
  cudaFreeHost(source);
  cudaFreeHost(target);
}

EXPORT void simt_fragments(const std::uint32_t* a, const std::uint32_t* b, const float* c,
                           const std::uint16_t* matrices, const float* numbers, float* bf16,
                           float* tf32, std::uint32_t* rows, std::uint32_t* columns,
                           std::uint32_t* rounded, std::uint32_t* copied) {
  CudaContext context(nullptr, 4);
  OnDevice<std::uint32_t> A(a, 128), B(b, 64), R(nullptr, 128), T(nullptr, 128);
  OnDevice<std::uint32_t> N(nullptr, 128), W(nullptr, 128);
  OnDevice<float> C(c, 128), D(nullptr, 128), E(nullptr, 128), F(numbers, 128);
  OnDevice<std::uint16_t> M(matrices, 256);
  launch(context, fragments_kernel, 1, 32, 0, A.data, B.data, C.data, M.data, F.data, D.data,
         E.data, R.data, T.data, N.data, W.data);
  D.read(bf16);
  E.read(tf32);
  R.read(rows);
  T.read(columns);
  N.read(rounded);
  W.read(copied);
}
