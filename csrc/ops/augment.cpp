#include "ops/augment.h"

#include <cmath>

#include "core/rng.h"

namespace convlet {
namespace {

constexpr double kPi = 3.14159265358979323846;
// Bounds that keep every position exact enough in float32: see csrc/cpu/augment.h.
constexpr std::int64_t kMostSize = 32767;
constexpr double kMostZoom = 100, kMostShift = 1e6;

struct NumberField {
  const char* name;
  double AugmentSpec::* field;
};
constexpr NumberField kNumbers[] = {
    {"flip_horizontal", &AugmentSpec::flip_horizontal},
    {"flip_vertical", &AugmentSpec::flip_vertical},
    {"shift_h_share", &AugmentSpec::shift_h_share},
    {"shift_w_share", &AugmentSpec::shift_w_share},
    {"shift_h_whole", &AugmentSpec::shift_h_whole},
    {"shift_w_whole", &AugmentSpec::shift_w_whole},
    {"zoom_together", &AugmentSpec::zoom_together},
    {"height", &AugmentSpec::height},
    {"width", &AugmentSpec::width},
    {"padding", &AugmentSpec::padding},
    {"crop_centre", &AugmentSpec::crop_centre},
    {"contrast_per_channel", &AugmentSpec::contrast_per_channel},
    {"value_low", &AugmentSpec::value_low},
    {"value_high", &AugmentSpec::value_high},
    {"erase", &AugmentSpec::erase},
    {"erase_value", &AugmentSpec::erase_value},
    {"fill_value", &AugmentSpec::fill_value},
};

struct RangeField {
  const char *low, *high;
  AugmentRange AugmentSpec::* field;
  double least, most;
};
constexpr double kAny = 1e30;
constexpr RangeField kRanges[] = {
    {"rotation_low", "rotation_high", &AugmentSpec::rotation, -kAny, kAny},
    {"shear_low", "shear_high", &AugmentSpec::shear, -89, 89},
    {"shift_h_low", "shift_h_high", &AugmentSpec::shift_h, -kMostShift, kMostShift},
    {"shift_w_low", "shift_w_high", &AugmentSpec::shift_w, -kMostShift, kMostShift},
    {"zoom_h_low", "zoom_h_high", &AugmentSpec::zoom_h, 1e-3, kMostZoom},
    {"zoom_w_low", "zoom_w_high", &AugmentSpec::zoom_w, 1e-3, kMostZoom},
    {"crop_area_low", "crop_area_high", &AugmentSpec::crop_area, 0, 1},
    {"crop_ratio_low", "crop_ratio_high", &AugmentSpec::crop_ratio, 1e-3, 1e3},
    {"channel_shift_low", "channel_shift_high", &AugmentSpec::channel_shift, -kAny, kAny},
    {"brightness_low", "brightness_high", &AugmentSpec::brightness, 0, kAny},
    {"brightness_shift_low", "brightness_shift_high", &AugmentSpec::brightness_shift, -kAny, kAny},
    {"contrast_low", "contrast_high", &AugmentSpec::contrast, 0, kAny},
    {"saturation_low", "saturation_high", &AugmentSpec::saturation, 0, kAny},
    {"erase_area_low", "erase_area_high", &AugmentSpec::erase_area, 0, 1},
    {"erase_ratio_low", "erase_ratio_high", &AugmentSpec::erase_ratio, 1e-3, 1e3},
};

void check_number(const char* op, const char* name, double value, double least, double most) {
  if (!(value >= least && value <= most))
    value_error(op, ": expected ", name, " in [", least, ",", most, "], got ", value);
}

void check_spec(const char* op, const AugmentSpec& spec) {
  for (const RangeField& range : kRanges) {
    const AugmentRange& value = spec.*range.field;
    check_number(op, range.low, value.low, range.least, range.most);
    check_number(op, range.high, value.high, range.least, range.most);
    if (value.low > value.high)
      value_error(op, ": expected ", range.low, " of at most ", range.high, ", got ", value.low,
                  " and ", value.high);
  }
  check_number(op, "flip_horizontal", spec.flip_horizontal, 0, 1);
  check_number(op, "flip_vertical", spec.flip_vertical, 0, 1);
  check_number(op, "erase", spec.erase, 0, 1);
  for (const auto* choices : {&spec.shift_h_choices, &spec.shift_w_choices})
    for (double choice : *choices)
      check_number(op, "each choice of a shift", choice, -kMostShift, kMostShift);
  for (double value : {spec.fill_value, spec.erase_value, spec.value_low, spec.value_high})
    check_number(op, "fill_value, erase_value and the value range", value, -kAny, kAny);
  if (spec.value_low > spec.value_high)
    value_error(op, ": expected value_low of at most value_high, got ", spec.value_low, " and ",
                spec.value_high);
  for (double size : {spec.height, spec.width, spec.padding})
    if (!(size >= 0 && size <= double{kMostSize} && size == std::floor(size)))
      value_error(op, ": expected height, width and padding to be whole numbers in [0,", kMostSize,
                  "], got ", size);
}

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
  Draws(const AugmentRandom& random, std::uint64_t index) {
    // Another key than dropout's, which uses the same seed.
    constexpr std::uint64_t kKey = 0x6175676d656e7421;
    const std::uint64_t first = random.epoch << 24 | random.stream << 8;
    for (std::uint64_t block = 0; block < kPlaces / 4; ++block) {
      const Philox words = philox(random.seed ^ kKey, index, first | block);
      for (int i = 0; i < 4; ++i) words_[block * 4 + static_cast<std::uint64_t>(i)] = words.word[i];
    }
  }

