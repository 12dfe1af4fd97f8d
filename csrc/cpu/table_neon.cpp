// The kernel table for 64-bit ARM: the bodies, with NEON and its fused multiply-add, which every
// such CPU has.
#include "cpu/standard_headers.h"
#if defined(__aarch64__)
#include <arm_neon.h>

#define CONVLET_ISA neon
#define CONVLET_ISA_LEVEL 0
#define CONVLET_NEON
#include "cpu/bodies.h"

namespace convlet::cpu {

const Kernels& table_neon() {
  return neon::kTable;
}
const Kernels& table_neon_emulated_bfloat16() {
  return neon::kEmulatedBfloat16Table;
}

}  // namespace convlet::cpu
#endif  // __aarch64__
