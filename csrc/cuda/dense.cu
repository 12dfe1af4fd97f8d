// dense: a convolution of N images of one pixel with a window of one.
#include "cuda/convolution.h"

namespace convlet::cuda {
namespace {

Conv2dShape as_conv2d(const DenseShape& s) {
  return one_pixel(s.N, s.I, s.O);
}

}  // namespace

template <Precision precision>
std::size_t dense_workspace(const DenseShape& shape, Pass pass, int threads) {
  return conv2d_workspace<precision>(as_conv2d(shape), pass, threads);
}

template <Precision precision>
void dense(Context& context, const DenseShape& shape, const float* x, const float* w,
           const float* bias, Activation activation, float* y, void* workspace) {
  conv2d<precision>(context, as_conv2d(shape), x, w, bias, activation, y, workspace);
}

template <Precision precision>
void dense_backward_input(Context& context, const DenseShape& shape, const float* dy,
                          const float* w, float* dx, void* workspace) {
  conv2d_backward_input<precision>(context, as_conv2d(shape), dy, w, dx, workspace);
}

template <Precision precision>
void dense_backward_weight(Context& context, const DenseShape& shape, const float* dy,
                           const float* x, float* dw, void* workspace) {
  conv2d_backward_weight<precision>(context, as_conv2d(shape), dy, x, dw, workspace);
}

#define CONVLET_DENSE(precision)                                                            \
  template std::size_t dense_workspace<precision>(const DenseShape&, Pass, int);            \
  template void dense<precision>(Context&, const DenseShape&, const float*, const float*,   \
                                 const float*, Activation, float*, void*);                  \
  template void dense_backward_input<precision>(Context&, const DenseShape&, const float*,  \
                                                const float*, float*, void*);               \
  template void dense_backward_weight<precision>(Context&, const DenseShape&, const float*, \
                                                 const float*, float*, void*);
CONVLET_DENSE(Precision::float32)
CONVLET_DENSE(Precision::tf32)
CONVLET_DENSE(Precision::bfloat16)
#undef CONVLET_DENSE

}  // namespace convlet::cuda
