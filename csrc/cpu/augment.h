// Augmentation (formulas in ops/augment.h). An image is one piece of work: its draw, then row by
// row resample, colour, erase and store. Draws that only flip and move by whole pixels copy; the
// others read a float copy of the image at positions that are made sixteen at a time.
namespace convlet::CONVLET_ISA {

// Four channels of a pixel, whatever V is.
typedef float Quad __attribute__((vector_size(16)));
inline Quad load_quad(const float* p) {
  Quad a;
  std::memcpy(&a, p, sizeof a);
  return a;
}
inline void store_quad(float* p, Quad a) {
  std::memcpy(p, &a, sizeof a);
}

// Values of channels repeat with this length for C = 1, 2, 3, 4 and every width of V.
constexpr std::int64_t kPattern = 48;
// What loops in whole vectors, quads and pixels may read and write beyond an array's end.
constexpr std::int64_t kSlack = kPattern;

inline std::int64_t pattern_of(std::int64_t C) {
  return C <= 4 ? kPattern : C;
}

// One worker's memory.
struct AugmentMemory {
  float* image;    // the source as floats, or a row of it
  float* row;      // one output row
  float* factors;  // four patterns: gain, shift, scale, offset

  static std::int64_t image_floats(const AugmentShape& s) { return s.H * s.W * s.C + kSlack; }
  static std::int64_t row_floats(const AugmentShape& s) { return (s.Q + kPixels) * s.C + kSlack; }
  static std::int64_t floats(const AugmentShape& s) {
    const std::int64_t all = image_floats(s) + row_floats(s) + 4 * pattern_of(s.C);
    return (all + 15) / 16 * 16;
  }
  AugmentMemory(const AugmentShape& s, void* workspace, int worker)
      : image(static_cast<float*>(workspace) + worker * floats(s)),
        row(image + image_floats(s)),
        factors(row + row_floats(s)) {}
};

inline std::size_t augment_workspace(const AugmentShape& s, const AugmentSpec&, int threads) {
  return static_cast<std::size_t>(AugmentMemory::floats(s) * threads) * sizeof(float);
}

// ---------------------------------------------------------------- positions

// The two pixels along one axis that a position lies between, as offsets, and the share of the
// second; inside: 0 where fill mode constant sees its value.
struct AxisTaps {
  std::int32_t first[kPixels], second[kPixels];
  float share[kPixels];
};

// Positions begin, begin + step, ... along an axis of n pixels, `stride` elements apart.
inline void axis_taps(double begin, double step, std::int64_t n, std::int64_t stride, Fill fill,
                      bool nearest, AxisTaps& taps, float* inside) {
  constexpr float kLane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const AxisGroup group = axis_group(begin, step, n);
  float first[kPixels], second[kPixels];
  for (int k = 0; k < kPixels; k += V::width) {
    const AxisTap tap = axis_tap(group, load(kLane + k), fill, nearest);
    store(first + k, tap.first);
    store(second + k, tap.second);
    store(taps.share + k, tap.share);
    store(inside + k, load(inside + k) * tap.inside);
  }
  const auto unit = static_cast<std::int32_t>(stride);
  for (int k = 0; k < kPixels; ++k) {
    taps.first[k] = static_cast<std::int32_t>(first[k]) * unit;
    taps.second[k] = static_cast<std::int32_t>(second[k]) * unit;
  }
}

// ---------------------------------------------------------------- resampling

inline void sample_one_channel(const float* x, const AxisTaps& rows, const AxisTaps& columns,
                               float* y) {
  float tap[4][kPixels];
  for (int k = 0; k < kPixels; ++k) {
    const float *first = x + rows.first[k], *second = x + rows.second[k];
    tap[0][k] = first[columns.first[k]];
    tap[1][k] = first[columns.second[k]];
    tap[2][k] = second[columns.first[k]];
    tap[3][k] = second[columns.second[k]];
  }
  for (int k = 0; k < kPixels; k += V::width) {
    const V across = load(columns.share + k);
    const V first = load(tap[0] + k), second = load(tap[2] + k);
    const V top = fma(across, load(tap[1] + k) - first, first);
    const V bottom = fma(across, load(tap[3] + k) - second, second);
    store(y + k, fma(load(rows.share + k), bottom - top, top));
  }
}

// C = 3 or 4: each pixel is written with whatever stands in a fourth channel, and the next one
// writes over it.
inline void sample_quads(const float* x, std::int64_t C, const AxisTaps& rows,
                         const AxisTaps& columns, float* y) {
  for (int k = 0; k < kPixels; ++k) {
    const float *first = x + rows.first[k], *second = x + rows.second[k];
    const std::int32_t left = columns.first[k], right = columns.second[k];
    const float across = columns.share[k], down = rows.share[k];
    const Quad a = load_quad(first + left), b = load_quad(second + left);
    const Quad top = a + across * (load_quad(first + right) - a);
    const Quad bottom = b + across * (load_quad(second + right) - b);
    store_quad(y + k * C, top + down * (bottom - top));
  }
}

inline void sample_channels(const float* x, std::int64_t C, const AxisTaps& rows,
                            const AxisTaps& columns, float* y) {
  for (int k = 0; k < kPixels; ++k) {
    const float *first = x + rows.first[k], *second = x + rows.second[k];
    const std::int32_t left = columns.first[k], right = columns.second[k];
    const float across = columns.share[k], down = rows.share[k];
    for (std::int64_t c = 0; c < C; ++c) {
      const float top = first[left + c] + across * (first[right + c] - first[left + c]);
      const float bottom = second[left + c] + across * (second[right + c] - second[left + c]);
      y[k * C + c] = top + down * (bottom - top);
    }
  }
}

inline void resample_row(const AugmentShape& s, const AugmentSpec& spec, const double* m,
                         std::int64_t i, const float* x, float* y) {
  const bool nearest = spec.interpolation == Interpolation::nearest;
  const float fill = static_cast<float>(spec.fill_value);
  const double row = m[0] * static_cast<double>(i) + m[2];
  const double column = m[3] * static_cast<double>(i) + m[5];
  AxisTaps rows, columns;
  for (std::int64_t j = 0; j < s.Q; j += kPixels) {
    const double from = static_cast<double>(j);
    float inside[kPixels];
    for (int k = 0; k < kPixels; k += V::width) store(inside + k, broadcast(1.0f));
    axis_taps(row + m[1] * from, m[1], s.H, s.W * s.C, spec.fill, nearest, rows, inside);
    axis_taps(column + m[4] * from, m[4], s.W, s.C, spec.fill, nearest, columns, inside);
    float* out = y + j * s.C;
    if (s.C == 1)
      sample_one_channel(x, rows, columns, out);
    else if (s.C == 3 || s.C == 4)
      sample_quads(x, s.C, rows, columns, out);
    else
      sample_channels(x, s.C, rows, columns, out);
    if (spec.fill == Fill::constant)
      for (int k = 0; k < kPixels; ++k)
        if (inside[k] == 0.0f)
          for (std::int64_t c = 0; c < s.C; ++c) out[k * s.C + c] = fill;
  }
}

// ---------------------------------------------------------------- whole pixels

// y gets the pixels of x in the opposite order. C = 3: as in sample_quads.
inline void mirror(const float* x, std::int64_t pixels, std::int64_t C, float* y) {
  if (C == 3 || C == 4) {
    for (std::int64_t j = 0; j < pixels; ++j)
      store_quad(y + j * C, load_quad(x + (pixels - 1 - j) * C));
    return;
  }
  for (std::int64_t j = 0; j < pixels; ++j)
    for (std::int64_t c = 0; c < C; ++c) y[j * C + c] = x[(pixels - 1 - j) * C + c];
}

template <class T>
inline void copy_row(const AugmentShape& s, const AugmentSpec& spec, const double* m,
                     std::int64_t i, const T* x, float* scratch, float* y) {
  const auto row = static_cast<std::int64_t>(m[0] * static_cast<double>(i) + m[2]);
  const auto start = static_cast<std::int64_t>(m[5]);
  const std::int64_t step = m[4] > 0 ? 1 : -1, C = s.C;
  const std::int64_t from = filled(spec.fill, row, s.H);
  auto pixel = [&](std::int64_t j) {
    const std::int64_t column = from < 0 ? -1 : filled(spec.fill, start + step * j, s.W);
    for (std::int64_t c = 0; c < C; ++c)
      y[j * C + c] = column < 0 ? static_cast<float>(spec.fill_value)
                                : static_cast<float>(x[(from * s.W + column) * C + c]);
  };
  // Columns [begin, end) of the output lie on the image.
  std::int64_t begin = step > 0 ? -start : start - (s.W - 1);
  std::int64_t end = step > 0 ? s.W - start : start + 1;
  begin = begin < 0 ? 0 : begin;
  end = end > s.Q ? s.Q : end;
  if (from < 0 || begin >= end) begin = end = s.Q;
  for (std::int64_t j = 0; j < begin; ++j) pixel(j);
  if (begin == end) return;
  const T* line = x + (from * s.W + start + step * begin) * C;
  if (step > 0) {
    convert(line, (end - begin) * C, y + begin * C);
  } else {
    convert(line - (end - begin - 1) * C, (end - begin) * C, scratch);
    mirror(scratch, end - begin, C, y + begin * C);
  }
  for (std::int64_t j = end; j < s.Q; ++j) pixel(j);
}

// ---------------------------------------------------------------- colour

// f(i, lanes, p) over a row: vectors and where their values stand in a pattern of channels. With
// more than four channels, one pixel after the other.
template <class F>
inline void for_pattern(std::int64_t n, std::int64_t C, F f) {
  const std::int64_t length = pattern_of(C);
  for (std::int64_t begin = 0; begin < n; begin += length)
    for_vectors(begin, begin + length < n ? begin + length : n,
                [&](std::int64_t i, auto lanes) { f(i, lanes, i - begin); });
}

// What an image's colours need to know of it as a whole.
struct ImageValues {
  float low, high;
  double sum[kPattern];  // by place in the pattern
};

// Sums of the image's channels, and its smallest and largest value. C <= 4.
inline void measure(const float* x, std::int64_t n, ImageValues& values) {
  V low = broadcast(x[0]), high = low;
  for (double& sum : values.sum) sum = 0;
  // Partial sums are short, so that whole pixel values add up exactly.
  constexpr std::int64_t kPart = 64 * kPattern;
  for (std::int64_t part = 0; part < n; part += kPart) {
    const std::int64_t end = part + kPart < n ? part + kPart : n;
    float sums[kPattern] = {};
    for (std::int64_t begin = part; begin < end; begin += kPattern)
      for_vectors(begin, begin + kPattern < end ? begin + kPattern : end,
                  [&](std::int64_t i, auto lanes) {
                    const V a = load(x + i, lanes);
                    store(sums + (i - begin), load(sums + (i - begin)) + a);
                    low = min(keep(a, low, lanes), low);
                    high = max(keep(a, high, lanes), high);
                  });
    for (std::int64_t p = 0; p < kPattern; ++p) values.sum[p] += sums[p];
  }
  values.low = -max_of_lanes(zero() - low);
  values.high = max_of_lanes(high);
}

// The mean of one channel where there are too many for a pattern.
inline float channel_mean(const AugmentShape& s, const float* x, std::int64_t c) {
  double sum = 0;
  for (std::int64_t i = c; i < s.H * s.W * s.C; i += s.C) sum += x[i];
  return static_cast<float>(sum / static_cast<double>(s.H * s.W));
}

// The colour of one image, as patterns of its channels.
struct Colour {
  bool shifts, gains, saturates, clips;
  float shift, image_low, image_high;
  float saturation, low, high;
  float *gain, *offset;       // v * gain + offset
  const float *scale, *base;  // of the output
  bool scales;
};

inline void make_colour(const AugmentShape& s, const AugmentSpec& spec, const AugmentDraw& draw,
                        const float* image, Colour& colour) {
  colour.shifts = draw.channel_shift != 0;
  colour.gains = changes_gain(draw);
  colour.saturates = draw.saturation != 1;
  colour.clips = colour.shifts || colour.gains || colour.saturates;
  if (!colour.clips) return;
  colour.low = static_cast<float>(spec.value_low);
  colour.high = static_cast<float>(spec.value_high);
  colour.shift = static_cast<float>(draw.channel_shift);
  colour.saturation = static_cast<float>(draw.saturation);
  const bool contrast = draw.contrast != 1;
  float mean[4] = {0, 0, 0, 0};
  if (colour.shifts || contrast) {
    ImageValues values;
    measure(image, s.H * s.W * s.C, values);
    colour.image_low = values.low;
    colour.image_high = values.high;
    if (s.C <= 4)
      for (std::int64_t p = 0; p < kPattern; ++p)
        mean[p % s.C] += static_cast<float>(values.sum[p] / static_cast<double>(s.H * s.W));
  }
  float grey = 0;
  if (contrast && spec.contrast_per_channel == 0)
    for (std::int64_t c = 0; c < s.C; ++c) {
      const float own = s.C <= 4 ? mean[c] : channel_mean(s, image, c);
      grey += s.C == 3 ? luma(c) * own : own / static_cast<float>(s.C);
    }
  const std::int64_t length = pattern_of(s.C);
  for (std::int64_t p = 0; p < length; ++p) {
    float centre = grey;
    if (contrast && spec.contrast_per_channel != 0)
      centre = s.C <= 4 ? mean[p % s.C] : channel_mean(s, image, p);
    const ColourFactors factors = colour_factors(draw, centre);
    colour.gain[p] = factors.gain;
    colour.offset[p] = factors.offset;
  }
}

inline void saturate_row(float saturation, std::int64_t pixels, float* row) {
  for (std::int64_t j = 0; j < pixels; ++j) {
    float* v = row + 3 * j;
    const float grey = luma(0) * v[0] + luma(1) * v[1] + luma(2) * v[2];
    for (int c = 0; c < 3; ++c) v[c] = grey + saturation * (v[c] - grey);
  }
}

inline void colour_row(const Colour& colour, std::int64_t n, std::int64_t C, float* row) {
  if (colour.shifts) {
    const V low = broadcast(colour.image_low), high = broadcast(colour.image_high);
    for_vectors(0, n, [&](std::int64_t i, auto lanes) {
      const V v = load(row + i, lanes) + broadcast(colour.shift);
      store(row + i, min(high, max(low, v)), lanes);
    });
  }
  if (colour.gains)
    for_pattern(n, C, [&](std::int64_t i, auto lanes, std::int64_t p) {
      store(row + i,
            fma(load(row + i, lanes), load(colour.gain + p, lanes), load(colour.offset + p, lanes)),
            lanes);
    });
  if (colour.saturates) saturate_row(colour.saturation, n / C, row);
  if (colour.clips)
    for_vectors(0, n, [&](std::int64_t i, auto lanes) {
      // The value stands second in both, so that NaN stays NaN.
      const V v = load(row + i, lanes);
      store(row + i, min(broadcast(colour.high), max(broadcast(colour.low), v)), lanes);
    });
}

// ---------------------------------------------------------------- one image

inline void store_row(const float* row, std::int64_t n, float* y) {
  copy(y, row, n);
}
inline void store_row(const float* row, std::int64_t n, std::uint8_t* y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] = to_byte(row[i]);
}

