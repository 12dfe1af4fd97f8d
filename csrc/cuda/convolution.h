// Convolutions as products of matrices, one slice per group or per entry of a batch. A dense layer
// is a convolution of images of one pixel with a window of one, and so is the product of two
// matrices: dense.cu and matmul.cu use these functions too.
#pragma once
#include <type_traits>

#include "core/device.h"
#include "cuda/product_shape.h"
#include "ops/kernels.h"

namespace convlet::cuda {

// Convolutions of the same shape at fixed distances in memory.
struct Batch {
  std::int64_t count;
  std::int64_t x, w, y;  // elements from one to the next
};
constexpr Batch kAlone = {1, 0, 0, 0};

// What a convolution reads; bytes only where a first layer's kernels serve (serves_bytes).
struct Images {
  Images(const float* x = nullptr) : floats(x), bytes{} {}  // NOLINT: both are images
  Images(const ByteImages& x) : floats(nullptr), bytes(x) {}

  const float* floats;  // null: bytes
  ByteImages bytes;
};

std::remove_pointer_t<decltype(Kernels::bias_gradient_workspace)> bias_gradient_workspace;

// The members of Kernels::conv2d_bytes, in conv2d_bytes.cu and rows.cu.
bool serves_bytes(const Conv2dShape& shape, const Pool2dShape* pool);
std::remove_pointer_t<decltype(ByteConv2d::gather)> gather_bytes;
template <Precision precision>
void conv2d_bytes(Context& context, const Conv2dShape& shape, const Pool2dShape* pool,
                  const ByteImages& x, const float* w, const float* bias, Activation activation,
                  float* y, std::uint8_t* choice, void* workspace);
template <Precision precision>
void conv2d_bytes_backward_weight(Context& context, const Conv2dShape& shape,
                                  const Pool2dShape* pool, const float* dy,
                                  const std::uint8_t* choice, const ByteImages& x, float* dw,
                                  void* workspace);

// The members of Kernels that depend on the precision, in conv2d*.cu, dense.cu and matmul.cu.
template <Precision precision>
std::size_t conv2d_workspace(const Conv2dShape& shape, Pass pass, int threads);
template <Precision precision>
void conv2d(Context& context, const Conv2dShape& shape, const float* x, const float* w,
            const float* bias, Activation activation, float* y, void* workspace);
template <Precision precision>
void conv2d_backward_input(Context& context, const Conv2dShape& shape, const float* dy,
                           const float* w, float* dx, void* workspace);
template <Precision precision>
void conv2d_backward_weight(Context& context, const Conv2dShape& shape, const float* dy,
                            const float* x, float* dw, void* workspace);
template <Precision precision>
std::size_t conv2d_pool_workspace(const Conv2dPoolShape& shape, Pass pass, int threads);
template <Precision precision>
void conv2d_pool(Context& context, const Conv2dPoolShape& shape, const float* x, const float* w,
                 const float* bias, Activation activation, float* y, std::uint8_t* choice,
                 void* workspace);
template <Precision precision>
void conv2d_pool_backward_input(Context& context, const Conv2dPoolShape& shape, const float* dy,
                                const std::uint8_t* choice, const float* w, float* dx,
                                void* workspace);
template <Precision precision>
void conv2d_pool_backward_weight(Context& context, const Conv2dPoolShape& shape, const float* dy,
                                 const std::uint8_t* choice, const float* x, float* dw,
                                 void* workspace);
template <Precision precision>
std::size_t dense_workspace(const DenseShape& shape, Pass pass, int threads);
template <Precision precision>
void dense(Context& context, const DenseShape& shape, const float* x, const float* w,
           const float* bias, Activation activation, float* y, void* workspace);
template <Precision precision>
void dense_backward_input(Context& context, const DenseShape& shape, const float* dy,
                          const float* w, float* dx, void* workspace);
template <Precision precision>
void dense_backward_weight(Context& context, const DenseShape& shape, const float* dy,
                           const float* x, float* dw, void* workspace);
template <Precision precision>
std::size_t matmul_workspace(const MatmulShape& shape, int threads);
template <Precision precision>
void matmul(Context& context, const MatmulShape& shape, const float* a, const float* b, float* y,
            void* workspace);

std::size_t convolution_workspace(const Conv2dShape& shape, Pass pass, std::int64_t batch,
                                  Precision precision);
// Whether a first layer's kernel makes the gradient of the weights.
bool is_first_layer_gradient(const Conv2dShape& shape);
std::size_t backward_weight_workspace(const Conv2dShape& shape, std::int64_t batch,
                                      Precision precision);
// The product that each pass is.
ProductShape forward_product(const Conv2dShape& shape, std::int64_t batch);
ProductShape backward_input_product(const Conv2dShape& shape, std::int64_t batch);
ProductShape backward_weight_product(const Conv2dShape& shape, std::int64_t batch);

template <Precision precision>
void convolve(Context& context, const Conv2dShape& shape, const Batch& batch, const Images& x,
              const float* w, const float* bias, Activation activation, float* y, void* workspace);
template <Precision precision>
void convolve_backward_input(Context& context, const Conv2dShape& shape, const Batch& batch,
                             const float* dy, const float* w, float* dx, void* workspace);
template <Precision precision>
void convolve_backward_weight(Context& context, const Conv2dShape& shape, const Batch& batch,
                              const float* dy, const Images& x, float* dw, void* workspace);
template <Precision precision>
void convolve_pool(Context& context, const Conv2dPoolShape& shape, const Images& x, const float* w,
                   const float* bias, Activation activation, float* y, std::uint8_t* choice,
                   void* workspace);
template <Precision precision>
void convolve_pool_backward_weight(Context& context, const Conv2dPoolShape& shape, const float* dy,
                                   const std::uint8_t* choice, const Images& x, float* dw,
                                   void* workspace);

// A (N,I) matrix times an (I,O) matrix.
constexpr Conv2dShape one_pixel(std::int64_t N, std::int64_t I, std::int64_t O) {
  return {N, 1, 1, I, O, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1};
}

// direct_conv2d.cu: float32 whatever the precision, without tensor cores: for depthwise
// convolutions, which would leave their tiles nearly empty, and for sizes beyond the 32 bits of
// their coordinates.
bool is_direct(const Conv2dShape& shape);
std::size_t direct_workspace(const Conv2dShape& shape, Pass pass);
void direct_convolve(Context& context, const Conv2dShape& shape, const float* x, const float* w,
                     const float* bias, Activation activation, float* y);
void direct_backward_input(Context& context, const Conv2dShape& shape, const float* dy,
                           const float* w, float* dx);
void direct_backward_weight(Context& context, const Conv2dShape& shape, const float* dy,
                            const float* x, float* dw, void* workspace);

}  // namespace convlet::cuda
