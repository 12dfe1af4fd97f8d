// The formulas of csrc/formulas for kernels on a GPU: the vector is one float, in namespace scalar.
// The same arithmetic as on the CPU, step by step, so that both give the same bits wherever the CPU
// has fused multiply-adds too.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/host_device.h"
#include "ops/kernels.h"

namespace convlet::scalar {

using V = float;
using Mask = bool;

CONVLET_HOST_DEVICE inline V broadcast(float x) {
  return x;
}
CONVLET_HOST_DEVICE inline V zero() {
  return 0.0f;
}
CONVLET_HOST_DEVICE inline V fma(V a, V b, V c) {
  return fmaf(a, b, c);
}
// The second operand when either is NaN.
CONVLET_HOST_DEVICE inline V max(V a, V b) {
  return a > b ? a : b;
}
CONVLET_HOST_DEVICE inline V min(V a, V b) {
  return a < b ? a : b;
}
CONVLET_HOST_DEVICE inline V sqrt(V a) {
  return sqrtf(a);
}
CONVLET_HOST_DEVICE inline V abs(V a) {
  return fabsf(a);
}
// To the nearest integer, ties to even.
CONVLET_HOST_DEVICE inline V round(V a) {
  return rintf(a);
}
CONVLET_HOST_DEVICE inline V power(V a, V b) {
  return powf(a, b);
}
CONVLET_HOST_DEVICE inline Mask is_nan(V a) {
  return a != a;
}
CONVLET_HOST_DEVICE inline V select(Mask m, V a, V b) {
  return m ? a : b;
}
template <class To, class From>
CONVLET_HOST_DEVICE inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
// 2^n for integral n in [-126, 127].
CONVLET_HOST_DEVICE inline V power_of_two(V n) {
  return bits_as<float>((static_cast<std::int32_t>(n) + 127) << 23);
}
// e and m of a = m * 2^e, 1 <= m < 2, for positive normal a.
CONVLET_HOST_DEVICE inline V exponent(V a) {
  return static_cast<float>((bits_as<std::int32_t>(a) >> 23) - 127);
}
CONVLET_HOST_DEVICE inline V mantissa(V a) {
  return bits_as<float>((bits_as<std::int32_t>(a) & 0x007fffff) | 0x3f800000);
}

}  // namespace convlet::scalar

// clang-format off: the order matters, later formulas use earlier ones.
#define CONVLET_ISA scalar
#include "formulas/basics.h"
#include "formulas/math.h"
#include "formulas/activation.h"
#include "formulas/augment.h"
#include "formulas/unary.h"
#include "formulas/binary.h"
#include "formulas/elementwise_loss.h"
#include "formulas/focal.h"
#include "formulas/optimizer.h"
#include "formulas/pool2d.h"
#include "formulas/recurrent.h"
#include "formulas/reduce.h"
#include "formulas/upsample2d.h"
#undef CONVLET_ISA
// clang-format on
