// conv2d: a row of the product is a pixel of y, a column an output channel, a term a tap and an
// input channel.
#include "cuda/convolution.cuh"
#include "cuda/first_layer.cuh"

namespace convlet::cuda {

ProductShape forward_product(const Conv2dShape& s, std::int64_t batch) {
  return {s.N * s.P * s.Q, s.K / s.groups, s.R * s.S * (s.C / s.groups),
          s.groups == 1 ? batch : s.groups, s.N * s.P * s.Q * s.K * batch};
}

template <Precision precision>
void convolve(Context& context, const Conv2dShape& s, const Batch& batch, const Images& x,
              const float* w, const float* bias, Activation activation, float* y, void* workspace) {
  if (is_direct(s)) {
    for (std::int64_t i = 0; i < batch.count; ++i)
      direct_convolve(context, s, x.floats + i * batch.x, w + i * batch.w, bias, activation,
                      y + i * batch.y);
    return;
  }
  const ProductShape shape = forward_product(s, batch.count);
  if (batch.count == 1 && is_first_layer(s, 1, 1)) {
    Result result = matrix_result(y, shape.rows, shape.columns, s.K, 0);
    result.bias = bias;
    result.activation = activation;
    multiply_first_layer<precision>(context, first_layer(s, 1, 1, x),
                                    matrix(w, shape.terms, shape.columns, s.K, 0), result);
    return;
  }
  const SliceSteps steps = slice_steps(s, batch);
  Slices<Patches, Matrix, true, false> problem;
  problem.a = input_patches(s, x.floats, steps.x);
  problem.b = matrix(w, shape.terms, shape.columns, s.K, steps.w);
  problem.y = matrix_result(y, shape.rows, shape.columns, s.K, steps.y);
  problem.y.bias = bias;
  problem.y.activation = activation;
  problem.terms = shape.terms;
  problem.a_step = steps.x, problem.b_step = steps.w, problem.y_step = steps.y;
  problem.bias_step = steps.bias;
  multiply<precision>(context, problem, shape, s.K, workspace);
}

template <Precision precision>
void conv2d(Context& context, const Conv2dShape& shape, const float* x, const float* w,
            const float* bias, Activation activation, float* y, void* workspace) {
  convolve<precision>(context, shape, kAlone, x, w, bias, activation, y, workspace);
}

std::size_t convolution_workspace(const Conv2dShape& shape, Pass pass, std::int64_t batch,
                                  Precision precision) {
  if (is_direct(shape)) return direct_workspace(shape, pass);
  if (pass == Pass::backward_weight) return backward_weight_workspace(shape, batch, precision);
  return product_workspace(
      pass == Pass::forward ? forward_product(shape, batch) : backward_input_product(shape, batch),
      precision);
}

template <Precision precision>
std::size_t conv2d_workspace(const Conv2dShape& shape, Pass pass, int) {
  return convolution_workspace(shape, pass, 1, precision);
}

#define CONVLET_CONVOLVE(precision)                                                            \
  template void convolve<precision>(Context&, const Conv2dShape&, const Batch&, const Images&, \
                                    const float*, const float*, Activation, float*, void*);    \
  template std::size_t conv2d_workspace<precision>(const Conv2dShape&, Pass, int);             \
  template void conv2d<precision>(Context&, const Conv2dShape&, const float*, const float*,    \
                                  const float*, Activation, float*, void*);
CONVLET_CONVOLVE(Precision::float32)
CONVLET_CONVOLVE(Precision::tf32)
CONVLET_CONVOLVE(Precision::bfloat16)
#undef CONVLET_CONVOLVE

}  // namespace convlet::cuda
