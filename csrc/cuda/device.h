// The CUDA device: one GPU, the first that CUDA shows (CUDA_VISIBLE_DEVICES chooses it).
#pragma once
#include "core/device.h"

namespace convlet::cuda {

// Made at the first call; Error with the reason and the fix where there is no usable GPU. Outlives
// every object that holds its memory.
Device& cuda_device();

}  // namespace convlet::cuda
