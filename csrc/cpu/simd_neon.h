// V for 64-bit ARM: one register of four floats. Part of simd.h, which opens the namespace.
struct V {
  static constexpr int width = 4;
  float32x4_t v;
};
struct Mask {
  uint32x4_t m;
};

inline V load(const float* p) {
  return {vld1q_f32(p)};
}
inline void store(float* p, V a) {
  vst1q_f32(p, a.v);
}
// The first n lanes, 0 <= n <= width; the others read as zero and are not touched in memory.
inline V load_first(const float* p, int n) {
  if (n == V::width) return load(p);
  float32x2_t low = vdup_n_f32(0.0f), high = vdup_n_f32(0.0f);
  if (n & 2) {
    low = vld1_f32(p);
    if (n & 1) high = vld1_lane_f32(p + 2, high, 0);
  } else if (n & 1) {
    low = vld1_lane_f32(p, low, 0);
  }
  return {vcombine_f32(low, high)};
}
inline void store_first(float* p, V a, int n) {
  if (n == V::width) return store(p, a);
  float32x2_t part = vget_low_f32(a.v);
  if (n & 2) {
    vst1_f32(p, part);
    part = vget_high_f32(a.v);
    p += 2;
  }
  if (n & 1) vst1_lane_f32(p, part, 0);
}
inline V broadcast(float x) {
  return {vdupq_n_f32(x)};
}
inline V operator+(V a, V b) {
  return {vaddq_f32(a.v, b.v)};
}
inline V operator-(V a, V b) {
  return {vsubq_f32(a.v, b.v)};
}
inline V operator*(V a, V b) {
  return {vmulq_f32(a.v, b.v)};
}
inline V operator/(V a, V b) {
  return {vdivq_f32(a.v, b.v)};
}
inline V fma(V a, V b, V c) {
  return {vfmaq_f32(c.v, a.v, b.v)};
}
inline V sqrt(V a) {
  return {vsqrtq_f32(a.v)};
}
inline V abs(V a) {
  return {vabsq_f32(a.v)};
}
// To the nearest integer, ties to even.
inline V round(V a) {
  return {vrndnq_f32(a.v)};
}
inline Mask operator<(V a, V b) {
  return {vcltq_f32(a.v, b.v)};
}
inline Mask operator>(V a, V b) {
  return {vcgtq_f32(a.v, b.v)};
}
inline Mask operator==(V a, V b) {
  return {vceqq_f32(a.v, b.v)};
}
inline Mask is_nan(V a) {
  return {vmvnq_u32(vceqq_f32(a.v, a.v))};
}
inline Mask operator|(Mask a, Mask b) {
  return {vorrq_u32(a.m, b.m)};
}
inline Mask operator&(Mask a, Mask b) {
  return {vandq_u32(a.m, b.m)};
}
inline bool any(Mask a) {
  return vmaxvq_u32(a.m) != 0;
}
// a where the mask is set, else b.
inline V select(Mask m, V a, V b) {
  return {vbslq_f32(m.m, a.v, b.v)};
}
// The second operand when either is NaN, where NEON's own maximum would be NaN.
inline V max(V a, V b) {
  return select(a > b, a, b);
}
inline V min(V a, V b) {
  return select(a < b, a, b);
}
// 2^n for integral n in [-126, 127].
inline V power_of_two(V n) {
  int32x4_t e = vaddq_s32(vcvtq_s32_f32(n.v), vdupq_n_s32(127));
  return {vreinterpretq_f32_s32(vshlq_n_s32(e, 23))};
}
// e and m of a = m * 2^e, 1 <= m < 2, for positive normal a.
inline V exponent(V a) {
  int32x4_t e = vshrq_n_s32(vreinterpretq_s32_f32(a.v), 23);
  return {vcvtq_f32_s32(vsubq_s32(e, vdupq_n_s32(127)))};
}
inline V mantissa(V a) {
  int32x4_t m = vandq_s32(vreinterpretq_s32_f32(a.v), vdupq_n_s32(0x007fffff));
  return {vreinterpretq_f32_s32(vorrq_s32(m, vdupq_n_s32(0x3f800000)))};
}
// Integers in the same space, and the 64-bit products of their low halves.
typedef std::uint64_t Words __attribute__((vector_size(16)));
inline Words multiply_low_halves(Words a, Words b) {
  return reinterpret_cast<Words>(vmull_u32(vmovn_u64(reinterpret_cast<uint64x2_t>(a)),
                                           vmovn_u64(reinterpret_cast<uint64x2_t>(b))));
}
// a0, b0, a2, b2, ... and a1, b1, a3, b3, ...
inline Words even_pairs(Words a, Words b) {
  return reinterpret_cast<Words>(
      vzip1q_u64(reinterpret_cast<uint64x2_t>(a), reinterpret_cast<uint64x2_t>(b)));
}
inline Words odd_pairs(Words a, Words b) {
  return reinterpret_cast<Words>(
      vzip2q_u64(reinterpret_cast<uint64x2_t>(a), reinterpret_cast<uint64x2_t>(b)));
}

// to[i * to_stride + j] = from[j * from_stride + i] for i, j < kTransposed.
constexpr int kTransposed = 4;
inline void transpose(const float* from, std::int64_t from_stride, float* to,
                      std::int64_t to_stride) {
  const float32x4_t a = vld1q_f32(from), b = vld1q_f32(from + from_stride);
  const float32x4_t c = vld1q_f32(from + 2 * from_stride), d = vld1q_f32(from + 3 * from_stride);
  const float32x4_t ac_low = vzip1q_f32(a, c), ac_high = vzip2q_f32(a, c);
  const float32x4_t bd_low = vzip1q_f32(b, d), bd_high = vzip2q_f32(b, d);
  vst1q_f32(to, vzip1q_f32(ac_low, bd_low));
  vst1q_f32(to + to_stride, vzip2q_f32(ac_low, bd_low));
  vst1q_f32(to + 2 * to_stride, vzip1q_f32(ac_high, bd_high));
  vst1q_f32(to + 3 * to_stride, vzip2q_f32(ac_high, bd_high));
}
