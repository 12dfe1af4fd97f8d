// The kernels of precision "bfloat16": those of product.h's Bfloat16 where they pay, the float32
// ones of the same level in all other places.
namespace convlet::CONVLET_ISA {

const Kernels& float32_kernels();

// Pairs halve the multiplications, and cost a conversion of every value read. A few channels do not
// fill pairs, or give too little work to each converted value; groups must be whole pairs; one
// image has no neighbour; and few samples use a dense weight too rarely.
inline bool pays(const Conv2dShape& s, Pass pass) {
  constexpr std::int64_t kChannels = 8, kProducts = 32;
  const std::int64_t in = s.C / s.groups, out = s.K / s.groups;
  const bool whole = s.groups == 1 || (pass == Pass::forward ? in : out) % 2 == 0;
  if (is_depthwise(s)) return false;
  switch (pass) {
    case Pass::forward:
      return in >= kChannels && whole && s.R * s.S * out >= kProducts * s.stride_h * s.stride_w;
    case Pass::backward_input:
      return out >= kChannels && whole && s.R * s.S * in >= kProducts;
    default:
      return in >= kChannels && out >= kChannels && s.N > 1;
  }
}
inline bool pays(const DenseShape& s, Pass) {
  constexpr std::int64_t kSamples = 16, kUnits = 16;
  return s.N >= kSamples && s.I >= kUnits && s.O >= kUnits;
}

inline std::size_t conv2d_workspace_bfloat16(const Conv2dShape& s, Pass pass, int threads) {
  return pays(s, pass) ? correlation_workspace<Bfloat16>(s, pass, threads)
                       : float32_kernels().conv2d_workspace(s, pass, threads);
}
inline void conv2d_bfloat16(Context& context, const Conv2dShape& s, const float* x, const float* w,
                            const float* bias, Activation activation, float* y, void* workspace) {
  if (pays(s, Pass::forward))
    correlate<Bfloat16>(context, s, true, x, w, bias, activation, y, workspace);
  else
    float32_kernels().conv2d(context, s, x, w, bias, activation, y, workspace);
}
inline void conv2d_backward_input_bfloat16(Context& context, const Conv2dShape& s, const float* dy,
                                           const float* w, float* dx, void* workspace) {
  if (pays(s, Pass::backward_input))
    correlate<Bfloat16>(context, s, false, dy, w, nullptr, Activation::none, dx, workspace);
  else
    float32_kernels().conv2d_backward_input(context, s, dy, w, dx, workspace);
}
inline void conv2d_backward_weight_bfloat16(Context& context, const Conv2dShape& s, const float* dy,
                                            const float* x, float* dw, void* workspace) {
  if (pays(s, Pass::backward_weight))
    correlate_weight<Bfloat16>(context, s, dy, x, dw, workspace);
  else
    float32_kernels().conv2d_backward_weight(context, s, dy, x, dw, workspace);
}

inline std::size_t conv2d_pool_workspace_bfloat16(const Conv2dPoolShape& s, Pass pass,
                                                  int threads) {
  return pays(s.conv, pass) ? correlate_pool_workspace<Bfloat16>(s, pass, threads)
                            : float32_kernels().conv2d_pool_workspace(s, pass, threads);
}
inline void conv2d_pool_bfloat16(Context& context, const Conv2dPoolShape& s, const float* x,
                                 const float* w, const float* bias, Activation activation, float* y,
                                 std::uint8_t* choice, void* workspace) {
  if (pays(s.conv, Pass::forward))
    correlate_pool<Bfloat16>(context, s, x, w, bias, activation, y, choice, workspace);
  else
    float32_kernels().conv2d_pool(context, s, x, w, bias, activation, y, choice, workspace);
}
inline void conv2d_pool_backward_input_bfloat16(Context& context, const Conv2dPoolShape& s,
                                                const float* dy, const std::uint8_t* choice,
                                                const float* w, float* dx, void* workspace) {
  if (pays(s.conv, Pass::backward_input))
    correlate_pool_input<Bfloat16>(context, s, dy, choice, w, dx, workspace);
  else
    float32_kernels().conv2d_pool_backward_input(context, s, dy, choice, w, dx, workspace);
}
inline void conv2d_pool_backward_weight_bfloat16(Context& context, const Conv2dPoolShape& s,
                                                 const float* dy, const std::uint8_t* choice,
                                                 const float* x, float* dw, void* workspace) {
  if (pays(s.conv, Pass::backward_weight))
    correlate_pool_weight<Bfloat16>(context, s, dy, choice, x, dw, workspace);
  else
    float32_kernels().conv2d_pool_backward_weight(context, s, dy, choice, x, dw, workspace);
}

inline std::size_t packed_bytes_bfloat16(const Conv2dShape& s, const Pool2dShape* pool) {
  return pays(s, Pass::forward) ? packed_bytes<Bfloat16>(s, pool)
                                : float32_kernels().conv2d_packed.bytes(s, pool);
}
inline void pack_bfloat16(Context& context, const Conv2dShape& s, const float* w, float* packed) {
  if (pays(s, Pass::forward))
    pack<Bfloat16>(context, s, w, packed);
  else
    float32_kernels().conv2d_packed.prepare(context, s, w, packed);
}
inline std::size_t packed_workspace_bfloat16(const Conv2dShape& s, const Pool2dShape* pool,
                                             int threads) {
  return pays(s, Pass::forward) ? packed_workspace<Bfloat16>(s, pool, threads)
                                : float32_kernels().conv2d_packed.workspace(s, pool, threads);
}
inline bool packed_in_place_bfloat16(const Conv2dShape& s) {
  return pays(s, Pass::forward) ? packed_in_place<Bfloat16>(s)
                                : float32_kernels().conv2d_packed.in_place(s);
}
inline void correlate_packed_bfloat16(Context& context, const Conv2dShape& s,
                                      const Pool2dShape* pool, const float* x, const float* packed,
                                      const float* bias, const float* residual,
                                      Activation activation, float* y, void* workspace) {
  if (pays(s, Pass::forward))
    correlate_packed<Bfloat16>(context, s, pool, x, packed, bias, residual, activation, y,
                               workspace);
  else
    float32_kernels().conv2d_packed.run(context, s, pool, x, packed, bias, residual, activation, y,
                                        workspace);
}

inline std::size_t dense_workspace_bfloat16(const DenseShape& s, Pass pass, int threads) {
  return pays(s, pass) ? make_dense_work<Bfloat16>(s, pass, threads, nullptr).bytes
                       : float32_kernels().dense_workspace(s, pass, threads);
}
inline void dense_bfloat16(Context& context, const DenseShape& s, const float* x, const float* w,
                           const float* bias, Activation activation, float* y, void* workspace) {
  if (pays(s, Pass::forward))
    dense_forward<Bfloat16>(context, s, x, w, bias, activation, y, workspace);
  else
    float32_kernels().dense(context, s, x, w, bias, activation, y, workspace);
}
inline void dense_backward_input_bfloat16(Context& context, const DenseShape& s, const float* dy,
                                          const float* w, float* dx, void* workspace) {
  if (pays(s, Pass::backward_input))
    dense_input_gradient<Bfloat16>(context, s, dy, w, dx, workspace);
  else
    float32_kernels().dense_backward_input(context, s, dy, w, dx, workspace);
}
inline void dense_backward_weight_bfloat16(Context& context, const DenseShape& s, const float* dy,
                                           const float* x, float* dw, void* workspace) {
  if (pays(s, Pass::backward_weight))
    dense_weight_gradient<Bfloat16>(context, s, dy, x, dw, workspace);
  else
    float32_kernels().dense_backward_weight(context, s, dy, x, dw, workspace);
}

constexpr Kernels bfloat16_table(Kernels kernels, const char* name) {
  kernels.name = name;
  kernels.conv2d_workspace = conv2d_workspace_bfloat16;
  kernels.conv2d = conv2d_bfloat16;
  kernels.conv2d_backward_input = conv2d_backward_input_bfloat16;
  kernels.conv2d_backward_weight = conv2d_backward_weight_bfloat16;
  kernels.conv2d_pool_workspace = conv2d_pool_workspace_bfloat16;
  kernels.conv2d_pool = conv2d_pool_bfloat16;
  kernels.conv2d_pool_backward_input = conv2d_pool_backward_input_bfloat16;
  kernels.conv2d_pool_backward_weight = conv2d_pool_backward_weight_bfloat16;
  kernels.dense_workspace = dense_workspace_bfloat16;
  kernels.dense = dense_bfloat16;
  kernels.dense_backward_input = dense_backward_input_bfloat16;
  kernels.dense_backward_weight = dense_backward_weight_bfloat16;
  kernels.conv2d_packed = {packed_bytes_bfloat16, pack_bfloat16, packed_workspace_bfloat16,
                           packed_in_place_bfloat16, correlate_packed_bfloat16};
  kernels.conv2d_winograd = kernels.conv2d_winograd_backward_input = {};  // float32's
  kernels.fma_peak = fma_peak<Bfloat16>;
  return kernels;
}

}  // namespace convlet::CONVLET_ISA
