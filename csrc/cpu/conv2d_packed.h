// conv2d and conv2d_pool with weights that are packed once: PreparedConv2d of ops/kernels.h.
namespace convlet::CONVLET_ISA {

template <class Product>
inline Correlation make_packed(const Conv2dShape& s, const Pool2dShape* pool, int threads,
                               void* memory) {
  return make_correlation<Product>(s, true, threads, memory, pool ? pool->R : 0, true);
}

// A depthwise convolution reads its weights as they are.
template <class Product>
inline std::size_t packed_bytes(const Conv2dShape& s, const Pool2dShape*) {
  if (is_depthwise(s)) return 0;
  const Correlation k = make_packed<Product>(s, nullptr, 1, nullptr);
  return static_cast<std::size_t>(k.packed_floats()) * sizeof(float);
}

template <class Product>
inline void pack(Context& context, const Conv2dShape& s, const float* w, float* packed) {
  pack_weights<Product>(context, s, make_packed<Product>(s, nullptr, 1, nullptr), w, packed);
}

template <class Product>
inline std::size_t packed_workspace(const Conv2dShape& s, const Pool2dShape* pool, int threads) {
  return make_packed<Product>(s, pool, threads, nullptr).bytes;
}

// y is written once where a sum is one stretch of terms; else it holds parts of the sum before the
// residual is added.
template <class Product>
inline bool packed_in_place(const Conv2dShape& s) {
  return s.R * s.S * Product::elements(s.C / s.groups) <= kStretch;
}

template <class Product>
inline void correlate_packed(Context& context, const Conv2dShape& s, const Pool2dShape* pool,
                             const float* x, const float* packed, const float* bias,
                             const float* residual, Activation activation, float* y, void* memory) {
  if (s.N == 0) return;
  const Correlation k = make_packed<Product>(s, pool, context.threads(), memory);
  if (pool)
    return convolve_and_pool<Product>(context, {s, *pool}, k, x, packed, bias, activation, y,
                                      nullptr);
  for_each_region<Product>(context, k, x, y,
                           weighted_sums<Product>(s, k, packed, bias, activation, residual, y));
}

constexpr PreparedConv2d kConv2dPacked = {packed_bytes<Float32>, pack<Float32>,
                                          packed_workspace<Float32>, packed_in_place<Float32>,
                                          correlate_packed<Float32>};

}  // namespace convlet::CONVLET_ISA
