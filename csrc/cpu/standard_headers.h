// Everything from outside that the kernel bodies use. A table's translation unit includes this
// before it opens its target region, so that no inline function of the standard library is compiled
// for a chip that the rest of the program may not run on.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "core/context.h"
#include "core/host_device.h"
#include "core/rng.h"
#include "ops/kernels.h"
#include "ops/moments.h"
