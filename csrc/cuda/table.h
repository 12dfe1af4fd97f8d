// The tables of CUDA's kernels, one for each precision.
#pragma once
#include "core/device.h"
#include "ops/kernels.h"

namespace convlet::cuda {

// Of the device and its tables: the emulator's build is a device of its own.
#if defined(CONVLET_SIMT)
constexpr const char* kTableName = "simt";
#else
constexpr const char* kTableName = "cuda";
#endif

// With `sm90`, those that use the instructions of sm_90a where there are any.
const Kernels& table(Precision precision, bool sm90);

}  // namespace convlet::cuda
