// The emulated twins of csrc/cuda/ptx_sm90.cuh. A product reads its factors when it is waited for,
// as late as the hardware may, so that tiles that are overwritten too early give wrong sums; its
// reads are checked both then and when it is started.
#pragma once
#include "ptx.h"

namespace simt {

struct WarpgroupProduct {
  float* d;
  const char *a, *b;  // of this warp: its 16 rows of a, all 128 of b
};

struct StartedProducts {
  int count;
  WarpgroupProduct items[16];
};
inline StartedProducts started_products[1024];  // by thread

// Where 8 values of a row are: the pieces of a row of 128 bytes are exchanged by its number.
SIMT_UNCHECKED inline const std::uint16_t* row_piece(const char* matrix, int row, int piece) {
  const auto place = reinterpret_cast<std::uintptr_t>(matrix + row * 128 + piece * 16);
  return reinterpret_cast<const std::uint16_t*>(place ^ (place >> 7 & 7) << 4);
}

// Each lane looks at its share of the 16 + 128 rows.
SIMT_UNCHECKED inline void check_product(const WarpgroupProduct& product, const void* place) {
  const int lane = static_cast<int>(threadIdx.x % 32);
  for (int piece = 0; piece < 2; ++piece) {
    if (lane < 16) access(row_piece(product.a, lane, piece), 16, Access::read, place);
    for (int row = lane; row < 128; row += 32)
      access(row_piece(product.b, row, piece), 16, Access::read, place);
  }
}

SIMT_UNCHECKED inline void start_product(float* d, const void* a, const void* b, const char* file,
                                         int line) {
  const char* rows = static_cast<const char*>(a) + threadIdx.x / 32 % 4 * 16 * 128;
  StartedProducts& mine = started_products[threadIdx.x];
  if (mine.count == 16) fail("%s:%d: more than 16 products are not waited for", file, line);
  mine.items[mine.count++] = {d, rows, static_cast<const char*>(b)};
  check_product(mine.items[mine.count - 1], place_of(file, line));
}

SIMT_UNCHECKED inline float product_value(const char* matrix, int row, int k) {
  const std::uint16_t* piece = row_piece(matrix, row, k / 8);
  return __uint_as_float(static_cast<unsigned>(piece[k % 8]) << 16);
}

// All products that a warp has started; lane i has given its own.
SIMT_UNCHECKED inline void multiply_started(void** arguments, unsigned) {
  StartedProducts* const* lanes = reinterpret_cast<StartedProducts**>(arguments);
  for (int n = 0; n < lanes[0]->count; ++n) {
    float A[16][16], B[16][128];
    for (int k = 0; k < 16; ++k) {
      for (int i = 0; i < 16; ++i) A[i][k] = product_value(lanes[0]->items[n].a, i, k);
      for (int j = 0; j < 128; ++j) B[k][j] = product_value(lanes[0]->items[n].b, j, k);
    }
    for (int i = 0; i < 16; ++i) {
      float sum[128] = {};
      for (int k = 0; k < 16; ++k)
        for (int j = 0; j < 128; ++j) sum[j] += A[i][k] * B[k][j];
      for (int j = 0; j < 128; ++j)
        lanes[i % 8 * 4 + j % 8 / 2]->items[n].d[j / 8 * 4 + i / 8 * 2 + j % 2] += sum[j];
    }
  }
  for (int lane = 0; lane < 32; ++lane) lanes[lane]->count = 0;
}

SIMT_UNCHECKED inline void finish_products(const char* file, int line) {
  StartedProducts& mine = started_products[threadIdx.x];
  for (int n = 0; n < mine.count; ++n) check_product(mine.items[n], place_of(file, line));
  collective(0xffffffffu, Collective::mma, &mine, multiply_started, file, line);
}

}  // namespace simt

namespace convlet::cuda {

inline void fence_async_proxy() {}
inline void wgmma_begin(float (&)[64]) {}
inline void wgmma_commit() {}
inline void wgmma_wait(float (&)[64], SIMT_HERE) {
  simt::finish_products(file, line);
}
inline void wgmma_m64n128k16(float (&d)[64], const void* a, const void* b, SIMT_HERE) {
  simt::start_product(d, a, b, file, line);
}

}  // namespace convlet::cuda
