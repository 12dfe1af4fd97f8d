// The emulated twins of csrc/cuda/ptx_sm90.cuh; tensor_copy.cpp and wgmma.cpp have what they do. A
// product reads its factors when it is waited for, as late as the hardware may, so that tiles that
// are overwritten too early give wrong sums; its reads are checked both then and when it is
// started. A copy lands late, early or at random.
#pragma once
#include "driver_api.h"
#include "ptx.h"

namespace simt {

char* shared_base();  // what addresses in shared memory are counted from

void mbarrier_init(void* mbarrier, int count, const void* place);
void mbarrier_fence_init();
void mbarrier_arrive(void* mbarrier, int bytes, const void* place);
void mbarrier_wait(void* mbarrier, int parity, const char* file, int line);
// `offset` is null for a tiled copy.
void tensor_copy(void* shared, const CUtensorMap* map, const int* at, const int* offset,
                 void* mbarrier, const void* place);
void fence_async_proxy();
void wgmma_fence();
void wgmma(float* d, int columns, std::uint64_t a, std::uint64_t b, bool transposed_a,
           bool transposed_b, const void* place);
void wgmma_commit();
void wgmma_wait(int newest, const char* file, int line);

}  // namespace simt

namespace convlet::cuda {

inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(static_cast<const char*>(p) - simt::shared_base());
}

inline void mbarrier_init(std::uint64_t* mbarrier, int count, SIMT_HERE) {
  simt::mbarrier_init(mbarrier, count, simt::place_of(file, line));
}
inline void mbarrier_fence_init() {
  simt::mbarrier_fence_init();
}
inline void mbarrier_arrive(std::uint64_t* mbarrier, SIMT_HERE) {
  simt::mbarrier_arrive(mbarrier, 0, simt::place_of(file, line));
}
inline void mbarrier_arrive_expect(std::uint64_t* mbarrier, int bytes, SIMT_HERE) {
  simt::mbarrier_arrive(mbarrier, bytes, simt::place_of(file, line));
}
inline void mbarrier_wait(std::uint64_t* mbarrier, int parity, SIMT_HERE) {
  simt::mbarrier_wait(mbarrier, parity, file, line);
}
// A wait without an end is reported anyway.
inline void mbarrier_wait_or_fail(std::uint64_t* mbarrier, int parity, SIMT_HERE) {
  simt::mbarrier_wait(mbarrier, parity, file, line);
}

SIMT_UNCHECKED inline void copy_box(void* shared, const CUtensorMap* map, int x, int y, int z,
                                    std::uint64_t* mbarrier, SIMT_HERE) {
  const int at[] = {x, y, z};
  simt::tensor_copy(shared, map, at, nullptr, mbarrier, simt::place_of(file, line));
}
SIMT_UNCHECKED inline void copy_pixels(void* shared, const CUtensorMap* map, int c, int w, int h,
                                       int n, int offset_w, int offset_h, std::uint64_t* mbarrier,
                                       SIMT_HERE) {
  const int at[] = {c, w, h, n}, offset[] = {offset_w, offset_h};
  simt::tensor_copy(shared, map, at, offset, mbarrier, simt::place_of(file, line));
}

inline void fence_async_proxy() {
  simt::fence_async_proxy();
}
template <int count>
void wgmma_fence(float (&)[count]) {
  simt::wgmma_fence();
}
inline void wgmma_commit() {
  simt::wgmma_commit();
}
template <int newest, int count>
void wgmma_wait(float (&)[count], SIMT_HERE) {
  simt::wgmma_wait(newest, file, line);
}
template <bool transposed_a, bool transposed_b, int count>
void wgmma(float (&d)[count], std::uint64_t a, std::uint64_t b, SIMT_HERE) {
  simt::wgmma(d, 2 * count, a, b, transposed_a, transposed_b, simt::place_of(file, line));
}

}  // namespace convlet::cuda
