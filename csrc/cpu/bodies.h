// Every kernel body, and the table made of them, for one instruction set (see simd.h).
// clang-format off: the order matters, later bodies use earlier ones.
#include "cpu/products.h"
#include "cpu/matmul.h"
#include "cpu/winograd.h"
#include "cpu/softmax.h"
#include "cpu/batch_norm.h"
#include "cpu/layer_norm.h"
#include "cpu/group_norm.h"
#include "formulas/focal.h"
#include "cpu/softmax_cross_entropy.h"
#include "formulas/elementwise_loss.h"
#include "cpu/elementwise_loss.h"
#include "cpu/elementwise.h"
#include "formulas/binary.h"
#include "cpu/broadcast.h"
#include "formulas/unary.h"
#include "cpu/unary.h"
#include "formulas/reduce.h"
#include "cpu/reduce.h"
#include "formulas/upsample2d.h"
#include "cpu/upsample2d.h"
#include "cpu/dropout.h"
#include "cpu/attention.h"
#include "formulas/recurrent.h"
#include "cpu/recurrent.h"
#include "formulas/optimizer.h"
#include "cpu/optimizer.h"
#include "cpu/reduction.h"
#include "cpu/rows.h"
#include "formulas/augment.h"
#include "cpu/augment.h"
#include "cpu/resize.h"
// clang-format on

#define CONVLET_QUOTED(word) #word
#define CONVLET_NAME_OF(macro) CONVLET_QUOTED(macro)

namespace convlet::CONVLET_ISA {

constexpr Kernels kTable = {
    CONVLET_NAME_OF(CONVLET_ISA),
    conv2d_workspace,
    conv2d,
    conv2d_backward_input,
    conv2d_backward_weight,
    dense_workspace,
    dense,
    dense_backward_input,
    dense_backward_weight,
    bias_gradient_workspace,
    bias_gradient,
    max_pool2d,
    max_pool2d_backward,
    avg_pool2d,
    avg_pool2d_backward,
    conv2d_pool_workspace,
    conv2d_pool,
    conv2d_pool_backward_input,
    conv2d_pool_backward_weight,
    conv2d_pool_backward_bias,
    activation,
    activation_backward,
    softmax,
    log_softmax,
    softmax_backward,
    log_softmax_backward,
    attention_workspace,
    attention,
    attention_backward,
    channel_statistics_workspace,
    channel_statistics,
    batch_norm_workspace,
    batch_norm,
    batch_norm_backward_workspace,
    batch_norm_backward,
    fold_batch_norm,
    layer_norm,
    layer_norm_backward_workspace,
    layer_norm_backward,
    group_norm_workspace,
    group_norm,
    group_norm_backward,
    moving_average,
    recurrent_workspace,
    recurrent,
    recurrent_backward,
    softmax_cross_entropy,
    elementwise_loss,
    dropout,
    add,
    scale,
    binary,
    binary_backward,
    where,
    strided_copy,
    unary,
    unary_backward,
    one_hot,
    reduce_workspace,
    reduce,
    reduce_backward,
    matmul_workspace,
    matmul,
    upsample2d,
    upsample2d_backward,
    copy_to_columns,
    copy_from_columns,
    pad2d,
    crop2d,
    optimizer,
    weight_average,
    add_gradients,
    take_gradients,
    sum,
    sum_of_squares,
    regularizer_penalty,
    regularizer_gradient,
    clip_by_norm,
    accuracy,
    gather_rows,
    gather_labels,
    gather_scale,
    step_results,
    augment_workspace,
    augment,
    first_non_finite,
    resize_workspace,
    resize_bilinear,
    fma_peak<Float32>,
    kConv2dPacked,
    {winograd_bytes, winograd_weights<false>, winograd_workspace, winograd_in_place,
     conv2d_winograd},
    {winograd_backward_input_bytes, winograd_weights<true>, winograd_backward_input_workspace,
     winograd_in_place, conv2d_winograd_backward_input},
    {},  // bytes become float32 as the batch is gathered
};

// Precision "bfloat16" for an instruction set that lacks its arithmetic: slow.
constexpr Kernels kEmulatedBfloat16Table =
    bfloat16_table(kTable, CONVLET_NAME_OF(CONVLET_ISA) ", bfloat16 emulated");

const Kernels& float32_kernels() {
  return kTable;
}

}  // namespace convlet::CONVLET_ISA
