// resize_bilinear: one image x (h,w,C) uint8 -> y (H,W,C) uint8, the filter as wide as the step
// between two outputs when the image shrinks (antialiased). One axis after the other, rounded to 8
// bits in between, first the one that leaves fewer values (the rows when both do). Per axis, with
// step = in / out and reach = max(step, 1):
//   centre = (i + 0.5) * step
//   weight of input j = max(0, 1 - |j + 0.5 - centre| / reach), normalised to the sum 1
// The weights are integers with 22 bits behind the point, so every instruction set gives the same
// bits. Pillow's Image.resize(BILINEAR) computes the same formula.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/tensor.h"

namespace convlet {

constexpr int kResizeBits = 22;

// Output i is the weighted sum of the inputs first[i] .. first[i] + count[i] - 1; its weights start
// at weights[i * most].
struct ResizeAxis {
  std::int64_t in, out, most;
  const std::int64_t* first;
  const std::int64_t* count;
  const std::int32_t* weights;
};

struct ResizeShape {
  std::int64_t C;
  ResizeAxis h, w;

  bool columns_first() const { return h.out * w.in < h.in * w.out; }
};

// A checked resize, with the memory that its shape points to.
class Resize {
 public:
  // ValueError unless x has 1 or 3 channels and all sizes are in 1..32767.
  Resize(const char* op, const Shape& x, std::int64_t height, std::int64_t width);
  Resize(const Resize&) = delete;
  Resize& operator=(const Resize&) = delete;

  ResizeShape shape() const;

 private:
  struct Axis {
    Axis(std::int64_t in, std::int64_t out);
    ResizeAxis view() const;

    std::int64_t in, out, most;
    std::vector<std::int64_t> first, count;
    std::vector<std::int32_t> weights;
  };

  std::int64_t channels_;
  Axis h_, w_;
};

}  // namespace convlet
