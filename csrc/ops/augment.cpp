#include "ops/augment.h"

#include <cmath>

#include "ops/augment_draw.h"

namespace convlet {
namespace {

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
  auto choices = [](const std::vector<double>& values) {
    return augment_draw::Choices{values.data(), static_cast<std::int64_t>(values.size())};
  };
  return augment_draw::draw(spec, choices(spec.shift_h_choices), choices(spec.shift_w_choices),
                            shape, random, index);
}

}  // namespace convlet
