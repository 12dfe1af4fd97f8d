// What a precision means: how a 16x8 block of results takes in 16 terms. Every operand is float32
// in memory; values are converted here, in registers, and the sums are float32.
//   bfloat16   rounded to 8 bits of mantissa
//   tf32       rounded to 11 bits
//   float32    each value is the sum of two of 11 bits, and three of the four products are added:
//              what is left out is below 2^-22 of the product
// A lane with g = lane / 4 and t = lane % 4 holds terms 4t to 4t+3 of rows g and g + 8 of a, and of
// column g of b. The instructions number the terms otherwise, but the order of a sum's terms is
// free, as long as it is the same in a and b.
#pragma once
#include "core/device.h"
#include "cuda/ptx.cuh"

namespace convlet::cuda {

template <Precision precision>
struct Arithmetic;

template <>
struct Arithmetic<Precision::bfloat16> {
  struct A {
    std::uint32_t bits[4];
  };
  struct B {
    std::uint32_t bits[2];
  };

  CONVLET_DEVICE static std::uint32_t pair(float low, float high) {
    const __nv_bfloat162 value = __floats2bfloat162_rn(low, high);
    std::uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
  }
  CONVLET_DEVICE static A a(const float (&g)[4], const float (&g8)[4]) {
    return {{pair(g[0], g[1]), pair(g8[0], g8[1]), pair(g[2], g[3]), pair(g8[2], g8[3])}};
  }
  CONVLET_DEVICE static B b(const float (&g)[4]) { return {{pair(g[0], g[1]), pair(g[2], g[3])}}; }
  CONVLET_DEVICE static void multiply_add(float (&d)[4], const A& a, const B& b) {
    mma_bf16(d, a.bits, b.bits[0], b.bits[1]);
  }
};

template <>
struct Arithmetic<Precision::tf32> {
  struct A {
    std::uint32_t first[4], second[4];
  };
  struct B {
    std::uint32_t bits[4];
  };

  CONVLET_DEVICE static A a(const float (&g)[4], const float (&g8)[4]) {
    return {{to_tf32(g[0]), to_tf32(g8[0]), to_tf32(g[1]), to_tf32(g8[1])},
            {to_tf32(g[2]), to_tf32(g8[2]), to_tf32(g[3]), to_tf32(g8[3])}};
  }
  CONVLET_DEVICE static B b(const float (&g)[4]) {
    return {{to_tf32(g[0]), to_tf32(g[1]), to_tf32(g[2]), to_tf32(g[3])}};
  }
  CONVLET_DEVICE static void multiply_add(float (&d)[4], const A& a, const B& b) {
    mma_tf32(d, a.first, b.bits[0], b.bits[1]);
    mma_tf32(d, a.second, b.bits[2], b.bits[3]);
  }
};

template <>
struct Arithmetic<Precision::float32> {
  using Tf32 = Arithmetic<Precision::tf32>;
  // x = large + small. An infinity is all large, and takes no part in the products with a small
  // value, which may be 0: there `finite` stands for large.
  struct A {
    Tf32::A large, finite, small;
  };
  struct B {
    Tf32::B large, finite, small;
  };

  CONVLET_DEVICE static void split(const float (&x)[4], float (&large)[4], float (&finite)[4],
                                   float (&small)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      large[i] = __uint_as_float(to_tf32(x[i]));
      const bool infinite = fabsf(large[i]) == __uint_as_float(0x7f800000u);
      finite[i] = infinite ? 0.0f : large[i];
      small[i] = infinite ? 0.0f : x[i] - large[i];
    }
  }
  CONVLET_DEVICE static A a(const float (&g)[4], const float (&g8)[4]) {
    float large[4], finite[4], small[4], large8[4], finite8[4], small8[4];
    split(g, large, finite, small);
    split(g8, large8, finite8, small8);
    return {Tf32::a(large, large8), Tf32::a(finite, finite8), Tf32::a(small, small8)};
  }
  CONVLET_DEVICE static B b(const float (&g)[4]) {
    float large[4], finite[4], small[4];
    split(g, large, finite, small);
    return {Tf32::b(large), Tf32::b(finite), Tf32::b(small)};
  }
  // Each 16 terms have a sum of their own: the tensor cores truncate what they add to, and a long
  // sum would lose more than float32 does.
  CONVLET_DEVICE static void multiply_add(float (&d)[4], const A& a, const B& b) {
    float sum[4] = {};
    Tf32::multiply_add(sum, a.small, b.finite);
    Tf32::multiply_add(sum, a.finite, b.small);
    Tf32::multiply_add(sum, a.large, b.large);
#pragma unroll
    for (int i = 0; i < 4; ++i) d[i] += sum[i];
  }
};

}  // namespace convlet::cuda
