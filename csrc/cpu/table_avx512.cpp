// The kernel table for AVX-512 F, BW, DQ and VL: the bodies, compiled for that instruction set.
#include "cpu/standard_headers.h"
#if defined(__x86_64__)
// GCC 12 warns about the undefined vectors of its own header.
#if !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#if !defined(__clang__)
#pragma GCC diagnostic pop
#endif

#define CONVLET_ISA avx512
#define CONVLET_ISA_LEVEL 2

#if defined(__clang__)
#pragma clang attribute push( \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")
#endif
#include "cpu/bodies.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace convlet::cpu {

const Kernels& table_avx512() {
  return avx512::kTable;
}
const Kernels& table_avx512_emulated_bfloat16() {
  return avx512::kEmulatedBfloat16Table;
}

}  // namespace convlet::cpu
#endif  // __x86_64__