template <class T, class Y>
inline void augment_image(const AugmentShape& s, const AugmentSpec& spec, const AugmentDraw& draw,
                          const T* x, const Colour& output, const AugmentMemory& memory, Y* y) {
  Colour colour = output;
  const bool copies = is_copy(draw.m);
  if (!copies || measures(draw)) {
    convert(x, s.H * s.W * s.C, memory.image);
    for (std::int64_t i = 0; i < kSlack; ++i) memory.image[s.H * s.W * s.C + i] = 0;
  }
  make_colour(s, spec, draw, memory.image, colour);
  const std::int64_t n = s.Q * s.C;
  for (std::int64_t i = 0; i < s.P; ++i) {
    float* row = memory.row;
    if (copies)
      copy_row(s, spec, draw.m, i, x, memory.image, row);
    else
      resample_row(s, spec, draw.m, i, memory.image, row);
    colour_row(colour, n, s.C, row);
    if (i >= draw.erase_top && i < draw.erase_top + draw.erase_height)
      for (std::int64_t e = 0; e < draw.erase_width * s.C; ++e)
        row[draw.erase_left * s.C + e] = static_cast<float>(spec.erase_value);
    if (colour.scales)
      for_pattern(n, s.C, [&](std::int64_t e, auto lanes, std::int64_t p) {
        store(
            row + e,
            fma(load(row + e, lanes), load(colour.scale + p, lanes), load(colour.base + p, lanes)),
            lanes);
      });
    store_row(row, n, y + i * n);
  }
}

