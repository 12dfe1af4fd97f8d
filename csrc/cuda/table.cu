// Fills the tables of kernels. Each .cu file defines its functions in convlet::cuda with the names
// and types of the members of Kernels.
#include <type_traits>

#include "cuda/table.h"

namespace convlet::cuda {

#define CONVLET_KERNEL(name) std::remove_pointer_t<decltype(Kernels::name)> name

// elementwise.cu
CONVLET_KERNEL(add);
CONVLET_KERNEL(scale);

#undef CONVLET_KERNEL

namespace {

Kernels float32_table() {
  Kernels t{};
  t.name = kTableName;
#define CONVLET_KERNEL(name) t.name = name

  // elementwise.cu
  CONVLET_KERNEL(add);
  CONVLET_KERNEL(scale);

#undef CONVLET_KERNEL
  return t;
}

// The entries of conv2d, dense and matmul that round their factors to tf32; the rest is shared.
Kernels tf32_table() {
  Kernels t = float32_table();
  return t;
}

Kernels bfloat16_table() {
  Kernels t = float32_table();
  return t;
}

}  // namespace

const Kernels& table(Precision precision) {
  static const Kernels float32 = float32_table(), tf32 = tf32_table(), bfloat16 = bfloat16_table();
  return precision == Precision::tf32       ? tf32
         : precision == Precision::bfloat16 ? bfloat16
                                            : float32;
}

}  // namespace convlet::cuda
