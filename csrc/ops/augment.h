// augment: y[n] = erase(colour(resample(x[rows[n]]))) * scale + offset, another draw for every
// image. x (M,H,W,C) uint8 or float32   y (N,P,Q,C) float32 or uint8 (rounded, 0..255)
//
// Resample: output pixel (row i, column j) reads x at one affine map of its position, on vectors
// (column, row):
//   source = S K R(rotation) T(shift) [1 -sin(shear); 0 cos(shear)] Z(zoom) K^-1 F w(j,i)
// w places the output in the image (the crop), F flips, K moves the centre ((W-1)/2, (H-1)/2) to
// the origin: the matrix order of Keras' ImageDataGenerator. Positive angles turn
// counter-clockwise, a zoom above 1 makes things smaller, a positive shift moves them up or left.
// Fill modes continue x beyond its edges as scipy.ndimage does:
//   constant  k k | a b c d | k k   (any position beyond the centre of an outer pixel is k)
//   nearest   a a | a b c d | d d
//   reflect   b a | a b c d | d c
//   wrap      b c | a b c d | b c   (period n - 1: the outer pixels are one)
//
// Colour, per pixel value v of channel c, mean m[c] of x[rows[n]] after the two first:
//   v = clip(v + channel_shift, to the range of the image)
//   v = v * brightness + brightness_shift
//   v = (v - m) * contrast + m           m of each channel, or of the grey image
//   v = g + saturation * (v - g)         g = 0.299 r + 0.587 g + 0.114 b; C = 3 only
//   v = clip(v, value_low, value_high)
// Erase: with a probability, a rectangle of the output becomes erase_value.
//
// Every number is drawn from Philox by (seed, epoch, index of the image, stream), so nothing
// depends on threads, order or the size of the batch. A range with equal ends fixes a number.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "ops/interpolation.h"

namespace convlet {

enum class Fill { constant, nearest, reflect, wrap };

Fill fill_named(const char* op, const std::string& name);

struct AugmentRange {
  double low, high;
};

// Every setting but the choices.
struct AugmentNumbers {
  double flip_horizontal = 0, flip_vertical = 0;  // probabilities
  AugmentRange rotation{0, 0}, shear{0, 0};       // degrees
  // In pixels, or as shares of the height and the width; whole: rounded to whole pixels, each
  // equally likely.
  AugmentRange shift_h{0, 0}, shift_w{0, 0};
  double shift_h_share = 0, shift_w_share = 0, shift_h_whole = 0, shift_w_whole = 0;
  AugmentRange zoom_h{1, 1}, zoom_w{1, 1};
  double zoom_together = 0;  // not 0: zoom_h for both axes
  // The output's size, 0 for the image's. Without a crop area: whole pixels at a random place
  // (not 0: crop_centre, in the middle) of the image with `padding` pixels of fill around it. With
  // one: a window of this share of the image's area and of this ratio of width to height, inside
  // the image, is resized.
  double height = 0, width = 0, padding = 0, crop_centre = 0;
  AugmentRange crop_area{0, 0}, crop_ratio{1, 1};
  AugmentRange channel_shift{0, 0}, brightness{1, 1}, brightness_shift{0, 0};
  AugmentRange contrast{1, 1}, saturation{1, 1};
  double contrast_per_channel = 0;
  double value_low = 0, value_high = 255;
  double erase = 0;  // probability
  AugmentRange erase_area{0.02, 0.33}, erase_ratio{0.3, 3.3};
  double erase_value = 0;
  Fill fill = Fill::nearest;
  double fill_value = 0;
  Interpolation interpolation = Interpolation::bilinear;
};

struct AugmentSpec : AugmentNumbers {
  // Where there are any they replace the range of a shift: one of them, or its negative.
  std::vector<double> shift_h_choices, shift_w_choices;
};

// Sets one of the numbers by its name; the ends of a range are called "rotation_low" and
// "rotation_high". ValueError that lists the names for an unknown one.
void set_number(const char* op, AugmentSpec& spec, const std::string& name, double value);
std::vector<const char*> augment_numbers();

struct AugmentShape {
  std::int64_t M, N, H, W, C;
  std::int64_t P, Q;

  Shape y() const { return {N, P, Q, C}; }
};

// For N images out of x (M,H,W,C). ValueError unless every size is positive, every number of the
// spec is in its range, and the crop fits into the padded image.
AugmentShape check_augment(const char* op, const Shape& x, std::int64_t N, const AugmentSpec& spec);

// Which random numbers: epoch below 2^40, stream below 2^16.
struct AugmentRandom {
  std::uint64_t seed, epoch, stream;
};

// What was drawn for one image.
struct AugmentDraw {
  bool flip_horizontal, flip_vertical;
  double rotation, shear;   // degrees
  double shift_h, shift_w;  // pixels
  double zoom_h, zoom_w;
  double crop_top, crop_left, crop_height, crop_width;  // the window, in pixels of the image
  double channel_shift, brightness, brightness_shift, contrast, saturation;
  std::int64_t erase_top, erase_left, erase_height, erase_width;  // 0 high: nothing

  // source row = m[0] i + m[1] j + m[2], source column = m[3] i + m[4] j + m[5]
  double m[6];
};
AugmentDraw draw_augment(const AugmentSpec& spec, const AugmentShape& shape,
                         const AugmentRandom& random, std::uint64_t index);

// One call's data. rows: the image of x that y[n] is made of (null: n); indices: the number that
// decides its draw (null: its row). scale and offset (C) may be null (1 and 0).
struct AugmentBatch {
  const void* x;
  DType x_dtype;
  const std::int64_t* rows;
  const std::int64_t* indices;
  const float *scale, *offset;
  void* y;
  DType y_dtype;
};

}  // namespace convlet
