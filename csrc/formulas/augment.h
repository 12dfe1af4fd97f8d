// Positions and colours of augmentation (ops/augment.h): those of several output pixels on vectors,
// the rest for one image or row at a time.
namespace convlet::CONVLET_ISA {

// ---------------------------------------------------------------- positions

constexpr int kPixels = 16;  // output pixels whose positions are made together

CONVLET_HOST_DEVICE inline V floor(V a) {
  const V rounded = round(a);
  return rounded - select(rounded > a, broadcast(1.0f), zero());
}

// i and i + 1 (whole numbers) brought into [0, n). Positions stay below 2^24, so floats hold them.
struct Pair {
  V first, second;
};
CONVLET_HOST_DEVICE inline V clamp(V i, float n) {
  return min(max(i, zero()), broadcast(n - 1));
}
CONVLET_HOST_DEVICE inline V reflect(V i, float n) {
  const V period = broadcast(2 * n);
  const V q = i - period * floor((i + broadcast(0.5f)) / period);
  return min(q, period - broadcast(1.0f) - q);
}
CONVLET_HOST_DEVICE inline Pair fill_taps(Fill fill, V i, V share, float n) {
  const V one = broadcast(1.0f);
  if (fill == Fill::reflect) return {reflect(i, n), reflect(i + one, n)};
  if (fill == Fill::wrap && n > 1) {
    const V period = broadcast(n - 1);
    const V q = i - period * floor((i + broadcast(0.5f)) / period);
    // The outer pixels are one place: scipy reads the last below 0 and at n - 1, the first above.
    const Mask last = (share == zero()) & (q == zero()) & ((i < zero()) | (i == period));
    return {select(last, period, q), select(last, period, q + one)};
  }
  return {clamp(i, n), clamp(i + one, n)};
}

// The positions begin, begin + step, ... of kPixels pixels along an axis of n.
struct AxisGroup {
  float whole, fraction, step;  // begin = whole + fraction
  float size;
  bool interior;  // all of them lie between the centres of the outer pixels
};
CONVLET_HOST_DEVICE inline AxisGroup axis_group(double begin, double step, std::int64_t n) {
  const double end = begin + step * (kPixels - 1), last = static_cast<double>(n - 1);
  const bool interior = begin >= 0 && end >= 0 && begin < last && end < last;
  // Relative to a whole number the positions are small, and precise as floats.
  const double whole = std::floor(begin);
  return {static_cast<float>(whole), static_cast<float>(begin - whole), static_cast<float>(step),
          static_cast<float>(n), interior};
}

// The two pixels that a position lies between, and the share of the second; inside: 0 where fill
// mode constant sees its value, else 1.
struct AxisTap {
  V first, second, share, inside;
};
// Of the pixels number `lane` of a group.
CONVLET_HOST_DEVICE inline AxisTap axis_tap(const AxisGroup& group, V lane, Fill fill,
                                            bool nearest) {
  const V position = fma(lane, broadcast(group.step), broadcast(group.fraction));
  const V below = floor(position);
  const V i = below + broadcast(group.whole);
  V share = position - below, inside = broadcast(1.0f);
  Pair pair{i, i + broadcast(1.0f)};
  if (!group.interior) {
    pair = fill_taps(fill, i, share, group.size);
    if (fill == Fill::constant) {
      // An image turned onto itself must not lose its border to rounding.
      constexpr float kRounding = 1e-4f;
      const V at = i + share;
      const Mask outside =
          (at < broadcast(-kRounding)) | (at > broadcast(group.size - 1 + kRounding));
      inside = select(outside, zero(), inside);
    }
  }
  // A rounding step beyond the last whole position may lead to second = n.
  pair = {clamp(pair.first, group.size), clamp(pair.second, group.size)};
  if (nearest) {
    pair.first = select(share < broadcast(0.5f), pair.first, pair.second);
    share = zero();
  }
  return {pair.first, pair.second, share, inside};
}

// ---------------------------------------------------------------- whole pixels

// Whether a map only flips and moves by whole pixels.
CONVLET_HOST_DEVICE inline bool is_copy(const double* m) {
  const bool signs = (m[0] == 1 || m[0] == -1) && (m[4] == 1 || m[4] == -1);
  return signs && m[1] == 0 && m[3] == 0 && m[2] == std::floor(m[2]) && m[5] == std::floor(m[5]);
}

// The pixel at whole position i of an axis of n; -1 for the constant fill.
CONVLET_HOST_DEVICE inline std::int64_t filled(Fill fill, std::int64_t i, std::int64_t n) {
  if (i >= 0 && i < n) return i;
  switch (fill) {
    case Fill::constant:
      return -1;
    case Fill::nearest:
      return i < 0 ? 0 : n - 1;
    case Fill::reflect: {
      const std::int64_t q = (i % (2 * n) + 2 * n) % (2 * n);
      return q < n ? q : 2 * n - 1 - q;
    }
    case Fill::wrap: {
      if (n == 1) return 0;
      const std::int64_t q = (i % (n - 1) + n - 1) % (n - 1);
      return q == 0 && i < 0 ? n - 1 : q;
    }
  }
  return -1;
}

// ---------------------------------------------------------------- colour

// The share of a channel in the grey image; that of each is the same where there are not three.
CONVLET_HOST_DEVICE constexpr float luma(std::int64_t channel) {
  return channel == 0 ? 0.299f : channel == 1 ? 0.587f : 0.114f;
}

// What brightness and contrast make of a value v of a channel: v * gain + offset.
struct ColourFactors {
  float gain, offset;
};
// `mean` is that which the contrast keeps, of the image as it was.
CONVLET_HOST_DEVICE inline ColourFactors colour_factors(const AugmentDraw& draw, float mean) {
  const auto brightness = static_cast<float>(draw.brightness);
  const auto added = static_cast<float>(draw.brightness_shift);
  const auto factor = static_cast<float>(draw.contrast);
  const float centre = (mean + static_cast<float>(draw.channel_shift)) * brightness + added;
  return {brightness * factor, added * factor + centre * (1.0f - factor)};
}

// Whether the draw changes colours at all, and whether it needs to know the whole image for that.
CONVLET_HOST_DEVICE inline bool changes_gain(const AugmentDraw& draw) {
  return draw.brightness != 1 || draw.brightness_shift != 0 || draw.contrast != 1;
}
CONVLET_HOST_DEVICE inline bool measures(const AugmentDraw& draw) {
  return draw.channel_shift != 0 || draw.contrast != 1;
}

// From 0 to 255, rounded; NaN is 0.
CONVLET_HOST_DEVICE inline std::uint8_t to_byte(float value) {
  const float v = value < 0.0f ? 0.0f : value > 255.0f ? 255.0f : value + 0.5f;
  return static_cast<std::uint8_t>(v == v ? v : 0.0f);
}

}  // namespace convlet::CONVLET_ISA
