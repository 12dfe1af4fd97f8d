// Kernels: one function pointer per kernel. Every device fills one table per instruction set or
// architecture. Kernels take shapes that a check in csrc/ops has made, pointers into contiguous
// memory of the right size, and workspace of the size that the table's own function gives. They do
// not allocate, check, throw or print. Gradients are written, not added. Any N may be 0.
#pragma once
#include <cstddef>

#include "core/context.h"
#include "core/host_device.h"
#include "core/tensor.h"
#include "ops/activation.h"
#include "ops/attention.h"
#include "ops/augment.h"
#include "ops/batch_norm.h"
#include "ops/binary.h"
#include "ops/broadcast.h"
#include "ops/conv2d.h"
#include "ops/conv2d_pool.h"
#include "ops/dense.h"
#include "ops/dropout.h"
#include "ops/elementwise_loss.h"
#include "ops/group_norm.h"
#include "ops/layer_norm.h"
#include "ops/matmul.h"
#include "ops/optimizer.h"
#include "ops/pool2d.h"
#include "ops/recurrent.h"
#include "ops/reduce.h"
#include "ops/resize.h"
#include "ops/softmax.h"
#include "ops/softmax_cross_entropy.h"
#include "ops/unary.h"
#include "ops/upsample2d.h"

namespace convlet {

enum class Pass { forward, backward_input, backward_weight };

// categorical and sparse compare the (first) largest of the row; binary compares with threshold
// 0.5.
enum class AccuracyKind { binary, categorical, sparse };

constexpr int kReductionParts = 64;

// The random numbers of one step: dropout keeps what draw i of layer `stream` decides about when
// uniform(philox(seed, stream, step * 2^40 + i / 4).word[i % 4]) >= rate.
struct RandomStep {
  std::uint64_t seed;
  std::uint64_t step;
};

// A flag in the device's memory that outlasts a step: not 0 once the loss of a step was not finite.
// Kernels that change what lasts, or take the next batch, then do nothing. Null: never.
using Halt = const std::int32_t*;

// Which rows of a data set make a batch; the pointers are the device's.
struct BatchRows {
  const std::int64_t* order = nullptr;  // of the rows; null: as they lie
  const std::int64_t* first = nullptr;  // where in that order the batch begins; null: at 0
  Halt halt = nullptr;

  CONVLET_HOST_DEVICE std::int64_t row(std::int64_t i) const {
    if (first) i += *first;
    return order ? order[i] : i;
  }
  CONVLET_HOST_DEVICE bool halted() const { return halt && *halt; }
};

// How many results of each kind a step has.
struct ResultCounts {
  std::int64_t losses, metrics, penalties;
};

// A way to run conv2d, or conv2d_pool, many times with the same weights, which are laid out for it
// once. It may decline a shape (bytes is 0) by anything but N. The pooling is null without one. All
// members are null in a table without this way.
struct PreparedConv2d {
  std::size_t (*bytes)(const Conv2dShape&, const Pool2dShape*);  // of the prepared weights
  void (*prepare)(Context&, const Conv2dShape&, const float* w, float* prepared);
  std::size_t (*workspace)(const Conv2dShape&, const Pool2dShape*, int threads);
  // Whether run may be given y for its residual.
  bool (*in_place)(const Conv2dShape&);
  // y = max_pool2d(act(conv + bias + residual)); bias may be null, and so may the residual, of y's
  // shape, which is null with a pooling.
  void (*run)(Context&, const Conv2dShape&, const Pool2dShape*, const float* x,
              const float* prepared, const float* bias, const float* residual, Activation, float* y,
              void* workspace);
};

// Images as bytes, which stand for what Kernels::scale makes of them, factor * byte + offset, or
// for what Kernels::batch_norm makes of that by mean and variance, (C,), which else are null.
struct ByteImages {
  const std::uint8_t* data;
  float factor, offset;
  const float *mean, *variance;
  float epsilon;
};

// conv2d, or conv2d_pool, and the gradient of its weights, of images as bytes: the bits of the
// members of Kernels, with their workspace, given the float32 images that the bytes stand for;
// padding is 0 as there. It may decline a shape by anything but N. The pooling is null without one,
// and so is choice. All members are null in a table without this way.
struct ByteConv2d {
  bool (*serves)(const Conv2dShape&, const Pool2dShape*);
  // A batch: rows of x, of `count` bytes.
  void (*gather)(Context&, std::int64_t rows, std::int64_t count, const std::uint8_t* x,
                 const BatchRows&, std::uint8_t* y);
  void (*run)(Context&, const Conv2dShape&, const Pool2dShape*, const ByteImages& x, const float* w,
              const float* bias, Activation, float* y, std::uint8_t* choice, void* workspace);
  void (*backward_weight)(Context&, const Conv2dShape&, const Pool2dShape*, const float* dy,
                          const std::uint8_t* choice, const ByteImages& x, float* dw,
                          void* workspace);
};

struct Kernels {
  const char* name;  // the instruction set: "baseline", "avx2", "avx512", "neon"

