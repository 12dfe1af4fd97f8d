// Fills the tables of kernels. Each .cu file defines its functions in convlet::cuda with the names
// and types of the members of Kernels.
#include <type_traits>

#include "cuda/convolution.h"
#include "cuda/sm90.h"
#include "cuda/table.h"

namespace convlet::cuda {

// What the precision does not change: declared here, defined in the .cu files.
#define CONVLET_KERNELS(KERNEL)         \
  KERNEL(activation)                    \
  KERNEL(activation_backward)           \
  KERNEL(attention_workspace)           \
  KERNEL(attention)                     \
  KERNEL(attention_backward)            \
  KERNEL(augment_workspace)             \
  KERNEL(augment)                       \
  KERNEL(channel_statistics_workspace)  \
  KERNEL(channel_statistics)            \
  KERNEL(batch_norm_workspace)          \
  KERNEL(batch_norm)                    \
  KERNEL(batch_norm_backward_workspace) \
  KERNEL(batch_norm_backward)           \
  KERNEL(fold_batch_norm)               \
  KERNEL(bias_gradient_workspace)       \
  KERNEL(bias_gradient)                 \
  KERNEL(conv2d_pool_backward_bias)     \
  KERNEL(binary)                        \
  KERNEL(binary_backward)               \
  KERNEL(where)                         \
  KERNEL(strided_copy)                  \
  KERNEL(one_hot)                       \
  KERNEL(dropout)                       \
  KERNEL(add)                           \
  KERNEL(scale)                         \
  KERNEL(elementwise_loss)              \
  KERNEL(group_norm_workspace)          \
  KERNEL(group_norm)                    \
  KERNEL(group_norm_backward)           \
  KERNEL(layer_norm)                    \
  KERNEL(layer_norm_backward_workspace) \
  KERNEL(layer_norm_backward)           \
  KERNEL(optimizer)                     \
  KERNEL(weight_average)                \
  KERNEL(add_gradients)                 \
  KERNEL(take_gradients)                \
  KERNEL(moving_average)                \
  KERNEL(max_pool2d)                    \
  KERNEL(max_pool2d_backward)           \
  KERNEL(avg_pool2d)                    \
  KERNEL(avg_pool2d_backward)           \
  KERNEL(recurrent_workspace)           \
  KERNEL(recurrent)                     \
  KERNEL(recurrent_backward)            \
  KERNEL(reduce_workspace)              \
  KERNEL(reduce)                        \
  KERNEL(reduce_backward)               \
  KERNEL(sum)                           \
  KERNEL(sum_of_squares)                \
  KERNEL(regularizer_penalty)           \
  KERNEL(regularizer_gradient)          \
  KERNEL(clip_by_norm)                  \
  KERNEL(first_non_finite)              \
  KERNEL(copy_to_columns)               \
  KERNEL(copy_from_columns)             \
  KERNEL(pad2d)                         \
  KERNEL(crop2d)                        \
  KERNEL(gather_rows)                   \
  KERNEL(gather_labels)                 \
  KERNEL(gather_scale)                  \
  KERNEL(step_results)                  \
  KERNEL(accuracy)                      \
  KERNEL(softmax)                       \
  KERNEL(log_softmax)                   \
  KERNEL(softmax_backward)              \
  KERNEL(log_softmax_backward)          \
  KERNEL(softmax_cross_entropy)         \
  KERNEL(unary)                         \
  KERNEL(unary_backward)                \
  KERNEL(upsample2d)                    \
  KERNEL(upsample2d_backward)

#define CONVLET_DECLARE(name) std::remove_pointer_t<decltype(Kernels::name)> name;
CONVLET_KERNELS(CONVLET_DECLARE)
#undef CONVLET_DECLARE

namespace {

// conv2d.cu, conv2d_pool.cu, conv2d_bytes.cu, dense.cu and matmul.cu: what the precision changes.
template <Precision precision>
void set_products(Kernels& t) {
  t.conv2d_workspace = conv2d_workspace<precision>;
  t.conv2d = conv2d<precision>;
  t.conv2d_backward_input = conv2d_backward_input<precision>;
  t.conv2d_backward_weight = conv2d_backward_weight<precision>;
  t.conv2d_pool_workspace = conv2d_pool_workspace<precision>;
  t.conv2d_pool = conv2d_pool<precision>;
  t.conv2d_pool_backward_input = conv2d_pool_backward_input<precision>;
  t.conv2d_pool_backward_weight = conv2d_pool_backward_weight<precision>;
  t.conv2d_bytes = {serves_bytes, gather_bytes, conv2d_bytes<precision>,
                    conv2d_bytes_backward_weight<precision>};
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
#define CONVLET_FILL(name) t.name = name;
  CONVLET_KERNELS(CONVLET_FILL)
#undef CONVLET_FILL
  set_products<Precision::float32>(t);
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
  t.conv2d_backward_weight = sm90::conv2d_backward_weight;
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
