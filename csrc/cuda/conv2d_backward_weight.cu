// conv2d_backward_weight: a row of the product is a tap and an input channel, a column an output
// channel, a term a pixel of y. The sum is long and the result small, so it is nearly always cut.
#include "cuda/convolution.cuh"
#include "cuda/first_layer_gradient.cuh"

namespace convlet::cuda {

bool is_first_layer_gradient(const Conv2dShape& s) {
  return has_few_channels(s) && fits<PixelGradient>(first_layer_gradient(s, 1, 1, nullptr));
}

std::size_t backward_weight_workspace(const Conv2dShape& s, std::int64_t batch,
                                      Precision precision) {
  if (batch == 1 && is_first_layer_gradient(s))
    return first_layer_gradient_workspace(first_layer_gradient(s, 1, 1, nullptr), s.K);
  return product_workspace(backward_weight_product(s, batch), precision);
}

ProductShape backward_weight_product(const Conv2dShape& s, std::int64_t batch) {
  const std::int64_t rows = s.R * s.S * (s.C / s.groups);
  return {rows, s.K / s.groups, s.N * s.P * s.Q, s.groups == 1 ? batch : s.groups,
          rows * s.K * batch};
}

template <Precision precision>
void convolve_backward_weight(Context& context, const Conv2dShape& s, const Batch& batch,
                              const float* dy, const Images& x, float* dw, void* workspace) {
  if (is_direct(s)) {
    for (std::int64_t i = 0; i < batch.count; ++i)
      direct_backward_weight(context, s, dy + i * batch.y, x.floats + i * batch.x, dw + i * batch.w,
                             workspace);
    return;
  }
  const ProductShape shape = backward_weight_product(s, batch.count);
  if (batch.count == 1 && is_first_layer_gradient(s)) {
    multiply_first_layer_gradient<PixelGradient, precision>(
        context, first_layer_gradient(s, 1, 1, x), s.K, dw, workspace,
        matrix(dy, shape.terms, shape.columns, s.K, 0));
    return;
  }
  const SliceSteps steps = slice_steps(s, batch);
  Slices<Patches, Matrix, false, false> problem;
  problem.a = input_patches(s, x.floats, steps.x);
  problem.b = matrix(dy, shape.terms, shape.columns, s.K, steps.y);
  problem.y = matrix_result(dw, shape.rows, shape.columns, s.K, steps.w);
  problem.terms = shape.terms;
  problem.a_step = steps.x, problem.b_step = steps.y, problem.y_step = steps.w;
  problem.bias_step = 0;
  multiply<precision>(context, problem, shape, s.K, workspace);
}

template <Precision precision>
void conv2d_backward_weight(Context& context, const Conv2dShape& shape, const float* dy,
                            const float* x, float* dw, void* workspace) {
  convolve_backward_weight<precision>(context, shape, kAlone, dy, x, dw, workspace);
}

#define CONVLET_CONVOLVE(precision)                                                              \
  template void convolve_backward_weight<precision>(Context&, const Conv2dShape&, const Batch&,  \
                                                    const float*, const Images&, float*, void*); \
  template void conv2d_backward_weight<precision>(Context&, const Conv2dShape&, const float*,    \
                                                  const float*, float*, void*);
CONVLET_CONVOLVE(Precision::float32)
CONVLET_CONVOLVE(Precision::tf32)
CONVLET_CONVOLVE(Precision::bfloat16)
#undef CONVLET_CONVOLVE

}  // namespace convlet::cuda
