// Where the windows of pooling (ops/pool2d.h) lie.
namespace convlet::CONVLET_ISA {

// The part of a window along one axis that lies inside x: `count` taps from position `first` on.
struct Taps {
  std::int64_t first, count;
};
CONVLET_HOST_DEVICE inline Taps taps_inside(std::int64_t start, std::int64_t window,
                                            std::int64_t dilation, std::int64_t size) {
  if (start >= 0 && start + (window - 1) * dilation < size) return {start, window};
  const std::int64_t skipped = start < 0 ? (-start + dilation - 1) / dilation : 0;
  const std::int64_t first = start + skipped * dilation;
  const std::int64_t fitting = first < size ? (size - first + dilation - 1) / dilation : 0;
  return {first, fitting < window - skipped ? fitting : window - skipped};
}
CONVLET_HOST_DEVICE inline Taps row_taps(const Pool2dShape& s, std::int64_t p) {
  return taps_inside(p * s.stride_h - s.pad_top, s.R, s.dilation_h, s.H);
}
CONVLET_HOST_DEVICE inline Taps column_taps(const Pool2dShape& s, std::int64_t q) {
  return taps_inside(q * s.stride_w - s.pad_left, s.S, s.dilation_w, s.W);
}

// The number that an average is divided by.
CONVLET_HOST_DEVICE inline float average_divisor(const Pool2dShape& s, std::int64_t p,
                                                 std::int64_t q, std::int64_t rows,
                                                 std::int64_t columns) {
  if (s.count_include_pad) {
    const std::int64_t h = p * s.stride_h - s.pad_top, w = q * s.stride_w - s.pad_left;
    rows = taps_inside(0, s.R, s.dilation_h, s.H + s.pad_bottom - h).count;
    columns = taps_inside(0, s.S, s.dilation_w, s.W + s.pad_right - w).count;
  }
  return static_cast<float>(rows * columns);
}

}  // namespace convlet::CONVLET_ISA
