// The kernel table of precision "bfloat16" for AVX-512 with BF16: the bodies of convolution, dense
// and matmul kernels, compiled for that instruction set, among the float32 kernels for AVX-512.
#include "cpu/standard_headers.h"
#include "cpu/table.h"
#if defined(CONVLET_AVX512_BF16)
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

#define CONVLET_ISA avx512bf16
#define CONVLET_ISA_LEVEL 2
#define CONVLET_NATIVE_BFLOAT16

#if defined(__clang__)
#pragma clang attribute push(                                                          \
    __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")
#endif
#include "cpu/products.h"
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

namespace convlet {

const Kernels& avx512bf16::float32_kernels() {
  return cpu::table_avx512();
}

const Kernels& cpu::table_avx512bf16() {
  static const Kernels table = avx512bf16::bfloat16_table(table_avx512(), "avx512bf16");
  return table;
}

}  // namespace convlet
#endif  // CONVLET_AVX512_BF16
