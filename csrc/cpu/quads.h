// Quads: four floats that lie together, one for each pixel of a 2x2 window. A vector of channels
// picks one of the four for each lane.
namespace convlet::CONVLET_ISA {

// Each instruction set has
//   Picks            which of a quad's four values each lane takes, as `pick` wants it
//   picks_of         of whole numbers, of which only the last two bits count
//   broadcast_quad   a quad in each four lanes
//   store_quads      the quads a[i], b[i], c[i], d[i] of all lanes i: four at `to`, the next four
//                    `stride` later
#if CONVLET_ISA_LEVEL == 2

struct Picks {
  __m512i v;
};
inline Picks picks_of(V chosen) {
  return {_mm512_cvtps_epi32(chosen.v)};
}
inline Picks load_picks(const std::int32_t* p) {
  return {_mm512_loadu_si512(p)};
}
inline void store_picks(std::int32_t* p, Picks a) {
  _mm512_storeu_si512(p, a.v);
}
inline V broadcast_quad(const float* p) {
  return {_mm512_broadcast_f32x4(_mm_loadu_ps(p))};
}
inline V pick(V quad, Picks picks) {
  return {_mm512_permutevar_ps(quad.v, picks.v)};
}
inline void store_quads(float* to, std::int64_t stride, V a, V b, V c, V d) {
  const __m512d ab_low = _mm512_castps_pd(_mm512_unpacklo_ps(a.v, b.v)),
                ab_high = _mm512_castps_pd(_mm512_unpackhi_ps(a.v, b.v)),
                cd_low = _mm512_castps_pd(_mm512_unpacklo_ps(c.v, d.v)),
                cd_high = _mm512_castps_pd(_mm512_unpackhi_ps(c.v, d.v));
  // Vector i has the quads i, i + 4, i + 8 and i + 12.
  const __m512 quad[] = {_mm512_castpd_ps(_mm512_unpacklo_pd(ab_low, cd_low)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(ab_low, cd_low)),
                         _mm512_castpd_ps(_mm512_unpacklo_pd(ab_high, cd_high)),
                         _mm512_castpd_ps(_mm512_unpackhi_pd(ab_high, cd_high))};
  const __m512 even[] = {_mm512_shuffle_f32x4(quad[0], quad[1], 0x88),
                         _mm512_shuffle_f32x4(quad[2], quad[3], 0x88)};
  const __m512 odd[] = {_mm512_shuffle_f32x4(quad[0], quad[1], 0xdd),
                        _mm512_shuffle_f32x4(quad[2], quad[3], 0xdd)};
  _mm512_storeu_ps(to, _mm512_shuffle_f32x4(even[0], even[1], 0x88));
  _mm512_storeu_ps(to + stride, _mm512_shuffle_f32x4(odd[0], odd[1], 0x88));
  _mm512_storeu_ps(to + 2 * stride, _mm512_shuffle_f32x4(even[0], even[1], 0xdd));
  _mm512_storeu_ps(to + 3 * stride, _mm512_shuffle_f32x4(odd[0], odd[1], 0xdd));
}

#elif CONVLET_ISA_LEVEL == 1

struct Picks {
  __m256i v;
};
inline Picks picks_of(V chosen) {
  return {_mm256_cvtps_epi32(chosen.v)};
}
inline Picks load_picks(const std::int32_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))};
}
inline void store_picks(std::int32_t* p, Picks a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), a.v);
}
inline V broadcast_quad(const float* p) {
  return {_mm256_broadcast_ps(reinterpret_cast<const __m128*>(p))};
}
inline V pick(V quad, Picks picks) {
  return {_mm256_permutevar_ps(quad.v, picks.v)};
}
inline void store_quads(float* to, std::int64_t stride, V a, V b, V c, V d) {
  const __m256d ab_low = _mm256_castps_pd(_mm256_unpacklo_ps(a.v, b.v)),
                ab_high = _mm256_castps_pd(_mm256_unpackhi_ps(a.v, b.v)),
                cd_low = _mm256_castps_pd(_mm256_unpacklo_ps(c.v, d.v)),
                cd_high = _mm256_castps_pd(_mm256_unpackhi_ps(c.v, d.v));
  // Vector i has the quads i and i + 4.
  const __m256 quad[] = {_mm256_castpd_ps(_mm256_unpacklo_pd(ab_low, cd_low)),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(ab_low, cd_low)),
                         _mm256_castpd_ps(_mm256_unpacklo_pd(ab_high, cd_high)),
                         _mm256_castpd_ps(_mm256_unpackhi_pd(ab_high, cd_high))};
  _mm256_storeu_ps(to, _mm256_permute2f128_ps(quad[0], quad[1], 0x20));
  _mm256_storeu_ps(to + 8, _mm256_permute2f128_ps(quad[2], quad[3], 0x20));
  _mm256_storeu_ps(to + stride, _mm256_permute2f128_ps(quad[0], quad[1], 0x31));
  _mm256_storeu_ps(to + stride + 8, _mm256_permute2f128_ps(quad[2], quad[3], 0x31));
}

#elif defined(CONVLET_NEON)

// The table look-up of NEON takes bytes: the four of value i are 4 i, 4 i + 1, ...
struct Picks {
  uint32x4_t v;
};
inline Picks picks_of(V chosen) {
  return {vmlaq_u32(vdupq_n_u32(0x03020100u), vcvtq_u32_f32(chosen.v), vdupq_n_u32(0x04040404u))};
}
inline Picks load_picks(const std::int32_t* p) {
  return {vreinterpretq_u32_s32(vld1q_s32(p))};
}
inline void store_picks(std::int32_t* p, Picks a) {
  vst1q_s32(p, vreinterpretq_s32_u32(a.v));
}
inline V broadcast_quad(const float* p) {
  return load(p);
}
inline V pick(V quad, Picks picks) {
  return {vreinterpretq_f32_u8(
      vqtbl1q_u8(vreinterpretq_u8_f32(quad.v), vreinterpretq_u8_u32(picks.v)))};
}
inline void store_quads(float* to, std::int64_t, V a, V b, V c, V d) {
  const float32x4x4_t quads = {{a.v, b.v, c.v, d.v}};
  vst4q_f32(to, quads);
}

#else

struct Picks {
  std::int32_t v[4];
};
inline Picks picks_of(V chosen) {
  Picks picks;
  for (int i = 0; i < 4; ++i) picks.v[i] = static_cast<std::int32_t>(chosen.v[i]) & 3;
  return picks;
}
inline Picks load_picks(const std::int32_t* p) {
  return {{p[0], p[1], p[2], p[3]}};
}
inline void store_picks(std::int32_t* p, Picks a) {
  for (int i = 0; i < 4; ++i) p[i] = a.v[i];
}
inline V broadcast_quad(const float* p) {
  return load(p);
}
inline V pick(V quad, Picks picks) {
  float from[4];
  store(from, quad);
  return {V::Native{from[picks.v[0]], from[picks.v[1]], from[picks.v[2]], from[picks.v[3]]}};
}
inline void store_quads(float* to, std::int64_t, V a, V b, V c, V d) {
  for (int i = 0; i < 4; ++i, to += 4) store(to, {V::Native{a.v[i], b.v[i], c.v[i], d.v[i]}});
}

#endif

}  // namespace convlet::CONVLET_ISA
