// The instructions of sm_90a that kernels use. The emulated twins are in tests/simt/ptx_sm90.h.
//   mbarriers  count arrivals of threads and bytes of copies; a wait is for the end of a phase
//   copies     of whole boxes of tensors to shared memory by one thread, zeros outside the tensor
//   wgmma      products by whole warpgroups (4 warps) that read their factors from shared memory
//              while the warps go on
// Copies and products are asynchronous: nobody may touch what they write, or overwrite what they
// read, before the wait for them.
#pragma once
#include "cuda/ptx.cuh"
#include "cuda/tensor_map.h"

#if defined(CONVLET_SIMT)
#include "ptx_sm90.h"
#else

namespace convlet::cuda {

// ---------------------------------------------------------------- mbarriers

// Each phase ends after `count` arrivals, when the bytes that they expect have come.
CONVLET_DEVICE void mbarrier_init(std::uint64_t* mbarrier, int count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(mbarrier)), "r"(count)
               : "memory");
}
// The copies that threads start after the next barrier know the mbarriers that this thread has
// made.
CONVLET_DEVICE void mbarrier_fence_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
CONVLET_DEVICE void mbarrier_arrive(std::uint64_t* mbarrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(mbarrier))
               : "memory");
}
CONVLET_DEVICE void mbarrier_arrive_expect(std::uint64_t* mbarrier, int bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(mbarrier)),
      "r"(bytes)
      : "memory");
}
// Whether it has, after a short wait.
CONVLET_DEVICE bool mbarrier_try_wait(std::uint64_t* mbarrier, int parity) {
  std::uint32_t done;
  asm volatile(
      "{\n"
      ".reg .pred p;\n"
      "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
      "selp.u32 %0, 1, 0, p;\n"
      "}"
      : "=r"(done)
      : "r"(shared_address(mbarrier)), "r"(parity)
      : "memory");
  return done;
}
// Until the phase of this parity has ended: of the first phase 0, of the next 1, and so on. The one
// before the first has ended with parity 1.
CONVLET_DEVICE void mbarrier_wait(std::uint64_t* mbarrier, int parity) {
  while (!mbarrier_try_wait(mbarrier, parity)) {
  }
}
// The same, but a wait of a second or more ends the kernel with an error. (Between products ptxas
// takes no way out of a wait: it would let none of them overlap.)
CONVLET_DEVICE void mbarrier_wait_or_fail(std::uint64_t* mbarrier, int parity) {
  for (std::uint32_t left = 1u << 26; !mbarrier_try_wait(mbarrier, parity);)
    if (--left == 0) __trap();
}

// ---------------------------------------------------------------- copies

// The box of a tensor of three dimensions whose first element is (x,y,z), x innermost.
CONVLET_DEVICE void copy_box(void* shared, const CUtensorMap* map, int x, int y, int z,
                             std::uint64_t* mbarrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(shared_address(shared)),
      "l"(map), "r"(x), "r"(y), "r"(z), "r"(shared_address(mbarrier))
      : "memory");
}
// Pixels of the images of an im2col map, the first window at (w,h) of image n, channels from c on,
// at an offset of 0 to 255 in every window.
CONVLET_DEVICE void copy_pixels(void* shared, const CUtensorMap* map, int c, int w, int h, int n,
                                int offset_w, int offset_h, std::uint64_t* mbarrier) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes "
      "[%0], [%1, {%2, %3, %4, %5}], [%6], {%7, %8};" ::"r"(shared_address(shared)),
      "l"(map), "r"(c), "r"(w), "r"(h), "r"(n), "r"(shared_address(mbarrier)),
      "h"(static_cast<std::uint16_t>(offset_w)), "h"(static_cast<std::uint16_t>(offset_h))
      : "memory");
}

// ---------------------------------------------------------------- wgmma

// What this thread has written to shared memory becomes visible to the copies and products that
// threads start after the next barrier.
CONVLET_DEVICE void fence_async_proxy() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

