// How the numbers of one image's augmentation are drawn (ops/augment.h), on the host or in a
// kernel.
#pragma once
#include <cmath>

#include "core/host_device.h"
#include "core/rng.h"
#include "ops/augment.h"

namespace convlet::augment_draw {

constexpr double kPi = 3.14159265358979323846;

// The choices of a shift; none: its range.
struct Choices {
  const double* values;
  std::int64_t count;
};

// Every drawn number has a place of its own in the image's random words, so that what one setting
// draws does not depend on the others.
enum Place {
  kFlipHorizontal,
  kFlipVertical,
  kRotation,
  kShear,
  kShiftH,
  kShiftHSign,
  kShiftW,
  kShiftWSign,
  kZoomH,
  kZoomW,
  kCropArea,
  kCropRatio,
  kCropTop,
  kCropLeft,
  kChannelShift,
  kBrightness,
  kBrightnessShift,
  kContrast,
  kSaturation,
  kErase,
  kEraseArea,
  kEraseRatio,
  kEraseTop,
  kEraseLeft,
  kPlaces,
};

class Draws {
 public:
  CONVLET_HOST_DEVICE Draws(const AugmentRandom& random, std::uint64_t index) {
    // Another key than dropout's, which uses the same seed.
    constexpr std::uint64_t kKey = 0x6175676d656e7421;
    const std::uint64_t first = random.epoch << 24 | random.stream << 8;
    for (std::uint64_t block = 0; block < kPlaces / 4; ++block) {
      const Philox words = philox(random.seed ^ kKey, index, first | block);
      for (int i = 0; i < 4; ++i) words_[block * 4 + static_cast<std::uint64_t>(i)] = words.word[i];
    }
  }

  // In (0, 1).
  CONVLET_HOST_DEVICE double uniform(Place place) const { return (words_[place] + 0.5) * 0x1p-32; }
  CONVLET_HOST_DEVICE double in(Place place, const AugmentRange& range) const {
    return range.low + uniform(place) * (range.high - range.low);
  }
  // Uniform in the logarithm: a ratio and its inverse are equally likely.
  CONVLET_HOST_DEVICE double ratio(Place place, const AugmentRange& range) const {
    return range.low * std::pow(range.high / range.low, uniform(place));
  }
  // A whole number in [0, count).
  CONVLET_HOST_DEVICE double whole(Place place, double count) const {
    return std::floor(uniform(place) * count);
  }