  // conv2d.h. bias and db may be null. y gets act(conv + bias).
  std::size_t (*conv2d_workspace)(const Conv2dShape&, Pass, int threads);
  void (*conv2d)(Context&, const Conv2dShape&, const float* x, const float* w, const float* bias,
                 Activation, float* y, void* workspace);
  void (*conv2d_backward_input)(Context&, const Conv2dShape&, const float* dy, const float* w,
                                float* dx, void* workspace);
  void (*conv2d_backward_weight)(Context&, const Conv2dShape&, const float* dy, const float* x,
                                 float* dw, void* workspace);

  // dense.h
  std::size_t (*dense_workspace)(const DenseShape&, Pass, int threads);
  void (*dense)(Context&, const DenseShape&, const float* x, const float* w, const float* bias,
                Activation, float* y, void* workspace);
  void (*dense_backward_input)(Context&, const DenseShape&, const float* dy, const float* w,
                               float* dx, void* workspace);
  void (*dense_backward_weight)(Context&, const DenseShape&, const float* dy, const float* x,
                                float* dw, void* workspace);

  // The gradient of a bias: db[c] = sum over rows of dy (N rows of C). Shared by conv2d and dense.
  std::size_t (*bias_gradient_workspace)(const RowsShape&);
  void (*bias_gradient)(Context&, const RowsShape&, const float* dy, float* db, void* workspace);

  // pool2d.h. The backward of max pooling finds the maximum again from x.
  void (*max_pool2d)(Context&, const Pool2dShape&, const float* x, float* y);
  void (*max_pool2d_backward)(Context&, const Pool2dShape&, const float* dy, const float* x,
                              float* dx);
  void (*avg_pool2d)(Context&, const Pool2dShape&, const float* x, float* y);
  void (*avg_pool2d_backward)(Context&, const Pool2dShape&, const float* dy, float* dx);

  // conv2d_pool.h; entries that a table may leave null, all five: a plan then runs the
  // convolution, its activation and the pooling one by one. bias may be null; choice may be in the
  // forward, when nothing is to be trained. activation is none or relu. dy and choice have the
  // shape of y. The workspace of the last is bias_gradient_workspace's, for the rows of y.
  std::size_t (*conv2d_pool_workspace)(const Conv2dPoolShape&, Pass, int threads);
  void (*conv2d_pool)(Context&, const Conv2dPoolShape&, const float* x, const float* w,
                      const float* bias, Activation, float* y, std::uint8_t* choice,
                      void* workspace);
  void (*conv2d_pool_backward_input)(Context&, const Conv2dPoolShape&, const float* dy,
                                     const std::uint8_t* choice, const float* w, float* dx,
                                     void* workspace);
  void (*conv2d_pool_backward_weight)(Context&, const Conv2dPoolShape&, const float* dy,
                                      const std::uint8_t* choice, const float* x, float* dw,
                                      void* workspace);
  void (*conv2d_pool_backward_bias)(Context&, const Conv2dPoolShape&, const float* dy,
                                    const std::uint8_t* choice, float* db, void* workspace);

  // activation.h, over n elements; y may be x and dx may be dy. Where gradient_from_output holds,
  // the second input of the backward is y = act(x); otherwise it is x.
  void (*activation)(Context&, std::int64_t n, Activation, float alpha, const float* x, float* y);
  void (*activation_backward)(Context&, std::int64_t n, Activation, float alpha, const float* dy,
                              const float* y_or_x, float* dx);

  // softmax.h; y may be x, dx may be dy.
  void (*softmax)(Context&, const RowsShape&, const float* x, float* y);
  void (*log_softmax)(Context&, const RowsShape&, const float* x, float* y);
  void (*softmax_backward)(Context&, const RowsShape&, const float* dy, const float* y, float* dx);
  void (*log_softmax_backward)(Context&, const RowsShape&, const float* dy, const float* y,
                               float* dx);

