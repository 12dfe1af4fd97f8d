// A step captured into a CUDA graph.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "core/device.h"
#include "cuda/gpu.cuh"

namespace convlet::cuda {

// What calls() launches, as a graph to be replayed in the stream; null where CONVLET_CAPTURE=0
// turns capture off. With CONVLET_DUMP_GRAPHS=<folder>, each graph is written there as
// <number>-<name>.dot.
std::unique_ptr<Recording> capture(cudaStream_t stream, const std::string& name,
                                   const std::function<void()>& calls);

}  // namespace convlet::cuda
