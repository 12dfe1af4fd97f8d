// The kernels that are made of products: convolution and dense, in any Product, and what they are
// built on.
// clang-format off: the order matters, later bodies use earlier ones.
#include "cpu/simd.h"
#include "formulas/basics.h"
#include "cpu/ranges.h"
#include "formulas/math.h"
#include "formulas/activation.h"
#include "cpu/activation.h"
#include "cpu/bfloat16.h"
#include "cpu/gemm.h"
#include "cpu/product.h"
#include "cpu/windows.h"
#include "cpu/correlation.h"
#include "cpu/depthwise.h"
#include "cpu/conv2d.h"
#include "cpu/conv2d_backward_weight.h"
#include "cpu/dense.h"
#include "cpu/peak.h"
#include "cpu/bfloat16_table.h"
// clang-format on