  // attention.h; Pass is forward or backward_input (of dq, dk and dv). The probabilities are
  // dropped at `rate` in [0,1): that of query t and key s is element ((n*H + h)*T + t) * (S rounded
  // up to a multiple of 32) + s of the stream (RandomStep); random may be null at rate 0. lse
  // (N,H,T) may be null in the forward.
  std::size_t (*attention_workspace)(const AttentionShape&, Pass, int threads);
  void (*attention)(Context&, const AttentionShape&, float rate, const RandomStep* random,
                    std::uint64_t stream, const float* q, const float* k, const float* v, float* y,
                    float* lse, void* workspace);
  void (*attention_backward)(Context&, const AttentionShape&, float rate, const RandomStep* random,
                             std::uint64_t stream, const float* dy, const float* q, const float* k,
                             const float* v, const float* y, const float* lse, float* dq, float* dk,
                             float* dv, void* workspace);
  // The mean of each channel over N rows of C, and the biased variance; 0 and 0 for no rows.
  std::size_t (*channel_statistics_workspace)(const RowsShape&);
  void (*channel_statistics)(Context&, const RowsShape&, const float* x, float* mean,
                             float* variance, void* workspace);

  // batch_norm.h. gamma, beta and residual may be null; y may be x or residual.
  std::size_t (*batch_norm_workspace)(const BatchNormShape&);
  void (*batch_norm)(Context&, const BatchNormShape&, const BatchNormInputs&, float* y,
                     void* workspace);
  // Any output may be null; dx may be x, dy or y, and so may dresidual, but not the one that dx is.
  // y may be null where there was no residual: it is then made again from x. The residual itself is
  // not read.
  std::size_t (*batch_norm_backward_workspace)(const BatchNormShape&);
  void (*batch_norm_backward)(Context&, const BatchNormShape&, const BatchNormInputs&,
                              const float* dy, const float* y, const BatchNormGradients&,
                              void* workspace);

  // A batch_norm by given statistics folded into the weights in.x (N rows of C output channels) and
  // the bias, which may be null, of the convolution or dense layer before it:
  // weight = in.x * k, folded_bias = (bias - mean) * k + beta. Workspace as for batch_norm.
  void (*fold_batch_norm)(Context&, const BatchNormShape&, const BatchNormInputs&,
                          const float* bias, float* weight, float* folded_bias, void* workspace);

  // layer_norm.h. gamma and beta may be null; y may be x; dx may be dy or x.
  void (*layer_norm)(Context&, const LayerNormShape&, const float* x, const float* gamma,
                     const float* beta, float* y);
  std::size_t (*layer_norm_backward_workspace)(const LayerNormShape&);
  void (*layer_norm_backward)(Context&, const LayerNormShape&, const float* dy, const float* x,
                              const float* gamma, const AffineGradients&, void* workspace);

  // group_norm.h. gamma and beta may be null; y may be x; dx may be dy or x.
  std::size_t (*group_norm_workspace)(const GroupNormShape&, Pass, int threads);
  void (*group_norm)(Context&, const GroupNormShape&, const float* x, const float* gamma,
                     const float* beta, float* y, void* workspace);
  void (*group_norm_backward)(Context&, const GroupNormShape&, const float* dy, const float* x,
                              const float* gamma, const AffineGradients&, void* workspace);

  // average = momentum * average + (1 - momentum) * x, over n elements.
  void (*moving_average)(Context&, std::int64_t n, double momentum, Halt, const float* x,
                         float* average);

  // recurrent.h; Pass is forward or backward_input. projected and da (N,T,G*U), kept and previous
  // as in RecurrentShape; recurrent_bias, the bias of m, is gru's and may be null, as may kept and
  // previous, together, in the forward. dm, the gradient of m, is gru's; for the others it is da
  // and may be null.
  std::size_t (*recurrent_workspace)(const RecurrentShape&, Pass, int threads);
  void (*recurrent)(Context&, const RecurrentShape&, const float* projected,
                    const float* recurrent_kernel, const float* recurrent_bias, float* kept,
                    float* previous, float* y, void* workspace);
  void (*recurrent_backward)(Context&, const RecurrentShape&, const float* dy, const float* kept,
                             const float* previous, const float* recurrent_kernel, float* da,
                             float* dm, void* workspace);

  // softmax_cross_entropy.h. labels: int32 (N,), -1 for an ignored row, or float32 (N,C).
  // class_weight (C) may be null. scale (N) may be null (1). loss (N) gets scale[n] * l[n]. dlogits
  // and probabilities (N,C) may be null; dlogits may be logits.
  void (*softmax_cross_entropy)(Context&, const SoftmaxCrossEntropyShape&, const float* logits,
                                const void* labels, const float* class_weight, const float* scale,
                                float* loss, float* dlogits, float* probabilities);

