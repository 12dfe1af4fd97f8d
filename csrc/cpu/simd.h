// One vector of floats, V, for the instruction set of the including translation unit. A kernel body
// is written once against V. table_<isa>.cpp defines CONVLET_ISA (a namespace name) and
// CONVLET_ISA_LEVEL (0 baseline, 1 AVX2 + FMA, 2 AVX-512 F/BW/DQ/VL; on ARM, 0 with CONVLET_NEON),
// includes every standard and intrinsics header, opens its target region and only then includes
// this file and the bodies.
//
// No include guard: each translation unit includes it once, inside its region.

// Before a loop of few iterations that must be unrolled whole: its vectors are then registers.
#if defined(__clang__)
#define CONVLET_UNROLL _Pragma("unroll")
#else
#define CONVLET_UNROLL _Pragma("GCC unroll 24")
#endif

namespace convlet::CONVLET_ISA {

#if CONVLET_ISA_LEVEL == 2

struct V {
  static constexpr int width = 16;
  __m512 v;
};
struct Mask {
  __mmask16 m;
};

inline __mmask16 first_lanes(int n) {
  return static_cast<__mmask16>((1u << n) - 1u);
}
inline V load(const float* p) {
  return {_mm512_loadu_ps(p)};
}
inline void store(float* p, V a) {
  _mm512_storeu_ps(p, a.v);
}
// The first n lanes, 0 <= n <= width; the others read as zero and are not touched in memory.
inline V load_first(const float* p, int n) {
  return {_mm512_maskz_loadu_ps(first_lanes(n), p)};
}
inline void store_first(float* p, V a, int n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), a.v);
}
inline V broadcast(float x) {
  return {_mm512_set1_ps(x)};
}
inline V operator+(V a, V b) {
  return {_mm512_add_ps(a.v, b.v)};
}
inline V operator-(V a, V b) {
  return {_mm512_sub_ps(a.v, b.v)};
}
inline V operator*(V a, V b) {
  return {_mm512_mul_ps(a.v, b.v)};
}
inline V operator/(V a, V b) {
  return {_mm512_div_ps(a.v, b.v)};
}
inline V fma(V a, V b, V c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
// The second operand when either is NaN, as the instruction does.
inline V max(V a, V b) {
  return {_mm512_max_ps(a.v, b.v)};
}
inline V min(V a, V b) {
  return {_mm512_min_ps(a.v, b.v)};
}
inline V sqrt(V a) {
  return {_mm512_sqrt_ps(a.v)};
}
inline V abs(V a) {
  return {_mm512_abs_ps(a.v)};
}
// To the nearest integer, ties to even.
inline V round(V a) {
  return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Mask operator<(V a, V b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ)};
}
inline Mask operator>(V a, V b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ)};
}
inline Mask operator==(V a, V b) {
  return {_mm512_cmp_ps_mask(a.v, b.v, _CMP_EQ_OQ)};
}
inline Mask is_nan(V a) {
  return {_mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q)};
}
inline Mask operator|(Mask a, Mask b) {
  return {static_cast<__mmask16>(a.m | b.m)};
}
inline Mask operator&(Mask a, Mask b) {
  return {static_cast<__mmask16>(a.m & b.m)};
}
inline bool any(Mask a) {
  return a.m != 0;
}
// a where the mask is set, else b.
inline V select(Mask m, V a, V b) {
  return {_mm512_mask_blend_ps(m.m, b.v, a.v)};
}
// 2^n for integral n in [-126, 127].
inline V power_of_two(V n) {
  __m512i e = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(e, 23))};
}
// e and m of a = m * 2^e, 1 <= m < 2, for positive normal a.
inline V exponent(V a) {
  __m512i e = _mm512_srli_epi32(_mm512_castps_si512(a.v), 23);
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(e, _mm512_set1_epi32(127)))};
}
inline V mantissa(V a) {
  __m512i m = _mm512_and_si512(_mm512_castps_si512(a.v), _mm512_set1_epi32(0x007fffff));
  return {_mm512_castsi512_ps(_mm512_or_si512(m, _mm512_set1_epi32(0x3f800000)))};
}
// Integers in the same space, and the 64-bit products of their low halves.
typedef std::uint64_t Words __attribute__((vector_size(64)));
inline Words multiply_low_halves(Words a, Words b) {
  return reinterpret_cast<Words>(
      _mm512_mul_epu32(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
// a0, b0, a2, b2, ... and a1, b1, a3, b3, ...
inline Words even_pairs(Words a, Words b) {
  return reinterpret_cast<Words>(
      _mm512_unpacklo_epi64(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}
inline Words odd_pairs(Words a, Words b) {
  return reinterpret_cast<Words>(
      _mm512_unpackhi_epi64(reinterpret_cast<__m512i>(a), reinterpret_cast<__m512i>(b)));
}

#elif CONVLET_ISA_LEVEL == 1

struct V {
  static constexpr int width = 8;
  __m256 v;
};
struct Mask {
  __m256 m;
};

inline __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline V load(const float* p) {
  return {_mm256_loadu_ps(p)};
}
inline void store(float* p, V a) {
  _mm256_storeu_ps(p, a.v);
}
// The first n lanes, 0 <= n <= width; the others read as zero and are not touched in memory.
inline V load_first(const float* p, int n) {
  return {_mm256_maskload_ps(p, first_lanes(n))};
}
// Not a masked store: those take some 20 cycles on AMD's Zen.
inline void store_first(float* p, V a, int n) {
  if (n == V::width) return store(p, a);
  __m128 part = _mm256_castps256_ps128(a.v);
  if (n & 4) {
    _mm_storeu_ps(p, part);
    part = _mm256_extractf128_ps(a.v, 1);
    p += 4;
  }
  if (n & 2) {
    _mm_storel_pi(reinterpret_cast<__m64*>(p), part);
    part = _mm_movehl_ps(part, part);
    p += 2;
  }
  if (n & 1) _mm_store_ss(p, part);
}
inline V broadcast(float x) {
  return {_mm256_set1_ps(x)};
}
inline V operator+(V a, V b) {
  return {_mm256_add_ps(a.v, b.v)};
}
inline V operator-(V a, V b) {
  return {_mm256_sub_ps(a.v, b.v)};
}
inline V operator*(V a, V b) {
  return {_mm256_mul_ps(a.v, b.v)};
}
inline V operator/(V a, V b) {
  return {_mm256_div_ps(a.v, b.v)};
}
inline V fma(V a, V b, V c) {
  return {_mm256_fmadd_ps(a.v, b.v, c.v)};
}
// The second operand when either is NaN, as the instruction does.
inline V max(V a, V b) {
  return {_mm256_max_ps(a.v, b.v)};
}
inline V min(V a, V b) {
  return {_mm256_min_ps(a.v, b.v)};
}
inline V sqrt(V a) {
  return {_mm256_sqrt_ps(a.v)};
}
inline V abs(V a) {
  return {_mm256_andnot_ps(_mm256_set1_ps(-0.0f), a.v)};
}
// To the nearest integer, ties to even.
inline V round(V a) {
  return {_mm256_round_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
}
inline Mask operator<(V a, V b) {
  return {_mm256_cmp_ps(a.v, b.v, _CMP_LT_OQ)};
}
inline Mask operator>(V a, V b) {
  return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)};
}
inline Mask operator==(V a, V b) {
  return {_mm256_cmp_ps(a.v, b.v, _CMP_EQ_OQ)};
}
inline Mask is_nan(V a) {
  return {_mm256_cmp_ps(a.v, a.v, _CMP_UNORD_Q)};
}
inline Mask operator|(Mask a, Mask b) {
  return {_mm256_or_ps(a.m, b.m)};
}
inline Mask operator&(Mask a, Mask b) {
  return {_mm256_and_ps(a.m, b.m)};
}
inline bool any(Mask a) {
  return _mm256_movemask_ps(a.m) != 0;
}
// a where the mask is set, else b.
inline V select(Mask m, V a, V b) {
  return {_mm256_blendv_ps(b.v, a.v, m.m)};
}
// 2^n for integral n in [-126, 127].
inline V power_of_two(V n) {
  __m256i e = _mm256_add_epi32(_mm256_cvtps_epi32(n.v), _mm256_set1_epi32(127));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(e, 23))};
}
// e and m of a = m * 2^e, 1 <= m < 2, for positive normal a.
inline V exponent(V a) {
  __m256i e = _mm256_srli_epi32(_mm256_castps_si256(a.v), 23);
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(e, _mm256_set1_epi32(127)))};
}
inline V mantissa(V a) {
  __m256i m = _mm256_and_si256(_mm256_castps_si256(a.v), _mm256_set1_epi32(0x007fffff));
  return {_mm256_castsi256_ps(_mm256_or_si256(m, _mm256_set1_epi32(0x3f800000)))};
}
// Integers in the same space, and the 64-bit products of their low halves.
typedef std::uint64_t Words __attribute__((vector_size(32)));
inline Words multiply_low_halves(Words a, Words b) {
  return reinterpret_cast<Words>(
      _mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
// a0, b0, a2, b2, ... and a1, b1, a3, b3, ...
inline Words even_pairs(Words a, Words b) {
  return reinterpret_cast<Words>(
      _mm256_unpacklo_epi64(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
inline Words odd_pairs(Words a, Words b) {
  return reinterpret_cast<Words>(
      _mm256_unpackhi_epi64(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}

#elif defined(CONVLET_NEON)

#include "cpu/simd_neon.h"

#else  // any compiler's vectors of four floats

struct V {
  static constexpr int width = 4;
  typedef float Native __attribute__((vector_size(16)));
  Native v;
};
struct Mask {
  typedef std::int32_t Native __attribute__((vector_size(16)));
  Native m;
};

inline V load(const float* p) {
  V a;
  std::memcpy(&a.v, p, sizeof a.v);
  return a;
}
inline void store(float* p, V a) {
  std::memcpy(p, &a.v, sizeof a.v);
}
// The first n lanes, 0 <= n <= width; the others read as zero and are not touched in memory.
inline V load_first(const float* p, int n) {
  V a{{0, 0, 0, 0}};
  for (int i = 0; i < n; ++i) a.v[i] = p[i];
  return a;
}
inline void store_first(float* p, V a, int n) {
  for (int i = 0; i < n; ++i) p[i] = a.v[i];
}
inline V broadcast(float x) {
  return {V::Native{x, x, x, x}};
}
inline V operator+(V a, V b) {
  return {a.v + b.v};
}
inline V operator-(V a, V b) {
  return {a.v - b.v};
}
inline V operator*(V a, V b) {
  return {a.v * b.v};
}
inline V operator/(V a, V b) {
  return {a.v / b.v};
}
inline V fma(V a, V b, V c) {
  return {a.v * b.v + c.v};
}
inline Mask operator<(V a, V b) {
  return {a.v < b.v};
}
inline Mask operator>(V a, V b) {
  return {a.v > b.v};
}
inline Mask operator==(V a, V b) {
  return {a.v == b.v};
}
inline Mask is_nan(V a) {
  return {a.v != a.v};
}
inline Mask operator|(Mask a, Mask b) {
  return {a.m | b.m};
}
inline Mask operator&(Mask a, Mask b) {
  return {a.m & b.m};
}
inline bool any(Mask a) {
  return (a.m[0] | a.m[1] | a.m[2] | a.m[3]) != 0;
}
// a where the mask is set, else b.
inline V select(Mask m, V a, V b) {
  Mask::Native bits_a, bits_b;
  std::memcpy(&bits_a, &a.v, sizeof bits_a);
  std::memcpy(&bits_b, &b.v, sizeof bits_b);
  Mask::Native bits = (bits_a & m.m) | (bits_b & ~m.m);
  V out;
  std::memcpy(&out.v, &bits, sizeof bits);
  return out;
}
// The second operand when either is NaN.
inline V max(V a, V b) {
  return select(a > b, a, b);
}
inline V min(V a, V b) {
  return select(a < b, a, b);
}
inline V sqrt(V a) {
  return {V::Native{std::sqrt(a.v[0]), std::sqrt(a.v[1]), std::sqrt(a.v[2]), std::sqrt(a.v[3])}};
}
inline V abs(V a) {
  Mask::Native bits;
  std::memcpy(&bits, &a.v, sizeof bits);
  bits &= 0x7fffffff;
  std::memcpy(&a.v, &bits, sizeof bits);
  return a;
}
// To the nearest integer, ties to even.
inline V round(V a) {
  return {V::Native{std::nearbyint(a.v[0]), std::nearbyint(a.v[1]), std::nearbyint(a.v[2]),
                    std::nearbyint(a.v[3])}};
}
// 2^n for integral n in [-126, 127].
inline V power_of_two(V n) {
  Mask::Native e;
  for (int i = 0; i < 4; ++i) e[i] = (static_cast<std::int32_t>(n.v[i]) + 127) << 23;
  V out;
  std::memcpy(&out.v, &e, sizeof e);
  return out;
}
// e and m of a = m * 2^e, 1 <= m < 2, for positive normal a.
inline V exponent(V a) {
  Mask::Native bits;
  std::memcpy(&bits, &a.v, sizeof bits);
  return {__builtin_convertvector((bits >> 23) - 127, V::Native)};
}
inline V mantissa(V a) {
  Mask::Native bits;
  std::memcpy(&bits, &a.v, sizeof bits);
  bits = (bits & 0x007fffff) | 0x3f800000;
  V m;
  std::memcpy(&m.v, &bits, sizeof bits);
  return m;
}
// Integers in the same space, and the 64-bit products of their low halves.
typedef std::uint64_t Words __attribute__((vector_size(16)));
inline Words multiply_low_halves(Words a, Words b) {
  constexpr std::uint64_t kLow = 0xffffffffu;
  return (a & kLow) * (b & kLow);
}
// a0, b0, a2, b2, ... and a1, b1, a3, b3, ...
inline Words even_pairs(Words a, Words b) {
  return Words{a[0], b[0]};
}
inline Words odd_pairs(Words a, Words b) {
  return Words{a[1], b[1]};
}

#endif

inline V zero() {
  return broadcast(0.0f);
}

// Stores past the cache, where the instruction set can, to a multiple of the vector's size. Such
// stores may be seen in any order: a thread calls finish_streaming() before its part is done.
#if CONVLET_ISA_LEVEL > 0
inline void stream(float* p, V a) {
#if CONVLET_ISA_LEVEL == 2
  _mm512_stream_ps(p, a.v);
#else
  _mm256_stream_ps(p, a.v);
#endif
}
inline void finish_streaming() {
  _mm_sfence();
}
#else
inline void stream(float* p, V a) {
  store(p, a);
}
inline void finish_streaming() {}
#endif

// to[i * to_stride + j] = from[j * from_stride + i] for i, j < kTransposed. NEON has its own.
#if CONVLET_ISA_LEVEL > 0
constexpr int kTransposed = 8;
inline void transpose(const float* from, std::int64_t from_stride, float* to,
                      std::int64_t to_stride) {
  __m256 row[8], pair[8];
  for (int i = 0; i < 8; ++i) row[i] = _mm256_loadu_ps(from + i * from_stride);
  for (int i = 0; i < 8; i += 2) {
    pair[i] = _mm256_unpacklo_ps(row[i], row[i + 1]);
    pair[i + 1] = _mm256_unpackhi_ps(row[i], row[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    row[i] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0x44);
    row[i + 1] = _mm256_shuffle_ps(pair[i], pair[i + 2], 0xee);
    row[i + 2] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0x44);
    row[i + 3] = _mm256_shuffle_ps(pair[i + 1], pair[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    _mm256_storeu_ps(to + i * to_stride, _mm256_permute2f128_ps(row[i], row[i + 4], 0x20));
    _mm256_storeu_ps(to + (i + 4) * to_stride, _mm256_permute2f128_ps(row[i], row[i + 4], 0x31));
  }
}
#elif !defined(CONVLET_NEON)
constexpr int kTransposed = 4;
inline void transpose(const float* from, std::int64_t from_stride, float* to,
                      std::int64_t to_stride) {
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) to[i * to_stride + j] = from[j * from_stride + i];
}
#endif

// Whole numbers from 0 to 255 as bytes: a vector of them, and its first n, 0 <= n <= width.
#if CONVLET_ISA_LEVEL == 2
inline V load_from_bytes(const std::uint8_t* p) {
  __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))};
}
inline void store_as_bytes(std::uint8_t* p, V a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(a.v)));
}
#elif CONVLET_ISA_LEVEL == 1
inline V load_from_bytes(const std::uint8_t* p) {
  __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes))};
}
inline void store_as_bytes(std::uint8_t* p, V a) {
  __m256i words = _mm256_cvtps_epi32(a.v);
  __m128i shorts =
      _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(shorts, shorts));
}
#else
inline V load_from_bytes(const std::uint8_t* p) {
  float lane[V::width];
  for (int i = 0; i < V::width; ++i) lane[i] = static_cast<float>(p[i]);
  return load(lane);
}
inline void store_as_bytes(std::uint8_t* p, V a) {
  float lane[V::width];
  store(lane, a);
  for (int i = 0; i < V::width; ++i) p[i] = static_cast<std::uint8_t>(lane[i]);
}
#endif
inline V load_first_from_bytes(const std::uint8_t* p, int n) {
  float lane[V::width] = {};
  for (int i = 0; i < n; ++i) lane[i] = static_cast<float>(p[i]);
  return load(lane);
}
inline void store_first_as_bytes(std::uint8_t* p, V a, int n) {
  float lane[V::width];
  store(lane, a);
  for (int i = 0; i < n; ++i) p[i] = static_cast<std::uint8_t>(lane[i]);
}

inline float first_lane(V a) {
  float lane[V::width];
  store(lane, a);
  return lane[0];
}

// The sum and the maximum of the lanes, in a fixed order.
#if CONVLET_ISA_LEVEL > 0
inline float sum_of_lanes(V a) {
#if CONVLET_ISA_LEVEL == 2
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
#else
  const __m256 half = a.v;
#endif
  __m128 sum = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
  return _mm_cvtss_f32(_mm_add_ss(sum, _mm_shuffle_ps(sum, sum, 1)));
}
#else
inline float sum_of_lanes(V a) {
  float lane[V::width];
  store(lane, a);
  for (int half = V::width / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  return lane[0];
}
#endif
inline float max_of_lanes(V a) {
  float lane[V::width];
  store(lane, a);
  float best = lane[0];
  for (int i = 1; i < V::width; ++i) best = lane[i] > best ? lane[i] : best;
  return best;
}

// a to the b, lane by lane.
inline V power(V a, V b) {
  float base[V::width], exponent[V::width];
  store(base, a);
  store(exponent, b);
  for (int i = 0; i < V::width; ++i) base[i] = std::pow(base[i], exponent[i]);
  return load(base);
}

}  // namespace convlet::CONVLET_ISA
