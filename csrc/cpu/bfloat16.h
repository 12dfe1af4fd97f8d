// bfloat16 factors for the tile of gemm.h. A value is rounded to the upper 16 bits of its float32
// when it is packed, to the nearest, ties to even; NaN stays NaN, and values below 2^-126 count as
// zero. Two neighbouring terms share an element: the first in its lower half. So a matrix of n
// terms is one of ceil(n / 2) elements as large as a float, zeros filling up the last, and
// everything that cuts, copies and walks floats serves pairs as well.
//
// With AVX512-BF16 the conversion and the product of pairs are one instruction each. Elsewhere they
// are written out: the same values in the same order, down to sums and products below 2^-126, which
// the instruction flushes to zero.
namespace convlet::CONVLET_ISA {

// The float32 that is nearest to x among the bfloat16 numbers, as bits.
inline std::uint32_t rounded_bits(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const std::uint32_t magnitude = bits & 0x7fffffffu, sign = bits & 0x80000000u;
  const std::uint32_t nearest = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  if (magnitude > 0x7f800000u) return (bits | 0x00400000u) & 0xffff0000u;
  return magnitude < 0x00800000u ? sign : nearest;
}

inline float pair(float first, float second) {
  const std::uint32_t bits = rounded_bits(first) >> 16 | rounded_bits(second);
  float element;
  std::memcpy(&element, &bits, sizeof element);
  return element;
}

#ifdef CONVLET_NATIVE_BFLOAT16

// Lane by lane.
inline V pair(V first, V second) {
  // The halves of the conversion's result: first, second. Word 2 i takes first's word i, word
  // 2 i + 1 second's.
  const __m512i places = _mm512_add_epi32(
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
      _mm512_slli_epi32(
          _mm512_setr_epi32(16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31), 16));
  const __m512i words = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second.v, first.v));
  return {_mm512_castsi512_ps(_mm512_permutexvar_epi16(places, words))};
}
// The 2 * width values that begin with those of a and end with those of b.
inline V pair_neighbours(V a, V b) {
  return {reinterpret_cast<__m512>(_mm512_cvtne2ps_pbh(b.v, a.v))};
}
inline V multiply_add_pairs(V a, V b, V sum) {
  return {
      _mm512_dpbf16_ps(sum.v, reinterpret_cast<__m512bh>(a.v), reinterpret_cast<__m512bh>(b.v))};
}

#else

inline V pair(V first, V second) {
  float a[V::width], b[V::width];
  store(a, first);
  store(b, second);
  for (int i = 0; i < V::width; ++i) a[i] = pair(a[i], b[i]);
  return load(a);
}
inline V pair_neighbours(V a, V b) {
  float values[2 * V::width];
  store(values, a);
  store(values + V::width, b);
  for (int i = 0; i < V::width; ++i) values[i] = pair(values[2 * i], values[2 * i + 1]);
  return load(values);
}
// The product of two bfloat16 numbers is exact in float32, so that each sum is rounded once. The
// second of a pair comes first, as in the instruction.
inline V multiply_add_pairs(V a, V b, V sum) {
  typedef std::uint32_t Bits __attribute__((vector_size(4 * V::width)));
  typedef decltype(V::v) Native;
  const Bits x = reinterpret_cast<Bits>(a.v), y = reinterpret_cast<Bits>(b.v);
  sum = fma({reinterpret_cast<Native>(x & 0xffff0000u)},
            {reinterpret_cast<Native>(y & 0xffff0000u)}, sum);
  return fma({reinterpret_cast<Native>(x << 16)}, {reinterpret_cast<Native>(y << 16)}, sum);
}

#endif

// to[i] = pair(first[i], second[i]) for i < n; no second is zeros.
inline void pair_values(const float* first, const float* second, std::int64_t n, float* to) {
  for_vectors(0, n, [=](std::int64_t i, auto lanes) {
    store(to + i, pair(load(first + i, lanes), second ? load(second + i, lanes) : zero()), lanes);
  });
}

// The pairs of n values that follow each other.
inline void pair_neighbours(const float* from, std::int64_t n, float* to) {
  for (; n >= 2 * V::width; n -= 2 * V::width, from += 2 * V::width, to += V::width)
    store(to, pair_neighbours(load(from), load(from + V::width)));
  if (n == 0) return;
  const int first = static_cast<int>(n < V::width ? n : V::width),
            second = static_cast<int>(n) - first;
  store_first(to, pair_neighbours(load_first(from, first), load_first(from + first, second)),
              static_cast<int>(n + 1) / 2);
}

}  // namespace convlet::CONVLET_ISA
