// CUDA C++ for g++: what a kernel and its launcher may use of CUDA, run on the CPU with one fiber
// per CUDA thread. csrc/cuda/gpu.cuh includes this instead of cuda_runtime.h. See docs/cuda.md.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <tuple>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __grid_constant__
#define __constant__
// Where a call stands in the kernel, for reports.
#define SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// ---------------------------------------------------------------- types

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {}
};

namespace simt {
// As many bytes as one access of a thread moves: a compiler that sees four floats copied checks and
// counts four accesses.
template <std::size_t bytes>
struct Whole {
  typedef unsigned char type __attribute__((vector_size(bytes < 16 ? bytes : 16), may_alias));
};
template <class T>
inline void copy_whole(T* to, const T* from) {
  using Part = typename Whole<sizeof(T)>::type;
  for (std::size_t i = 0; i < sizeof(T) / sizeof(Part); ++i)
    reinterpret_cast<Part*>(to)[i] = reinterpret_cast<const Part*>(from)[i];
}
}  // namespace simt

#define SIMT_COPIED_WHOLE(Vector)          \
  Vector(const Vector& other) {            \
    simt::copy_whole(this, &other);        \
  }                                        \
  Vector& operator=(const Vector& other) { \
    simt::copy_whole(this, &other);        \
    return *this;                          \
  }
#define SIMT_VECTOR(T, name)                                   \
  struct alignas(2 * sizeof(T)) name##2 {                      \
    T x, y;                                                    \
    name##2() = default;                                       \
    name##2(T x, T y) : x(x), y(y) {}                          \
    SIMT_COPIED_WHOLE(name##2)                                 \
  };                                                           \
  struct alignas(sizeof(T) < 8 ? 4 * sizeof(T) : 16) name##4 { \
    T x, y, z, w;                                              \
    name##4() = default;                                       \
    name##4(T x, T y, T z, T w) : x(x), y(y), z(z), w(w) {}    \
    SIMT_COPIED_WHOLE(name##4)                                 \
  };                                                           \
  inline name##2 make_##name##2(T x, T y) {                    \
    return {x, y};                                             \
  }                                                            \
  inline name##4 make_##name##4(T x, T y, T z, T w) {          \
    return {x, y, z, w};                                       \
  }
SIMT_VECTOR(float, float)
SIMT_VECTOR(double, double)
SIMT_VECTOR(int, int)
SIMT_VECTOR(unsigned, uint)
SIMT_VECTOR(short, short)
SIMT_VECTOR(unsigned short, ushort)
SIMT_VECTOR(signed char, char)
SIMT_VECTOR(unsigned char, uchar)
#undef SIMT_VECTOR
#undef SIMT_COPIED_WHOLE

extern uint3 threadIdx, blockIdx;  // set at every switch to another fiber
extern dim3 blockDim, gridDim;
constexpr int warpSize = 32;

// ---------------------------------------------------------------- bits and bfloat16

inline float __uint_as_float(unsigned bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
inline unsigned __float_as_uint(float value) {
  unsigned bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}
inline int __float_as_int(float value) {
  return static_cast<int>(__float_as_uint(value));
}
inline float __int_as_float(int bits) {
  return __uint_as_float(static_cast<unsigned>(bits));
}

struct __nv_bfloat16 {
  std::uint16_t bits;
  __nv_bfloat16() = default;
  // Rounded to nearest, ties to even; NaN becomes CUDA's.
  __nv_bfloat16(float value) {
    const unsigned u = __float_as_uint(value);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<std::uint16_t>(nan ? 0x7fff : (u + 0x7fffu + (u >> 16 & 1)) >> 16);
  }
  operator float() const { return __uint_as_float(static_cast<unsigned>(bits) << 16); }
};
struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
};
inline __nv_bfloat16 __float2bfloat16(float value) {
  return value;
}
inline __nv_bfloat16 __float2bfloat16_rn(float value) {
  return value;
}
inline float __bfloat162float(__nv_bfloat16 value) {
  return value;
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {x, y};
}
inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
  return {x, y};
}
inline float2 __bfloat1622float2(__nv_bfloat162 value) {
  return {value.x, value.y};
}
inline float __low2float(__nv_bfloat162 value) {
  return value.x;
}
inline float __high2float(__nv_bfloat162 value) {
  return value.y;
}
inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) {
  return value.bits;
}
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 value;
  value.bits = bits;
  return value;
}

// ---------------------------------------------------------------- arithmetic