  // In (0, 1).
  double uniform(Place place) const { return (words_[place] + 0.5) * 0x1p-32; }
  double in(Place place, const AugmentRange& range) const {
    return range.low + uniform(place) * (range.high - range.low);
  }
  // Uniform in the logarithm: a ratio and its inverse are equally likely.
  double ratio(Place place, const AugmentRange& range) const {
    return range.low * std::pow(range.high / range.low, uniform(place));
  }
  // A whole number in [0, count).
  double whole(Place place, double count) const { return std::floor(uniform(place) * count); }

 private:
  static_assert(kPlaces % 4 == 0, "words come in fours");
  std::uint32_t words_[kPlaces];
};

double draw_shift(const Draws& draws, Place place, Place sign, const AugmentRange& range,
                  const std::vector<double>& choices, double whole, double size) {
  if (!choices.empty()) {
    const auto chosen = draws.whole(place, static_cast<double>(choices.size()));
    const double shift = choices[static_cast<std::size_t>(chosen)] * size;
    return draws.uniform(sign) < 0.5 ? -shift : shift;
  }
  const double low = range.low * size, high = range.high * size;
  if (whole == 0) return draws.in(place, {low, high});
  return std::ceil(low) + draws.whole(place, std::floor(high) - std::ceil(low) + 1);
}

void draw_window(const Draws& draws, const AugmentSpec& spec, const AugmentShape& s,
                 AugmentDraw& draw) {
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

void draw_erased(const Draws& draws, const AugmentSpec& spec, const AugmentShape& s,
                 AugmentDraw& draw) {
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
Affine operator*(const Affine& a, const Affine& b) {
  return {a.xx * b.xx + a.xy * b.yx, a.xx * b.xy + a.xy * b.yy, a.xx * b.x + a.xy * b.y + a.x,
          a.yx * b.xx + a.yy * b.yx, a.yx * b.xy + a.yy * b.yy, a.yx * b.x + a.yy * b.y + a.y};
}

// Exact for right angles, so that they turn an image onto itself.
double sine(double degrees) {
  const double quarters = degrees / 90;
  if (quarters == std::floor(quarters)) {
    const double left = std::fmod(quarters, 4);  // -3 ... 3
    return left == 1 || left == -3 ? 1 : left == -1 || left == 3 ? -1 : 0;
  }
  return std::sin(degrees * kPi / 180);
}
double cosine(double degrees) {
  const double quarters = degrees / 90;
  return quarters == std::floor(quarters) ? sine(degrees + 90) : std::cos(degrees * kPi / 180);
}

void compose(const AugmentShape& s, AugmentDraw& draw) {
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

}  // namespace

Fill fill_named(const char* op, const std::string& name) {
  if (name == "constant") return Fill::constant;
  if (name == "nearest") return Fill::nearest;
  if (name == "reflect") return Fill::reflect;
  if (name == "wrap") return Fill::wrap;
  value_error(op,
              ": expected a fill mode \"constant\", \"nearest\", \"reflect\" or \"wrap\", got \"",
              name, '"');
}

void set_number(const char* op, AugmentSpec& spec, const std::string& name, double value) {
  for (const NumberField& number : kNumbers)
    if (name == number.name) {
      spec.*number.field = value;
      return;
    }
  for (const RangeField& range : kRanges) {
    if (name == range.low) (spec.*range.field).low = value;
    if (name == range.high) (spec.*range.field).high = value;
    if (name == range.low || name == range.high) return;
  }
  std::string known;
  for (const char* number : augment_numbers())
    known += (known.empty() ? "" : ", ") + std::string(number);
  value_error(op, ": there is no setting '", name, "'; expected one of ", known);
}

std::vector<const char*> augment_numbers() {
  std::vector<const char*> names;
  for (const NumberField& number : kNumbers) names.push_back(number.name);
  for (const RangeField& range : kRanges) {
    names.push_back(range.low);
    names.push_back(range.high);
  }
  return names;
}

AugmentShape check_augment(const char* op, const Shape& x, std::int64_t N,
                           const AugmentSpec& spec) {
  check_spec(op, spec);
  if (x.rank() != 4) value_error(op, ": expected x (N,H,W,C), got shape ", x);
  AugmentShape s{x[0], N, x[1], x[2], x[3], 0, 0};
  if (s.H < 1 || s.W < 1 || s.C < 1 || s.H > kMostSize || s.W > kMostSize || s.C > kMostSize)
    value_error(op, ": expected images with sizes in [1,", kMostSize, "], got x of shape ", x);
  s.P = spec.height > 0 ? static_cast<std::int64_t>(spec.height) : s.H;
  s.Q = spec.width > 0 ? static_cast<std::int64_t>(spec.width) : s.W;
  constexpr std::int64_t kMostElements = std::int64_t{1} << 30;  // offsets are 32 bits
  if (Shape{s.H, s.W, s.C}.elements(op) > kMostElements ||
      Shape{s.P, s.Q, s.C}.elements(op) > kMostElements)
    value_error(op, ": expected images of at most 2^30 values, got ", Shape{s.H, s.W, s.C}, " to ",
                Shape{s.P, s.Q, s.C});
  const auto padding = static_cast<std::int64_t>(spec.padding);
  if (spec.crop_area.high <= 0 && (s.P > s.H + 2 * padding || s.Q > s.W + 2 * padding))
    value_error(op, ": expected a crop of at most ", Shape{s.H, s.W}, " plus padding ", padding,
                ", got ", Shape{s.P, s.Q});
  if ((spec.saturation.low != 1 || spec.saturation.high != 1) && s.C != 3)
    value_error(op, ": saturation needs images of 3 channels, got x of shape ", x);
  return s;
}

AugmentDraw draw_augment(const AugmentSpec& spec, const AugmentShape& shape,
                         const AugmentRandom& random, std::uint64_t index) {
  const Draws draws(random, index);
  AugmentDraw draw;
  draw.flip_horizontal = draws.uniform(kFlipHorizontal) < spec.flip_horizontal;
  draw.flip_vertical = draws.uniform(kFlipVertical) < spec.flip_vertical;
  draw.rotation = draws.in(kRotation, spec.rotation);
  draw.shear = draws.in(kShear, spec.shear);
  draw.shift_h =
      draw_shift(draws, kShiftH, kShiftHSign, spec.shift_h, spec.shift_h_choices,
                 spec.shift_h_whole, spec.shift_h_share != 0 ? static_cast<double>(shape.H) : 1.0);
  draw.shift_w =
      draw_shift(draws, kShiftW, kShiftWSign, spec.shift_w, spec.shift_w_choices,
                 spec.shift_w_whole, spec.shift_w_share != 0 ? static_cast<double>(shape.W) : 1.0);
  draw.zoom_h = draws.in(kZoomH, spec.zoom_h);
  draw.zoom_w = spec.zoom_together != 0 ? draw.zoom_h : draws.in(kZoomW, spec.zoom_w);
  draw_window(draws, spec, shape, draw);
  draw.channel_shift = draws.in(kChannelShift, spec.channel_shift);
  draw.brightness = draws.in(kBrightness, spec.brightness);
  draw.brightness_shift = draws.in(kBrightnessShift, spec.brightness_shift);
  draw.contrast = draws.in(kContrast, spec.contrast);
  draw.saturation = draws.in(kSaturation, spec.saturation);
  draw_erased(draws, spec, shape, draw);
  compose(shape, draw);
  return draw;
}

}  // namespace convlet