template <class T, class Y>
inline void augment_images(Context& context, const AugmentShape& s, const AugmentSpec& spec,
                           const AugmentRandom& random, const AugmentBatch& batch,
                           void* workspace) {
  const T* x = static_cast<const T*>(batch.x);
  Y* y = static_cast<Y*>(batch.y);
  parallel_for(context, s.N, grain_of(4 * s.P * s.Q * s.C),
               [&](std::int64_t begin, std::int64_t end, int worker) {
                 const AugmentMemory memory(s, workspace, worker);
                 const std::int64_t length = pattern_of(s.C);
                 float *scale = memory.factors + 2 * length, *base = memory.factors + 3 * length;
                 for (std::int64_t p = 0; p < length; ++p) {
                   scale[p] = batch.scale ? batch.scale[p % s.C] : 1.0f;
                   base[p] = batch.offset ? batch.offset[p % s.C] : 0.0f;
                 }
                 Colour colour{};
                 colour.gain = memory.factors;
                 colour.offset = memory.factors + length;
                 colour.scale = scale;
                 colour.base = base;
                 colour.scales = batch.scale || batch.offset;
                 for (std::int64_t n = begin; n < end; ++n) {
                   const std::int64_t source = batch.rows ? batch.rows[n] : n;
                   const std::int64_t index = batch.indices ? batch.indices[n] : source;
                   const AugmentDraw draw =
                       draw_augment(spec, s, random, static_cast<std::uint64_t>(index));
                   augment_image(s, spec, draw, x + source * s.H * s.W * s.C, colour, memory,
                                 y + n * s.P * s.Q * s.C);
                 }
               });
}

inline void augment(Context& context, const AugmentShape& s, const AugmentSpec& spec,
                    const RandomStep* step, std::uint64_t stream, const AugmentBatch& batch,
                    void* workspace) {
  const AugmentRandom random = {step->seed, step->step, stream};
  const bool pixels = batch.x_dtype == DType::uint8;
  if (batch.y_dtype == DType::uint8) {
    if (pixels)
      augment_images<std::uint8_t, std::uint8_t>(context, s, spec, random, batch, workspace);
    else
      augment_images<float, std::uint8_t>(context, s, spec, random, batch, workspace);
  } else if (pixels) {
    augment_images<std::uint8_t, float>(context, s, spec, random, batch, workspace);
  } else {
    augment_images<float, float>(context, s, spec, random, batch, workspace);
  }
}

}  // namespace convlet::CONVLET_ISA
