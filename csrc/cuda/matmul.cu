// matmul: for each entry of the batch the forward pass of a dense layer (a b), its gradient with
// respect to its input (a b^T) or its weights (a^T b), or a product of its own (a^T b^T).
#include "cuda/convolution.cuh"

namespace convlet::cuda {
namespace {

Conv2dShape as_conv2d(const MatmulShape& s) {
  if (s.transpose_a) return one_pixel(s.K, s.M, s.N);
  return s.transpose_b ? one_pixel(s.M, s.N, s.K) : one_pixel(s.M, s.K, s.N);
}
Pass as_pass(const MatmulShape& s) {
  return s.transpose_a   ? Pass::backward_weight
         : s.transpose_b ? Pass::backward_input
                         : Pass::forward;
}

bool both_transposed(const MatmulShape& s) {
  return s.transpose_a && s.transpose_b;
}
ProductShape both_transposed_product(const MatmulShape& s) {
  return {s.M, s.N, s.K, s.B, s.B * s.M * s.N};
}

template <Precision precision>
void multiply_both_transposed(Context& context, const MatmulShape& s, const float* a,
                              const float* b, float* y, void* workspace) {
  Slices<Matrix, Matrix, false, true> problem;
  problem.a_step = s.M * s.K, problem.b_step = s.K * s.N, problem.y_step = s.M * s.N;
  problem.bias_step = 0;
  problem.a = matrix(a, s.K, s.M, s.M, problem.a_step);
  problem.b = matrix(b, s.N, s.K, s.K, problem.b_step);
  problem.y = matrix_result(y, s.M, s.N, s.N, problem.y_step);
  problem.terms = s.K;
  multiply<precision>(context, problem, both_transposed_product(s), s.N, workspace);
}

}  // namespace

template <Precision precision>
std::size_t matmul_workspace(const MatmulShape& s, int) {
  return both_transposed(s) ? product_workspace(both_transposed_product(s), precision)
                            : convolution_workspace(as_conv2d(s), as_pass(s), s.B, precision);
}

template <Precision precision>
void matmul(Context& context, const MatmulShape& s, const float* a, const float* b, float* y,
            void* workspace) {
  const Conv2dShape shape = as_conv2d(s);
  const std::int64_t at_a = s.M * s.K, at_b = s.K * s.N, at_y = s.M * s.N;
  if (both_transposed(s))
    multiply_both_transposed<precision>(context, s, a, b, y, workspace);
  else if (s.transpose_a)
    convolve_backward_weight<precision>(context, shape, {s.B, at_a, at_y, at_b}, b, a, y,
                                        workspace);
  else if (s.transpose_b)
    convolve_backward_input<precision>(context, shape, {s.B, at_y, at_b, at_a}, a, b, y, workspace);
  else
    convolve<precision>(context, shape, {s.B, at_a, at_b, at_y}, a, b, nullptr, Activation::none, y,
                        workspace);
}

#define CONVLET_MATMUL(precision)                                                           \
  template std::size_t matmul_workspace<precision>(const MatmulShape&, int);                \
  template void matmul<precision>(Context&, const MatmulShape&, const float*, const float*, \
                                  float*, void*);
CONVLET_MATMUL(Precision::float32)
CONVLET_MATMUL(Precision::tf32)
CONVLET_MATMUL(Precision::bfloat16)
#undef CONVLET_MATMUL

}  // namespace convlet::cuda
