// The instructions of sm_90a that kernels use: products by whole warpgroups (4 warps) that read
// their factors from shared memory while the warps go on. The emulated twins are in
// tests/simt/ptx_sm90.h.
//
// A tile in shared memory is rows of 64 bfloat16, 128 bytes each, from an address that is a
// multiple of 1024 on; the pieces of 16 bytes of row r are exchanged: piece p is at p ^ (r % 8).
#pragma once
#include "cuda/ptx.cuh"

#if defined(CONVLET_SIMT)
#include "ptx_sm90.h"
#else

namespace convlet::cuda {

// What copies have written becomes visible to the products that this thread's warpgroup starts
// after the next barrier.
CONVLET_DEVICE void fence_async_proxy() {
  asm volatile("fence.proxy.async;" ::: "memory");
}

#define CONVLET_SUMS(text)                                                                         \
  text(0), text(4), text(8), text(12), text(16), text(20), text(24), text(28), text(32), text(36), \
      text(40), text(44), text(48), text(52), text(56), text(60)
#define CONVLET_FOUR_SUMS(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])

// Before the first product of a tile: the sums are in registers.
CONVLET_DEVICE void wgmma_begin(float (&d)[64]) {
  asm volatile("wgmma.fence.sync.aligned;" : CONVLET_SUMS(CONVLET_FOUR_SUMS)::"memory");
}
CONVLET_DEVICE void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// All products of this warpgroup are done: the sums may be used, and the tiles overwritten.
CONVLET_DEVICE void wgmma_wait(float (&d)[64]) {
  asm volatile("wgmma.wait_group.sync.aligned 0;" : CONVLET_SUMS(CONVLET_FOUR_SUMS)::"memory");
}

// The matrix of 16 columns that begins at `tile`: 128-byte swizzle, 1024 bytes from 8 rows to the
// next 8.
CONVLET_DEVICE std::uint64_t wgmma_matrix(const void* tile) {
  return (shared_address(tile) & 0x3ffffu) >> 4 | std::uint64_t{1} << 16 |
         std::uint64_t{1024 >> 4} << 32 | std::uint64_t{1} << 62;
}

// d (64x128) += a (64x16) * b (128x16)^T, bfloat16 with float32 sums. Warp w has rows 16w to
// 16w+15; d[4j to 4j+3] are as in mma_bf16, of columns 8j to 8j+7.
CONVLET_DEVICE void wgmma_m64n128k16(float (&d)[64], const void* a, const void* b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,"
      "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,"
      "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,"
      "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, "
      "%64, %65, 1, 1, 1, 0, 0;"
      : CONVLET_SUMS(CONVLET_FOUR_SUMS)
      : "l"(wgmma_matrix(a)), "l"(wgmma_matrix(b)));
}

#undef CONVLET_SUMS
#undef CONVLET_FOUR_SUMS

}  // namespace convlet::cuda

#endif
