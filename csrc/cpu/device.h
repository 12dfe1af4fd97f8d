// The CPU as a Device: aligned host memory, the thread pool, the table of the instruction set in
// use.
#pragma once
#include "core/device.h"

namespace convlet {

Device& cpu_device();

// How many threads the CPU's kernels use. At first that is default_threads() (core/cpu_count.h).
int num_threads();
void set_num_threads(int threads);  // ValueError unless it is positive

}  // namespace convlet
