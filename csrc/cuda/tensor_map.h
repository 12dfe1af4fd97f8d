// Tensors of bfloat16 as the copy engine of sm_90 sees them: where they lie, and the box that one
// copy takes. A kernel gets a map by value, as __grid_constant__.
#pragma once
#include "cuda/gpu.cuh"

#if defined(CONVLET_SIMT)
#include "driver_api.h"
#else
#include <cuda.h>
#endif

namespace convlet::cuda {

// How lines of 32, 64 or 128 bytes lie in shared memory: in each 8 of them the pieces of 16 bytes
// are exchanged. Copies and products must agree. The numbers are the driver's.
enum class Swizzle { none, span_32, span_64, span_128 };

// A row-major tensor whose innermost dimension is x.
struct Box {
  std::int64_t x, y, z;  // of the tensor
  std::int64_t row;      // elements from one y to the next; a z has y rows
  int box_x, box_y;      // a copy takes box_x * box_y of one z
  Swizzle swizzle;
};

// NHWC images, and the windows of a convolution: one at every step from `first` on, so many in a
// row and a column.
struct Windows {
  std::int64_t images, height, width, channels;
  std::int64_t pixel;                            // elements from one to the next
  std::int64_t first_h, first_w, rows, columns;  // windows
  std::int64_t step_h, step_w;
  int box_pixels, box_channels;  // that a copy takes
  Swizzle swizzle;
};

// Whether a map can describe them, with offsets up to these within a window.
bool has_map(const Windows& windows, std::int64_t most_offset_h, std::int64_t most_offset_w);

// Of data that is aligned to 16 bytes, with rows and pixels that are a multiple of 8 elements
// apart. Error when the driver refuses.
CUtensorMap make_map(const void* data, const Box& box);
CUtensorMap make_map(const void* data, const Windows& windows);

// Whether the driver is new enough for maps.
bool has_maps();

}  // namespace convlet::cuda
