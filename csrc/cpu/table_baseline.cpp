// The kernel table for any 64-bit CPU: the bodies, compiled for that instruction set.
#include "cpu/standard_headers.h"

#define CONVLET_ISA baseline
#define CONVLET_ISA_LEVEL 0
#include "cpu/bodies.h"

namespace convlet::cpu {

const Kernels& table_baseline() {
  return baseline::kTable;
}
const Kernels& table_baseline_emulated_bfloat16() {
  return baseline::kEmulatedBfloat16Table;
}

}  // namespace convlet::cpu