  // elementwise_loss.h over N rows of C: loss[n] = scale[n] * mean_c l[n,c]; dprediction = scale[n]
  // / C
  // * dl/dprediction. scale may be null (1), dprediction may be null or equal prediction. elements
  // (N,C), when not null, gets scale[n] * l[n,c].
  void (*elementwise_loss)(Context&, const RowsShape&, const ElementwiseLossSpec&,
                           const float* prediction, const float* target, const float* scale,
                           float* loss, float* dprediction, float* elements);

  // dropout.h, at `rate` in [0,1). It is its own backward (x = dy). y may be x.
  void (*dropout)(Context&, const DropoutShape&, float rate, const RandomStep*,
                  std::uint64_t stream, const float* x, float* y);

  // Elementwise arithmetic over n elements; the output may be any input.
  void (*add)(Context&, std::int64_t n, const float* a, const float* b, float* y);
  void (*scale)(Context&, std::int64_t n, float factor, float offset, const float* x, float* y);

  // broadcast.h, binary.h: y may be an operand of y's shape. The gradient of operand `side` (0 or
  // 1) comes in y's shape; reduce sums it over the axes along which the operand is repeated. d may
  // be dy. In `where` a or b may be null: zeros.
  void (*binary)(Context&, const BroadcastShape&, BinaryFunction, const float* a, const float* b,
                 float* y);
  void (*binary_backward)(Context&, const BroadcastShape&, BinaryFunction, int side,
                          const float* dy, const float* a, const float* b, float* d);
  void (*where)(Context&, const BroadcastShape&, const float* condition, const float* a,
                const float* b, float* y);
  // y = the first operand of the shape: transposed or repeated.
  void (*strided_copy)(Context&, const BroadcastShape&, const float* x, float* y);

  // unary.h over n elements; y may be x, dx may be dy. Where gradient_from_output holds, the second
  // input of the backward is y; otherwise it is x.
  void (*unary)(Context&, std::int64_t n, UnaryFunction, const float* x, float* y);
  void (*unary_backward)(Context&, std::int64_t n, UnaryFunction, const float* dy,
                         const float* y_or_x, float* dx);
  // y[n,c] = 1 where x[n] = c, else 0 (also for an x[n] that is no class).
  void (*one_hot)(Context&, std::int64_t rows, std::int64_t classes, const float* x, float* y);

  // reduce.h. The backward of sum and mean reads neither x nor y.
  std::size_t (*reduce_workspace)(const ReduceShape&);
  void (*reduce)(Context&, const ReduceShape&, ReduceFunction, const float* x, float* y,
                 void* workspace);
  void (*reduce_backward)(Context&, const ReduceShape&, ReduceFunction, const float* dy,
                          const float* x, const float* y, float* dx);

  // matmul.h
  std::size_t (*matmul_workspace)(const MatmulShape&, int threads);
  void (*matmul)(Context&, const MatmulShape&, const float* a, const float* b, float* y,
                 void* workspace);

  // upsample2d.h
  void (*upsample2d)(Context&, const Upsample2dShape&, const float* x, float* y);
  void (*upsample2d_backward)(Context&, const Upsample2dShape&, const float* dy, float* dx);

  // Copies between a matrix of `rows` rows and columns [offset, offset + count) of one that is
  // `width` wide: concatenation along the last axis, and its backward (the other direction).
  void (*copy_to_columns)(Context&, std::int64_t rows, std::int64_t count, const float* x,
                          std::int64_t width, std::int64_t offset, float* y);
  void (*copy_from_columns)(Context&, std::int64_t rows, std::int64_t count, const float* x,
                            std::int64_t width, std::int64_t offset, float* y);

  // Zero padding of an image batch x (N,H,W,C), and its backward: the crop.
  void (*pad2d)(Context&, const Shape& x, std::int64_t top, std::int64_t bottom, std::int64_t left,
                std::int64_t right, const float* x_data, float* y);
  void (*crop2d)(Context&, const Shape& x, std::int64_t top, std::int64_t bottom, std::int64_t left,
                 std::int64_t right, const float* dy, float* dx);

  // optimizer.h over n parameters; state holds optimizer_slots() pointers. p, g and the state may
  // not overlap.
  void (*optimizer)(Context&, std::int64_t n, const OptimizerSpec&, const OptimizerStep*, Halt,
                    float* p, const float* g, float* const* state);

