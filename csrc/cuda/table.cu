// Fills the tables of kernels. Each .cu file defines its functions in convlet::cuda with the names
// and types of the members of Kernels.
#include <type_traits>

#include "cuda/convolution.h"
#include "cuda/sm90.h"
#include "cuda/table.h"

namespace convlet::cuda {

#define CONVLET_KERNEL(name) std::remove_pointer_t<decltype(Kernels::name)> name

// elementwise.cu
CONVLET_KERNEL(add);
CONVLET_KERNEL(scale);

// batch_norm.cu
CONVLET_KERNEL(channel_statistics_workspace);
CONVLET_KERNEL(channel_statistics);
CONVLET_KERNEL(batch_norm_workspace);
CONVLET_KERNEL(batch_norm);
CONVLET_KERNEL(batch_norm_backward_workspace);
CONVLET_KERNEL(batch_norm_backward);
CONVLET_KERNEL(fold_batch_norm);

// layer_norm.cu
CONVLET_KERNEL(layer_norm);
CONVLET_KERNEL(layer_norm_backward_workspace);
CONVLET_KERNEL(layer_norm_backward);

// group_norm.cu
CONVLET_KERNEL(group_norm_workspace);
CONVLET_KERNEL(group_norm);
CONVLET_KERNEL(group_norm_backward);

// attention.cu
CONVLET_KERNEL(attention_workspace);
CONVLET_KERNEL(attention);
CONVLET_KERNEL(attention_backward);

// recurrent.cu
CONVLET_KERNEL(recurrent_workspace);
CONVLET_KERNEL(recurrent);
CONVLET_KERNEL(recurrent_backward);

// augment.cu
CONVLET_KERNEL(augment_workspace);
CONVLET_KERNEL(augment);
// activation.cu
CONVLET_KERNEL(activation);
CONVLET_KERNEL(activation_backward);

// unary.cu
CONVLET_KERNEL(unary);
CONVLET_KERNEL(unary_backward);

// broadcast.cu
CONVLET_KERNEL(binary);
CONVLET_KERNEL(binary_backward);
CONVLET_KERNEL(where);
CONVLET_KERNEL(strided_copy);
CONVLET_KERNEL(one_hot);

// dropout.cu
CONVLET_KERNEL(dropout);

// softmax.cu
CONVLET_KERNEL(softmax);
CONVLET_KERNEL(log_softmax);
CONVLET_KERNEL(softmax_backward);
CONVLET_KERNEL(log_softmax_backward);

// softmax_cross_entropy.cu
CONVLET_KERNEL(softmax_cross_entropy);

// elementwise_loss.cu
CONVLET_KERNEL(elementwise_loss);

// pool2d.cu
CONVLET_KERNEL(max_pool2d);
CONVLET_KERNEL(max_pool2d_backward);
CONVLET_KERNEL(avg_pool2d);
CONVLET_KERNEL(avg_pool2d_backward);

// upsample2d.cu
CONVLET_KERNEL(upsample2d);
CONVLET_KERNEL(upsample2d_backward);

// rows.cu
CONVLET_KERNEL(copy_to_columns);
CONVLET_KERNEL(copy_from_columns);
CONVLET_KERNEL(pad2d);
CONVLET_KERNEL(crop2d);
CONVLET_KERNEL(gather_rows);
CONVLET_KERNEL(accuracy);

// optimizer.cu
CONVLET_KERNEL(optimizer);
CONVLET_KERNEL(weight_average);
CONVLET_KERNEL(moving_average);

// reduction.cu
CONVLET_KERNEL(sum);
CONVLET_KERNEL(sum_of_squares);
CONVLET_KERNEL(regularizer_penalty);
CONVLET_KERNEL(regularizer_gradient);
CONVLET_KERNEL(clip_by_norm);
CONVLET_KERNEL(first_non_finite);

// reduce.cu
CONVLET_KERNEL(reduce_workspace);
CONVLET_KERNEL(reduce);
CONVLET_KERNEL(reduce_backward);

// bias_gradient.cu
CONVLET_KERNEL(bias_gradient_workspace);
CONVLET_KERNEL(bias_gradient);

// peak.cu
CONVLET_KERNEL(fma_peak);

#undef CONVLET_KERNEL

namespace {

// conv2d.cu, dense.cu and matmul.cu: what the precision changes.
template <Precision precision>
void set_products(Kernels& t) {
  t.conv2d_workspace = conv2d_workspace<precision>;
  t.conv2d = conv2d<precision>;
  t.conv2d_backward_input = conv2d_backward_input<precision>;
  t.conv2d_backward_weight = conv2d_backward_weight<precision>;
  t.dense_workspace = dense_workspace<precision>;
  t.dense = dense<precision>;
  t.dense_backward_input = dense_backward_input<precision>;
  t.dense_backward_weight = dense_backward_weight<precision>;
  t.matmul_workspace = matmul_workspace<precision>;
  t.matmul = matmul<precision>;
}

Kernels float32_table() {
  Kernels t{};
  t.name = kTableName;
#define CONVLET_KERNEL(name) t.name = name

  // elementwise.cu
  CONVLET_KERNEL(add);
  CONVLET_KERNEL(scale);

  set_products<Precision::float32>(t);
  // activation.cu
  CONVLET_KERNEL(activation);
  CONVLET_KERNEL(activation_backward);

  // unary.cu
  CONVLET_KERNEL(unary);
  CONVLET_KERNEL(unary_backward);

  // broadcast.cu
  CONVLET_KERNEL(binary);
  CONVLET_KERNEL(binary_backward);
  CONVLET_KERNEL(where);
  CONVLET_KERNEL(strided_copy);
  CONVLET_KERNEL(one_hot);

  // dropout.cu
  CONVLET_KERNEL(dropout);

  // softmax.cu
  CONVLET_KERNEL(softmax);
  CONVLET_KERNEL(log_softmax);
  CONVLET_KERNEL(softmax_backward);
  CONVLET_KERNEL(log_softmax_backward);

  // softmax_cross_entropy.cu
  CONVLET_KERNEL(softmax_cross_entropy);

  // elementwise_loss.cu
  CONVLET_KERNEL(elementwise_loss);

  // pool2d.cu
  CONVLET_KERNEL(max_pool2d);
  CONVLET_KERNEL(max_pool2d_backward);
  CONVLET_KERNEL(avg_pool2d);
  CONVLET_KERNEL(avg_pool2d_backward);

  // upsample2d.cu
  CONVLET_KERNEL(upsample2d);
  CONVLET_KERNEL(upsample2d_backward);

  // rows.cu
  CONVLET_KERNEL(copy_to_columns);
  CONVLET_KERNEL(copy_from_columns);
  CONVLET_KERNEL(pad2d);
  CONVLET_KERNEL(crop2d);
  CONVLET_KERNEL(gather_rows);
  CONVLET_KERNEL(accuracy);

  // optimizer.cu
  CONVLET_KERNEL(optimizer);
  CONVLET_KERNEL(weight_average);
  CONVLET_KERNEL(moving_average);

  // reduction.cu
  CONVLET_KERNEL(sum);
  CONVLET_KERNEL(sum_of_squares);
  CONVLET_KERNEL(regularizer_penalty);
  CONVLET_KERNEL(regularizer_gradient);
  CONVLET_KERNEL(clip_by_norm);
  CONVLET_KERNEL(first_non_finite);

  // reduce.cu
  CONVLET_KERNEL(reduce_workspace);
  CONVLET_KERNEL(reduce);
  CONVLET_KERNEL(reduce_backward);

  // bias_gradient.cu
  CONVLET_KERNEL(bias_gradient_workspace);
  CONVLET_KERNEL(bias_gradient);

  // peak.cu
  CONVLET_KERNEL(fma_peak);

  // resize_workspace and resize_bilinear stay null: loaders resize on host threads, with the CPU's.

  // batch_norm.cu
  CONVLET_KERNEL(channel_statistics_workspace);
  CONVLET_KERNEL(channel_statistics);
  CONVLET_KERNEL(batch_norm_workspace);
  CONVLET_KERNEL(batch_norm);
  CONVLET_KERNEL(batch_norm_backward_workspace);
  CONVLET_KERNEL(batch_norm_backward);
  CONVLET_KERNEL(fold_batch_norm);

  // layer_norm.cu
  CONVLET_KERNEL(layer_norm);
  CONVLET_KERNEL(layer_norm_backward_workspace);
  CONVLET_KERNEL(layer_norm_backward);

  // group_norm.cu
  CONVLET_KERNEL(group_norm_workspace);
  CONVLET_KERNEL(group_norm);
  CONVLET_KERNEL(group_norm_backward);

  // attention.cu
  CONVLET_KERNEL(attention_workspace);
  CONVLET_KERNEL(attention);
  CONVLET_KERNEL(attention_backward);

  // recurrent.cu
  CONVLET_KERNEL(recurrent_workspace);
  CONVLET_KERNEL(recurrent);
  CONVLET_KERNEL(recurrent_backward);

  // augment.cu
  CONVLET_KERNEL(augment_workspace);
  CONVLET_KERNEL(augment);

#undef CONVLET_KERNEL
  return t;
}

Kernels tf32_table() {
  Kernels t = float32_table();
  set_products<Precision::tf32>(t);
  return t;
}

Kernels bfloat16_table() {
  Kernels t = float32_table();
  set_products<Precision::bfloat16>(t);
  return t;
}

Kernels bfloat16_sm90_table() {
  Kernels t = bfloat16_table();
  t.conv2d_workspace = sm90::conv2d_workspace;
  t.conv2d = sm90::conv2d;
  t.conv2d_backward_input = sm90::conv2d_backward_input;
  return t;
}

}  // namespace

const Kernels& table(Precision precision, bool sm90) {
  static const Kernels float32 = float32_table(), tf32 = tf32_table(), bfloat16 = bfloat16_table(),
                       bfloat16_sm90 = bfloat16_sm90_table();
  return precision == Precision::tf32       ? tf32
         : precision == Precision::bfloat16 ? (sm90 ? bfloat16_sm90 : bfloat16)
                                            : float32;
}

}  // namespace convlet::cuda
