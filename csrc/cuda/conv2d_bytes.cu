// conv2d and conv2d_pool of images as bytes (ByteConv2d of ops/kernels.h), by the kernels of first
// layers.
#include "cuda/conv2d_pool.cuh"
#include "cuda/first_layer.cuh"

namespace convlet::cuda {

bool serves_bytes(const Conv2dShape& shape, const Pool2dShape* pool) {
  if (pool) return serves_bytes({shape, *pool});
  return is_first_layer(shape, 1, 1) && is_first_layer_gradient(shape);
}

template <Precision precision>
void conv2d_bytes(Context& context, const Conv2dShape& shape, const Pool2dShape* pool,
                  const ByteImages& x, const float* w, const float* bias, Activation activation,
                  float* y, std::uint8_t* choice, void* workspace) {
  if (pool)
    convolve_pool<precision>(context, {shape, *pool}, x, w, bias, activation, y, choice, workspace);
  else
    convolve<precision>(context, shape, kAlone, x, w, bias, activation, y, workspace);
}

template <Precision precision>
void conv2d_bytes_backward_weight(Context& context, const Conv2dShape& shape,
                                  const Pool2dShape* pool, const float* dy,
                                  const std::uint8_t* choice, const ByteImages& x, float* dw,
                                  void* workspace) {
  if (pool)
    convolve_pool_backward_weight<precision>(context, {shape, *pool}, dy, choice, x, dw, workspace);
  else
    convolve_backward_weight<precision>(context, shape, kAlone, dy, x, dw, workspace);
}

#define CONVLET_CONV2D_BYTES(precision)                                                            \
  template void conv2d_bytes<precision>(Context&, const Conv2dShape&, const Pool2dShape*,          \
                                        const ByteImages&, const float*, const float*, Activation, \
                                        float*, std::uint8_t*, void*);                             \
  template void conv2d_bytes_backward_weight<precision>(                                           \
      Context&, const Conv2dShape&, const Pool2dShape*, const float*, const std::uint8_t*,         \
      const ByteImages&, float*, void*);
CONVLET_CONV2D_BYTES(Precision::float32)
CONVLET_CONV2D_BYTES(Precision::tf32)
CONVLET_CONV2D_BYTES(Precision::bfloat16)
#undef CONVLET_CONV2D_BYTES

}  // namespace convlet::cuda
