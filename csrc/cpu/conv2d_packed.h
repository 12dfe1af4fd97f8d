// conv2d and conv2d_pool with weights that are packed once: PreparedConv2d of ops/kernels.h.
namespace convlet::CONVLET_ISA {

inline Correlation make_packed(const Conv2dShape& s, const Pool2dShape* pool, int threads,
                               void* memory) {
  return make_correlation<Float32>(s, true, threads, memory, pool ? pool->R : 0, true);
}

// A depthwise convolution reads its weights as they are.
inline std::size_t packed_bytes(const Conv2dShape& s, const Pool2dShape*) {
  const Correlation k = make_packed(s, nullptr, 1, nullptr);
  return k.depthwise ? 0 : static_cast<std::size_t>(k.packed_floats()) * sizeof(float);
}

inline void pack(Context& context, const Conv2dShape& s, const float* w, float* packed) {
  pack_weights<Float32>(context, s, make_packed(s, nullptr, 1, nullptr), w, packed);
}

inline std::size_t packed_workspace(const Conv2dShape& s, const Pool2dShape* pool, int threads) {
  return make_packed(s, pool, threads, nullptr).bytes;
}

inline void conv2d_packed(Context& context, const Conv2dShape& s, const Pool2dShape* pool,
                          const float* x, const float* packed, const float* bias,
                          const float* residual, Activation activation, float* y, void* memory) {
  if (s.N == 0) return;
  const Correlation k = make_packed(s, pool, context.threads(), memory);
  if (pool)
    return convolve_and_pool<Float32>(context, {s, *pool}, k, x, packed, bias, activation, y,
                                      nullptr);
  for_each_region<Float32>(context, k, x, y,
                           weighted_sums<Float32>(s, k, packed, bias, activation, residual, y));
}

}  // namespace convlet::CONVLET_ISA
