// conv2d in bfloat16 by the instructions of sm_90a (Hopper); no other architecture has them.
#pragma once
#include "ops/kernels.h"

namespace convlet::cuda::sm90 {

// As the members of Kernels.
std::size_t conv2d_workspace(const Conv2dShape& shape, Pass pass, int threads);
void conv2d(Context& context, const Conv2dShape& shape, const float* x, const float* w,
            const float* bias, Activation activation, float* y, void* workspace);
void conv2d_backward_input(Context& context, const Conv2dShape& shape, const float* dy,
                           const float* w, float* dx, void* workspace);
void conv2d_backward_weight(Context& context, const Conv2dShape& shape, const float* dy,
                            const float* x, float* dw, void* workspace);

}  // namespace convlet::cuda::sm90