using std::isfinite;
using std::isinf;
using std::isnan;
using std::max;
using std::min;
inline float __expf(float x) {
  return expf(x);
}
inline float __logf(float x) {
  return logf(x);
}
inline float __fdividef(float a, float b) {
  return a / b;
}
inline float __fdiv_rn(float a, float b) {
  return a / b;
}
inline float __fadd_rn(float a, float b) {
  return a + b;
}
inline float __fsub_rn(float a, float b) {
  return a - b;
}
inline float __fmul_rn(float a, float b) {
  return a * b;
}
inline float __fmaf_rn(float a, float b, float c) {
  return fmaf(a, b, c);
}
inline float __frcp_rn(float x) {
  return 1.0f / x;
}
inline float __fsqrt_rn(float x) {
  return sqrtf(x);
}
inline double __dadd_rn(double a, double b) {
  return a + b;
}
inline double __dmul_rn(double a, double b) {
  return a * b;
}
inline float rsqrtf(float x) {
  return 1.0f / sqrtf(x);
}
inline float __saturatef(float x) {
  return x > 0 ? (x < 1 ? x : 1.0f) : 0.0f;
}
inline int __float2int_rn(float x) {
  return static_cast<int>(nearbyintf(x));
}
inline int __float2int_rd(float x) {
  return static_cast<int>(floorf(x));
}
template <class T>
inline T __ldg(const T* p) {
  return *p;
}
inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}
inline int __clz(int x) {
  return x ? __builtin_clz(static_cast<unsigned>(x)) : 32;
}
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(std::uint64_t{a} * b >> 32);
}
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}

// ---------------------------------------------------------------- the emulator's side of a kernel

namespace simt {

enum class Access { read, write, atomic };

// Checks one access of the running thread: bounds, initialised, races. `place` is a return address.
void access(const void* p, std::size_t bytes, Access kind, const void* place);
// Stands for the address of a place in the sources.
const void* place_of(const char* file, int line);

void* static_shared(const void* key, std::size_t bytes, std::size_t alignment, const char* name);
void* dynamic_shared();

int lane_id();
[[noreturn]] void fail(const char* format, ...);  // reports, and gives the launch up

enum class BarrierSum { none, count, all, any };
int barrier(BarrierSum sum, int value, const char* file, int line);

// Waits for all lanes of the mask; the last calls compute(arguments by lane, mask).
enum class Collective { sync, shuffle, vote, reduce, load_matrix, mma };
using Compute = void (*)(void** arguments, unsigned mask);
void collective(unsigned mask, Collective kind, void* argument, Compute compute, const char* file,
                int line);

void copy_async(void* shared, const void* global, int bytes, bool valid, const void* place);
void copy_async_commit();
void copy_async_wait(int newest);
void fence();

}  // namespace simt

inline void __syncthreads(SIMT_HERE) {
  simt::barrier(simt::BarrierSum::none, 0, file, line);
}
inline int __syncthreads_count(int value, SIMT_HERE) {
  return simt::barrier(simt::BarrierSum::count, value, file, line);
}
inline int __syncthreads_and(int value, SIMT_HERE) {
  return simt::barrier(simt::BarrierSum::all, value, file, line);
}
inline int __syncthreads_or(int value, SIMT_HERE) {
  return simt::barrier(simt::BarrierSum::any, value, file, line);
}
inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_HERE) {
  simt::collective(mask, simt::Collective::sync, nullptr, nullptr, file, line);
}
inline void __threadfence() {
  simt::fence();
}
inline void __threadfence_block() {}

// ---------------------------------------------------------------- shuffles and votes

