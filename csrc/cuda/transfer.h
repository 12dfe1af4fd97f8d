// What travels between the host and the device while kernels run.
#pragma once
#include <memory>

#include "core/device.h"
#include "cuda/context.h"

namespace convlet::cuda {

// Copies into pinned memory, in the order of the context's stream.
std::unique_ptr<Readback> readback(CudaContext& context);

// Two pieces of pinned memory that take turns, and a stream of their own for the copies.
std::unique_ptr<Upload> upload(CudaContext& context);

// A write of up to this many bytes, in words of 4, travels as a kernel's argument: a copy from
// memory that is not pinned may wait for the stream.
constexpr std::size_t kMostArgumentBytes = 256;
void write_argument(Context& context, void* memory, const void* host, std::size_t bytes);

}  // namespace convlet::cuda