#define CONVLET_4(i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define CONVLET_32(i)                                                                     \
  CONVLET_4(i), CONVLET_4(i + 4), CONVLET_4(i + 8), CONVLET_4(i + 12), CONVLET_4(i + 16), \
      CONVLET_4(i + 20), CONVLET_4(i + 24), CONVLET_4(i + 28)
#define CONVLET_TEXT_32                                    \
  "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15," \
  "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define CONVLET_TEXT_64                                               \
  CONVLET_TEXT_32                                                     \
  ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47," \
  "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define CONVLET_TEXT_128                                                         \
  CONVLET_TEXT_64                                                                \
  ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79,"            \
  "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95,"             \
  "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111," \
  "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"

// Before the first product of a group: the sums are in registers.
template <int count>
CONVLET_DEVICE void wgmma_fence(float (&d)[count]) {
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(d[i])::"memory");
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
CONVLET_DEVICE void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// All groups of this warpgroup but the last `newest` are done: what they read may be overwritten
// and, with 0, the sums may be used.
template <int newest, int count>
CONVLET_DEVICE void wgmma_wait(float (&d)[count]) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(newest) : "memory");
#pragma unroll
  for (int i = 0; i < count; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// d (64 x columns) += a (64x16) * b (16 x columns), bfloat16 with float32 sums; a and b as
// wgmma_matrix describes them. Warp w has rows 16w to 16w+15; d[4j to 4j+3] are as in mma_bf16, of
// columns 8j to 8j+7.
#define CONVLET_WGMMA(columns, count, text, a_, b_, ta_, tb_, ...)                                \
  template <bool transposed_a, bool transposed_b>                                                 \
  CONVLET_DEVICE void wgmma(float (&d)[count], std::uint64_t a, std::uint64_t b) {                \
    asm volatile("wgmma.mma_async.sync.aligned.m64n" #columns "k16.f32.bf16.bf16 {" text "}, " a_ \
                 ", " b_ ", 1, 1, 1, " ta_ ", " tb_ ";"                                           \
                 : __VA_ARGS__                                                                    \
                 : "l"(a), "l"(b), "n"(transposed_a ? 1 : 0), "n"(transposed_b ? 1 : 0));         \
  }
CONVLET_WGMMA(64, 32, CONVLET_TEXT_32, "%32", "%33", "%34", "%35", CONVLET_32(0))
CONVLET_WGMMA(128, 64, CONVLET_TEXT_64, "%64", "%65", "%66", "%67", CONVLET_32(0), CONVLET_32(32))
CONVLET_WGMMA(256, 128, CONVLET_TEXT_128, "%128", "%129", "%130", "%131", CONVLET_32(0),
              CONVLET_32(32), CONVLET_32(64), CONVLET_32(96))

#undef CONVLET_WGMMA
#undef CONVLET_TEXT_128
#undef CONVLET_TEXT_64
#undef CONVLET_TEXT_32
#undef CONVLET_32
#undef CONVLET_4

}  // namespace convlet::cuda

#endif

namespace convlet::cuda {

// A factor of a product, 16 terms deep, from `first` on. Lines are as long as the swizzle's span
// (16 bytes for none), 8 of them lie together, and the 8 x lines of a swizzle begin at a multiple
// of their size.
//   not transposed: a line is a row of a or a column of b; `stride` bytes from 8 lines to the next
//     8; `leading` from the first 8 terms to the next 8, for Swizzle::none alone
//   transposed: a line is a term; swizzled, `stride` bytes from 8 terms to the next 8 and `leading`
//     from a line's rows or columns to the next ones; for Swizzle::none the other way round
CONVLET_DEVICE std::uint64_t wgmma_matrix(const void* first, Swizzle swizzle, int leading,
                                          int stride) {
  const auto code = static_cast<std::uint64_t>(4 - static_cast<int>(swizzle)) % 4;
  return (shared_address(first) & 0x3ffffu) >> 4 | static_cast<std::uint64_t>(leading >> 4) << 16 |
         static_cast<std::uint64_t>(stride >> 4) << 32 | code << 62;
}

}  // namespace convlet::cuda