namespace simt {

template <class T>
struct Shuffle {
  T value, result;
  int source;
};

template <class T>
T shuffle(unsigned mask, T value, int source, const char* file, int line) {
  Shuffle<T> mine{value, value, source};
  collective(
      mask, Collective::shuffle, &mine,
      [](void** arguments, unsigned present) {
        for (int lane = 0; lane < 32; ++lane) {
          if (!(present >> lane & 1)) continue;
          auto* to = static_cast<Shuffle<T>*>(arguments[lane]);
          if (!(present >> to->source & 1))
            fail("shuffle: lane %d reads lane %d, which takes no part (mask %08x)", lane,
                 to->source, present);
          to->result = static_cast<Shuffle<T>*>(arguments[to->source])->value;
        }
      },
      file, line);
  return mine.result;
}

struct Vote {
  unsigned value, result;
};

template <class Combine>
unsigned vote(unsigned mask, Collective kind, unsigned value, const char* file, int line) {
  Vote mine{value, 0};
  collective(
      mask, kind, &mine,
      [](void** arguments, unsigned present) {
        unsigned result = 0;
        bool first = true;
        for (int lane = 0; lane < 32; ++lane) {
          if (!(present >> lane & 1)) continue;
          const unsigned v = static_cast<Vote*>(arguments[lane])->value;
          result = first ? v : Combine()(result, v);
          first = false;
        }
        for (int lane = 0; lane < 32; ++lane)
          if (present >> lane & 1) static_cast<Vote*>(arguments[lane])->result = result;
      },
      file, line);
  return mine.result;
}

struct Either {
  unsigned operator()(unsigned a, unsigned b) const { return a | b; }
};
struct Sum {
  unsigned operator()(unsigned a, unsigned b) const { return a + b; }
};
struct LargestSigned {
  unsigned operator()(unsigned a, unsigned b) const {
    return static_cast<int>(a) > static_cast<int>(b) ? a : b;
  }
};

}  // namespace simt

// A lane outside its group of `width` reads its own value.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, SIMT_HERE) {
  const int first = simt::lane_id() & ~(width - 1);
  return simt::shuffle(mask, value, first | (source & (width - 1)), file, line);
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, SIMT_HERE) {
  const int lane = simt::lane_id(), source = lane ^ bits;
  const bool inside = source < (lane & ~(width - 1)) + width;
  return simt::shuffle(mask, value, inside ? source : lane, file, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  const int lane = simt::lane_id(), source = lane + static_cast<int>(delta);
  const bool inside = source < (lane & ~(width - 1)) + width;
  return simt::shuffle(mask, value, inside ? source : lane, file, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, SIMT_HERE) {
  const int lane = simt::lane_id(), source = lane - static_cast<int>(delta);
  const bool inside = source >= (lane & ~(width - 1));
  return simt::shuffle(mask, value, inside ? source : lane, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_HERE) {
  return simt::vote<simt::Either>(mask, simt::Collective::vote,
                                  predicate ? 1u << simt::lane_id() : 0u, file, line);
}
inline int __any_sync(unsigned mask, int predicate, SIMT_HERE) {
  return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, SIMT_HERE) {
  return __ballot_sync(mask, !predicate, file, line) == 0;
}
inline unsigned __activemask() {
  return 0xffffffffu;
}
inline int __reduce_add_sync(unsigned mask, int value, SIMT_HERE) {
  return static_cast<int>(simt::vote<simt::Sum>(mask, simt::Collective::reduce,
                                                static_cast<unsigned>(value), file, line));
}
inline int __reduce_max_sync(unsigned mask, int value, SIMT_HERE) {
  return static_cast<int>(simt::vote<simt::LargestSigned>(
      mask, simt::Collective::reduce, static_cast<unsigned>(value), file, line));
}

// ---------------------------------------------------------------- atomics on whole numbers
// No fiber is switched inside, so plain code is atomic.

#define SIMT_UNCHECKED __attribute__((no_sanitize("thread"), noinline))
namespace simt {
template <class T, class F>
SIMT_UNCHECKED T modify(T* p, T value, F f) {
  access(p, sizeof(T), Access::atomic, __builtin_return_address(0));
  const T old = *p;
  *p = f(old, value);
  return old;
}
template <class T>
using Same = std::common_type_t<T>;
}  // namespace simt

template <class T>
T atomicAdd(T* p, simt::Same<T> value) {
  static_assert(std::is_integral<T>::value, "sums of floats in no fixed order are not allowed");
  return simt::modify<T>(p, value, [](T a, T b) { return T(a + b); });
}
template <class T>
T atomicMax(T* p, simt::Same<T> value) {
  return simt::modify<T>(p, value, [](T a, T b) { return a > b ? a : b; });
}
template <class T>
T atomicMin(T* p, simt::Same<T> value) {
  return simt::modify<T>(p, value, [](T a, T b) { return a < b ? a : b; });
}
template <class T>
T atomicExch(T* p, simt::Same<T> value) {
  return simt::modify<T>(p, value, [](T, T b) { return b; });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return simt::modify<unsigned>(p, limit,
                                [](unsigned a, unsigned b) { return a >= b ? 0 : a + 1; });
}
template <class T>
T atomicCAS(T* p, simt::Same<T> expected, simt::Same<T> value) {
  return simt::modify<T>(p, value, [expected](T a, T b) { return a == expected ? b : a; });
}

#include "runtime_api.h"