 private:
  static_assert(kPlaces % 4 == 0, "words come in fours");
  std::uint32_t words_[kPlaces];
};

CONVLET_HOST_DEVICE inline double draw_shift(const Draws& draws, Place place, Place sign,
                                             const AugmentRange& range, const Choices& choices,
                                             double whole, double size) {
  if (choices.count > 0) {
    const double chosen = draws.whole(place, static_cast<double>(choices.count));
    const double shift = choices.values[static_cast<std::int64_t>(chosen)] * size;
    return draws.uniform(sign) < 0.5 ? -shift : shift;
  }
  const double low = range.low * size, high = range.high * size;
  if (whole == 0) return draws.in(place, {low, high});
  return std::ceil(low) + draws.whole(place, std::floor(high) - std::ceil(low) + 1);
}

CONVLET_HOST_DEVICE inline void draw_window(const Draws& draws, const AugmentNumbers& spec,
                                            const AugmentShape& s, AugmentDraw& draw) {
  const double H = static_cast<double>(s.H), W = static_cast<double>(s.W);
  if (spec.crop_area.high > 0) {
    const double area = draws.in(kCropArea, spec.crop_area) * H * W;
    const double ratio = draws.ratio(kCropRatio, spec.crop_ratio);
    draw.crop_height = std::fmin(H, std::fmax(1, std::sqrt(area / ratio)));
    draw.crop_width = std::fmin(W, std::fmax(1, std::sqrt(area * ratio)));
    draw.crop_top = draws.uniform(kCropTop) * (H - draw.crop_height);
    draw.crop_left = draws.uniform(kCropLeft) * (W - draw.crop_width);
    return;
  }
  draw.crop_height = static_cast<double>(s.P);
  draw.crop_width = static_cast<double>(s.Q);
  const double rows = H + 2 * spec.padding - draw.crop_height;
  const double columns = W + 2 * spec.padding - draw.crop_width;
  const bool centre = spec.crop_centre != 0;
  draw.crop_top = (centre ? std::floor(rows / 2) : draws.whole(kCropTop, rows + 1)) - spec.padding;
  draw.crop_left =
      (centre ? std::floor(columns / 2) : draws.whole(kCropLeft, columns + 1)) - spec.padding;
}

CONVLET_HOST_DEVICE inline void draw_erased(const Draws& draws, const AugmentNumbers& spec,
                                            const AugmentShape& s, AugmentDraw& draw) {
  draw.erase_top = draw.erase_left = draw.erase_height = draw.erase_width = 0;
  if (!(draws.uniform(kErase) < spec.erase)) return;
  const double P = static_cast<double>(s.P), Q = static_cast<double>(s.Q);
  const double area = draws.in(kEraseArea, spec.erase_area) * P * Q;
  const double ratio = draws.ratio(kEraseRatio, spec.erase_ratio);
  const double height = std::fmin(P, std::fmax(1, std::round(std::sqrt(area / ratio))));
  const double width = std::fmin(Q, std::fmax(1, std::round(std::sqrt(area * ratio))));
  draw.erase_height = static_cast<std::int64_t>(height);
  draw.erase_width = static_cast<std::int64_t>(width);
  draw.erase_top = static_cast<std::int64_t>(draws.whole(kEraseTop, P - height + 1));
  draw.erase_left = static_cast<std::int64_t>(draws.whole(kEraseLeft, Q - width + 1));
}

// x is a column, y a row.
struct Affine {
  double xx, xy, x, yx, yy, y;
};
CONVLET_HOST_DEVICE inline Affine operator*(const Affine& a, const Affine& b) {
  return {a.xx * b.xx + a.xy * b.yx, a.xx * b.xy + a.xy * b.yy, a.xx * b.x + a.xy * b.y + a.x,
          a.yx * b.xx + a.yy * b.yx, a.yx * b.xy + a.yy * b.yy, a.yx * b.x + a.yy * b.y + a.y};
}

// Exact for right angles, so that they turn an image onto itself.
CONVLET_HOST_DEVICE inline double sine(double degrees) {
  const double quarters = degrees / 90;
  if (quarters == std::floor(quarters)) {
    const double left = std::fmod(quarters, 4);  // -3 ... 3
    return left == 1 || left == -3 ? 1 : left == -1 || left == 3 ? -1 : 0;
  }
  return std::sin(degrees * kPi / 180);
}
CONVLET_HOST_DEVICE inline double cosine(double degrees) {
  const double quarters = degrees / 90;
  return quarters == std::floor(quarters) ? sine(degrees + 90) : std::cos(degrees * kPi / 180);
}

CONVLET_HOST_DEVICE inline void compose(const AugmentShape& s, AugmentDraw& draw) {
  const double cx = static_cast<double>(s.W) / 2 - 0.5, cy = static_cast<double>(s.H) / 2 - 0.5;
  const double step_x = draw.crop_width / static_cast<double>(s.Q);
  const double step_y = draw.crop_height / static_cast<double>(s.P);
  // From the centre of an output pixel to that of the window's, relative to the image's centre.
  Affine map{step_x, 0,      draw.crop_left + 0.5 * step_x - 0.5 - cx,
             0,      step_y, draw.crop_top + 0.5 * step_y - 0.5 - cy};
  map =
      Affine{draw.flip_horizontal ? -1.0 : 1.0, 0, 0, 0, draw.flip_vertical ? -1.0 : 1.0, 0} * map;
  map = Affine{draw.zoom_w, 0, 0, 0, draw.zoom_h, 0} * map;
  map = Affine{1, -sine(draw.shear), 0, 0, cosine(draw.shear), 0} * map;
  map = Affine{1, 0, draw.shift_w, 0, 1, draw.shift_h} * map;
  const double sin = sine(draw.rotation), cos = cosine(draw.rotation);
  map = Affine{cos, -sin, cx, sin, cos, cy} * map;
  const double m[] = {map.yy, map.yx, map.y, map.xy, map.xx, map.x};
  for (int i = 0; i < 6; ++i) draw.m[i] = m[i];
}

// What AugmentSpec's draw_augment gives.
CONVLET_HOST_DEVICE inline AugmentDraw draw(const AugmentNumbers& spec, const Choices& shift_h,
                                            const Choices& shift_w, const AugmentShape& shape,
                                            const AugmentRandom& random, std::uint64_t index) {
  const Draws draws(random, index);
  AugmentDraw drawn;
  drawn.flip_horizontal = draws.uniform(kFlipHorizontal) < spec.flip_horizontal;
  drawn.flip_vertical = draws.uniform(kFlipVertical) < spec.flip_vertical;
  drawn.rotation = draws.in(kRotation, spec.rotation);
  drawn.shear = draws.in(kShear, spec.shear);
  drawn.shift_h = draw_shift(draws, kShiftH, kShiftHSign, spec.shift_h, shift_h, spec.shift_h_whole,
                             spec.shift_h_share != 0 ? static_cast<double>(shape.H) : 1.0);
  drawn.shift_w = draw_shift(draws, kShiftW, kShiftWSign, spec.shift_w, shift_w, spec.shift_w_whole,
                             spec.shift_w_share != 0 ? static_cast<double>(shape.W) : 1.0);
  drawn.zoom_h = draws.in(kZoomH, spec.zoom_h);
  drawn.zoom_w = spec.zoom_together != 0 ? drawn.zoom_h : draws.in(kZoomW, spec.zoom_w);
  draw_window(draws, spec, shape, drawn);
  drawn.channel_shift = draws.in(kChannelShift, spec.channel_shift);
  drawn.brightness = draws.in(kBrightness, spec.brightness);
  drawn.brightness_shift = draws.in(kBrightnessShift, spec.brightness_shift);
  drawn.contrast = draws.in(kContrast, spec.contrast);
  drawn.saturation = draws.in(kSaturation, spec.saturation);
  draw_erased(draws, spec, shape, drawn);
  compose(shape, drawn);
  return drawn;
}

}  // namespace convlet::augment_draw
