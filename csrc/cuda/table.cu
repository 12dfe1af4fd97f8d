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
