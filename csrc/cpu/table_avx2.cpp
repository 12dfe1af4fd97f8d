// The kernel table for AVX2 and FMA: the bodies, compiled for that instruction set.
#include "cpu/standard_headers.h"
#if defined(__x86_64__)
#include <immintrin.h>

#define CONVLET_ISA avx2
#define CONVLET_ISA_LEVEL 1

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#include "cpu/bodies.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace convlet::cpu {

const Kernels& table_avx2() {
  return avx2::kTable;
}
const Kernels& table_avx2_emulated_bfloat16() {
  return avx2::kEmulatedBfloat16Table;
}

}  // namespace convlet::cpu
#endif  // __x86_64__