  // The running average of the parameters: average = m*average + (1-m)*p, m = average_momentum.
  void (*weight_average)(Context&, std::int64_t n, const OptimizerStep*, Halt, const float* p,
                         float* average);

  // The gradients of several batches: sum += g; and at the end g = share * sum, sum = 0.
  void (*add_gradients)(Context&, std::int64_t n, Halt, const float* g, float* sum);
  void (*take_gradients)(Context&, std::int64_t n, float share, Halt, float* sum, float* g);

  // Reductions write out[0]; out has room for 1 + kReductionParts values, the rest is scratch. They
  // add in float64 in an order that does not depend on the threads.
  void (*sum)(Context&, std::int64_t n, const float* x, double* out);
  void (*sum_of_squares)(Context&, std::int64_t n, const float* x, double* out);
  // l1*sum|p| + l2*sum(p^2), and its gradient l1*sign(p) + 2*l2*p added to g.
  void (*regularizer_penalty)(Context&, std::int64_t n, float l1, float l2, const float* p,
                              double* out);
  void (*regularizer_gradient)(Context&, std::int64_t n, float l1, float l2, const float* p,
                               float* g);

  // g *= min(1, limit / sqrt(squared_norm[0])).
  void (*clip_by_norm)(Context&, std::int64_t n, float limit, const double* squared_norm, float* g);

  // correct[n] = 1 where the prediction of row n is right, else 0 (for binary: the share of its C
  // values that are). labels: int32 (N,), -1 never right, for sparse; float32 (N,C) otherwise.
  void (*accuracy)(Context&, const RowsShape&, AccuracyKind, const float* prediction,
                   const void* labels, float* correct);

  // A batch: rows of x, which have `count` elements of the given dtype, as float32; integer labels
  // as int32; and weights, one for each row (null: 1), times share in float64, `count` times each.
  void (*gather_rows)(Context&, std::int64_t rows, std::int64_t count, const void* x, DType,
                      const BatchRows&, float* y);
  void (*gather_labels)(Context&, std::int64_t rows, std::int64_t count, const void* x, DType,
                        const BatchRows&, std::int32_t* y);
  void (*gather_scale)(Context&, std::int64_t rows, std::int64_t count, const float* weights,
                       double share, const BatchRows&, float* y);

  // What a step answers. values: losses, metrics and penalties as reductions leave them, every
  // 1 + kReductionParts doubles. results: the total, sum of weights[i] * losses[i] and of the
  // penalties; the losses; the metrics. halt, when not null, becomes 1 where the total is not
  // finite.
  void (*step_results)(Context&, const ResultCounts&, const float* weights, const double* values,
                       double* results, std::int32_t* halt);

  // augment.h. y may not overlap x. The step of RandomStep is the epoch.
  std::size_t (*augment_workspace)(const AugmentShape&, const AugmentSpec&, int threads);
  void (*augment)(Context&, const AugmentShape&, const AugmentSpec&, const RandomStep*,
                  std::uint64_t stream, const AugmentBatch&, void* workspace);

  // The index of the first element that is NaN or infinite, or -1.
  void (*first_non_finite)(Context&, std::int64_t n, const float* x, std::int64_t* out);

  // resize.h, on the calling thread: loaders call it on many.
  std::size_t (*resize_workspace)(const ResizeShape&);
  void (*resize_bilinear)(const ResizeShape&, const std::uint8_t* x, void* workspace,
                          std::uint8_t* y);

  // For benchmarks: `count` pieces of multiply-adds in registers alone (about 1/20 ms each);
  // returns how many float operations that was. The fastest that any kernel of this table can be.
  double (*fma_peak)(Context&, std::int64_t count);

  // Optional: a plan that only computes forward takes winograd where that does not decline, else
  // packed, else the conv2d or conv2d_pool above. packed may decline only where groups > 1, and
  // gives their bits (without a residual); winograd rounds otherwise. A table with one of the two
  // that has conv2d_pool takes poolings here too. A plan that trains takes winograd when it is
  // asked to, for what is not pooled, and then the last for the gradient of the input: x is dy, y
  // is dx, and there is neither pooling, bias, residual nor activation.
  PreparedConv2d conv2d_packed, conv2d_winograd, conv2d_winograd_backward_input;

  // Optional: what a plan takes for the first layer of a batch of bytes.
  ByteConv2d conv2d_bytes;
};

}  // namespace convlet
