// Augmentation (formulas in ops/augment.h): the draws of all images, what some of them need to know
// of their image as a whole, and then one pass over the output, a thread per pixel. Nothing comes
// from the host but the settings, so that a captured step draws anew.
#include "cuda/gpu.cuh"
#include "cuda/launch.h"
#include "cuda/scalar.cuh"
#include "ops/augment_draw.h"
#include "ops/kernels.h"

namespace convlet::cuda {
namespace {

using augment_draw::Choices;

constexpr int kThreads = 256;
constexpr int kFewChannels = 4;  // up to here a pixel's values go to memory through shared memory

// What an image's colours need to know of it: its smallest and largest value, and the mean of its
// grey image; those of the channels follow.
struct ImageValues {
  float low, high, grey;
};

struct AugmentWork {
  AugmentDraw* draws;
  ImageValues* values;
  float* means;  // (N,C)
  double *shift_h, *shift_w;
  std::size_t bytes;
};

AugmentWork augment_work(const AugmentShape& s, const AugmentSpec& spec, void* memory) {
  AugmentWork w;
  w.draws = static_cast<AugmentDraw*>(memory);
  w.shift_h = reinterpret_cast<double*>(w.draws + s.N);
  w.shift_w = w.shift_h + spec.shift_h_choices.size();
  w.means = reinterpret_cast<float*>(w.shift_w + spec.shift_w_choices.size());
  w.values = reinterpret_cast<ImageValues*>(w.means + s.N * s.C);
  w.bytes = static_cast<std::size_t>(s.N) * (sizeof(AugmentDraw) + sizeof(ImageValues)) +
            static_cast<std::size_t>(s.N * s.C) * sizeof(float) +
            (spec.shift_h_choices.size() + spec.shift_w_choices.size()) * sizeof(double);
  return w;
}

// ---------------------------------------------------------------- draws

// Numbers of the host travel as arguments of a kernel, in pieces.
struct ChoicePiece {
  double values[128];
  int count;
};
__global__ void __launch_bounds__(128) write_choices_kernel(ChoicePiece piece, double* to) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < piece.count) to[i] = piece.values[i];
}

Choices write_choices(Context& context, const std::vector<double>& values, double* to) {
  for (std::size_t first = 0; first < values.size(); first += 128) {
    ChoicePiece piece{};
    piece.count = static_cast<int>(std::min<std::size_t>(128, values.size() - first));
    for (int i = 0; i < piece.count; ++i)
      piece.values[i] = values[first + static_cast<std::size_t>(i)];
    launch(context, write_choices_kernel, dim3(1), dim3(128), 0, piece, to + first);
  }
  return {to, static_cast<std::int64_t>(values.size())};
}

__global__ void __launch_bounds__(kThreads)
    draw_kernel(AugmentShape s, AugmentNumbers spec, Choices shift_h, Choices shift_w,
                const RandomStep* random, std::uint64_t stream, const std::int64_t* rows,
                const std::int64_t* indices, AugmentDraw* draws) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; n < s.N;
       n += step) {
    const std::int64_t index = indices ? indices[n] : rows ? rows[n] : n;
    draws[n] = augment_draw::draw(spec, shift_h, shift_w, s, {random->seed, random->step, stream},
                                  static_cast<std::uint64_t>(index));
  }
}

// ---------------------------------------------------------------- the image as a whole

// The sum of a value of all threads, or its largest, for thread 0.
CONVLET_DEVICE double block_sum(double value, double* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) shared[thread] += shared[thread + half];
    __syncthreads();
  }
  const double sum = shared[0];
  __syncthreads();
  return sum;
}
CONVLET_DEVICE float block_max(float value, float* shared) {
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = value;
  __syncthreads();
  for (int half = kThreads / 2; half > 0; half /= 2) {
    if (thread < half) shared[thread] = scalar::max(shared[thread], shared[thread + half]);
    __syncthreads();
  }
  const float largest = shared[0];
  __syncthreads();
  return largest;
}

// A block per image. Sums are of float64, so that whole pixel values add up exactly.
template <class T>
__global__ void __launch_bounds__(kThreads)
    measure_kernel(AugmentShape s, const AugmentDraw* draws, const std::int64_t* rows, const T* x,
                   ImageValues* values, float* means) {
  CONVLET_SHARED(double, sums, [kThreads]);
  CONVLET_SHARED(float, extremes, [kThreads]);
  const std::int64_t pixels = s.H * s.W;
  for (std::int64_t n = blockIdx.x; n < s.N; n += gridDim.x) {
    if (!scalar::measures(draws[n])) continue;
    const T* image = x + (rows ? rows[n] : n) * pixels * s.C;
    float low = static_cast<float>(image[0]), high = low, grey = 0.0f;
    for (std::int64_t c = 0; c < s.C; ++c) {
      double sum = 0.0;
      for (std::int64_t p = threadIdx.x; p < pixels; p += kThreads) {
        const float v = static_cast<float>(image[p * s.C + c]);
        sum += static_cast<double>(v);
        low = scalar::min(v, low);
        high = scalar::max(v, high);
      }
      const auto mean = static_cast<float>(block_sum(sum, sums) / static_cast<double>(pixels));
      grey += s.C == 3 ? scalar::luma(c) * mean : mean / static_cast<float>(s.C);
      if (threadIdx.x == 0) means[n * s.C + c] = mean;
    }
    low = -block_max(-low, extremes);
    high = block_max(high, extremes);
    if (threadIdx.x == 0) values[n] = {low, high, grey};
  }
}

// ---------------------------------------------------------------- the output

// Where a pixel of the output is read: four pixels of the image, as offsets, and the shares of the
// second row and column. No offset: the fill value.
struct PixelSource {
  bool filled;
  std::int32_t rows[2], columns[2];
  float down, across;
};

CONVLET_DEVICE PixelSource source_of(const AugmentShape& s, const AugmentNumbers& spec,
                                     const double* m, std::int32_t i, std::int32_t j) {
  const auto pixel = static_cast<std::int32_t>(s.C), line = static_cast<std::int32_t>(s.W) * pixel;
  if (scalar::is_copy(m)) {
    const auto row = static_cast<std::int64_t>(m[0] * i + m[2]);
    const auto column = static_cast<std::int64_t>(m[4] * j + m[5]);
    const std::int64_t h = scalar::filled(spec.fill, row, s.H);
    const std::int64_t w = scalar::filled(spec.fill, column, s.W);
    const auto at_row = static_cast<std::int32_t>(h) * line;
    const auto at_column = static_cast<std::int32_t>(w) * pixel;
    return {h < 0 || w < 0, {at_row, at_row}, {at_column, at_column}, 0.0f, 0.0f};
  }
  const bool nearest = spec.interpolation == Interpolation::nearest;
  const int lane = j % scalar::kPixels;
  const double first = j - lane;
  const auto rows = scalar::axis_tap(scalar::axis_group(m[0] * i + m[2] + m[1] * first, m[1], s.H),
                                     lane, spec.fill, nearest);
  const auto columns = scalar::axis_tap(
      scalar::axis_group(m[3] * i + m[5] + m[4] * first, m[4], s.W), lane, spec.fill, nearest);
  const auto at = [](float place, std::int32_t unit) {
    return static_cast<std::int32_t>(place) * unit;
  };
  return {rows.inside * columns.inside == 0.0f,
          {at(rows.first, line), at(rows.second, line)},
          {at(columns.first, pixel), at(columns.second, pixel)},
          rows.share,
          columns.share};
}

template <class T>
CONVLET_DEVICE float sample(const T* image, const PixelSource& source, float fill,
                            std::int64_t channel) {
  if (source.filled) return fill;
  auto pixel = [&](int row, int column) {
    return static_cast<float>(image[source.rows[row] + source.columns[column] + channel]);
  };
  const float a = pixel(0, 0), b = pixel(1, 0);
  if (source.across == 0.0f && source.down == 0.0f) return a;
  const float top = fmaf(source.across, pixel(0, 1) - a, a);
  const float bottom = fmaf(source.across, pixel(1, 1) - b, b);
  return fmaf(source.down, bottom - top, top);
}

// The colours of one image, before the three channels of a pixel meet in saturation.
struct Colour {
  bool shifts, gains, saturates;
  float shift, low, high, saturation;
  ImageValues image;
};

CONVLET_DEVICE Colour colour_of(const AugmentDraw& draw, const ImageValues& values) {
  Colour colour;
  colour.shifts = draw.channel_shift != 0;
  colour.gains = scalar::changes_gain(draw);
  colour.saturates = draw.saturation != 1;
  colour.shift = static_cast<float>(draw.channel_shift);
  colour.saturation = static_cast<float>(draw.saturation);
  colour.image = {0.0f, 0.0f, 0.0f};
  if (scalar::measures(draw)) colour.image = values;
  return colour;
}

struct AugmentData {
  const AugmentDraw* draws;
  const ImageValues* values;
  const float* means;
  const std::int64_t* rows;
  const float *scale, *offset;
};

template <class Y>
CONVLET_DEVICE Y stored(float v) {
  if constexpr (sizeof(Y) == 1)
    return scalar::to_byte(v);
  else
    return v;
}

// One image of the call, for the pixels of a thread.
template <class T>
struct AugmentImage {
  const AugmentShape& s;
  const AugmentNumbers& spec;
  const AugmentData& data;
  std::int64_t n;
  const T* image;
  const AugmentDraw& draw;
  Colour colour;

  // Brought to its place and coloured, but for the saturation and what comes after.
  CONVLET_DEVICE float first_colours(const PixelSource& source, std::int64_t c) const {
    float v = sample(image, source, static_cast<float>(spec.fill_value), c);
    if (colour.shifts)
      v = scalar::min(colour.image.high, scalar::max(colour.image.low, v + colour.shift));
    if (colour.gains) {
      float mean = colour.image.grey;
      if (draw.contrast != 1 && spec.contrast_per_channel != 0) mean = data.means[n * s.C + c];
      const auto factors = scalar::colour_factors(draw, mean);
      v = fmaf(v, factors.gain, factors.offset);
    }
    return v;
  }
  CONVLET_DEVICE void saturate(float* v) const {
    const float grey = scalar::luma(0) * v[0] + scalar::luma(1) * v[1] + scalar::luma(2) * v[2];
    for (int c = 0; c < 3; ++c) v[c] = grey + colour.saturation * (v[c] - grey);
  }
  CONVLET_DEVICE bool erased(std::int32_t i, std::int32_t j) const {
    return i >= draw.erase_top && i < draw.erase_top + draw.erase_height && j >= draw.erase_left &&
           j < draw.erase_left + draw.erase_width;
  }
  CONVLET_DEVICE float last_colours(float v, std::int64_t c, bool erase) const {
    if (colour.shifts || colour.gains || colour.saturates)
      v = scalar::min(static_cast<float>(spec.value_high),
                      scalar::max(static_cast<float>(spec.value_low), v));
    if (erase) v = static_cast<float>(spec.erase_value);
    if (data.scale || data.offset)
      v = fmaf(v, data.scale ? data.scale[c] : 1.0f, data.offset ? data.offset[c] : 0.0f);
    return v;
  }
};

// Where element e of a block's pixels lies in shared memory: with an even number of channels, those
// of threads some lanes apart would meet in a bank.
CONVLET_DEVICE std::int32_t place_in_line(std::int32_t e, std::int64_t channels) {
  return channels % 2 == 0 ? e ^ (e / 32 % 4) : e;
}

// A block has kThreads pixels of an image.
template <class T, class Y>
__global__ void __launch_bounds__(kThreads, 3)
    augment_kernel(AugmentShape s, AugmentNumbers spec, AugmentData data, const T* x, Y* y) {
  CONVLET_SHARED(Y, line, [kThreads * kFewChannels]);
  const auto pixels = static_cast<std::int32_t>(s.P * s.Q), Q = static_cast<std::int32_t>(s.Q);
  const std::int64_t tiles = (pixels + kThreads - 1) / kThreads;
  const bool few = s.C <= kFewChannels;
  for (std::int64_t item = blockIdx.x; item < s.N * tiles; item += gridDim.x) {
    const std::int64_t n = item / tiles;
    const auto first = static_cast<std::int32_t>(item % tiles) * kThreads;
    const std::int32_t at = first + static_cast<std::int32_t>(threadIdx.x);
    Y* to = y + n * pixels * s.C;
    const AugmentDraw& draw = data.draws[n];
    const AugmentImage<T> image = {s,
                                   spec,
                                   data,
                                   n,
                                   x + (data.rows ? data.rows[n] : n) * s.H * s.W * s.C,
                                   draw,
                                   colour_of(draw, data.values[n])};
    if (at < pixels) {
      const std::int32_t i = at / Q, j = at % Q;
      const PixelSource source = source_of(s, spec, draw.m, i, j);
      const bool erase = image.erased(i, j);
      if (few) {
        float v[kFewChannels];
        for (int c = 0; c < kFewChannels; ++c)
          if (c < s.C) v[c] = image.first_colours(source, c);
        if (image.colour.saturates) image.saturate(v);
        for (int c = 0; c < kFewChannels; ++c)
          if (c < s.C)
            line[place_in_line(
                static_cast<std::int32_t>(threadIdx.x) * static_cast<std::int32_t>(s.C) + c, s.C)] =
                stored<Y>(image.last_colours(v[c], c, erase));
      } else {
        for (std::int64_t c = 0; c < s.C; ++c)
          to[at * s.C + c] =
              stored<Y>(image.last_colours(image.first_colours(source, c), c, erase));
      }
    }
    if (!few) continue;
    // Out of shared memory side by side: a pixel's own values would leave gaps between threads.
    __syncthreads();
    const auto channels = static_cast<std::int32_t>(s.C);
    const std::int32_t count = min(kThreads, pixels - first) * channels;
    for (auto e = static_cast<std::int32_t>(threadIdx.x); e < count; e += kThreads)
      to[static_cast<std::int64_t>(first) * channels + e] = line[place_in_line(e, s.C)];
    __syncthreads();
  }
}

dim3 blocks_up_to(std::int64_t items) {
  return dim3(static_cast<unsigned>(std::min(items, std::int64_t{1} << 30)));
}

bool is_one(const AugmentRange& range) {
  return range.low == 1 && range.high == 1;
}

template <class T>
void augment_from(Context& context, const AugmentShape& s, const AugmentSpec& spec,
                  const AugmentBatch& batch, const AugmentWork& w) {
  const T* x = static_cast<const T*>(batch.x);
  const bool shifts = spec.channel_shift.low != 0 || spec.channel_shift.high != 0;
  if (shifts || !is_one(spec.contrast))
    launch(context, measure_kernel<T>, blocks_up_to(s.N), dim3(kThreads), 0, s, w.draws, batch.rows,
           x, w.values, w.means);
  const AugmentData data = {w.draws, w.values, w.means, batch.rows, batch.scale, batch.offset};
  const dim3 blocks = blocks_up_to(s.N * ((s.P * s.Q + kThreads - 1) / kThreads));
  const AugmentNumbers& numbers = spec;
  if (batch.y_dtype == DType::uint8)
    launch(context, augment_kernel<T, std::uint8_t>, blocks, dim3(kThreads), 0, s, numbers, data, x,
           static_cast<std::uint8_t*>(batch.y));
  else
    launch(context, augment_kernel<T, float>, blocks, dim3(kThreads), 0, s, numbers, data, x,
           static_cast<float*>(batch.y));
}

}  // namespace

std::size_t augment_workspace(const AugmentShape& s, const AugmentSpec& spec, int) {
  return augment_work(s, spec, nullptr).bytes;
}

void augment(Context& context, const AugmentShape& s, const AugmentSpec& spec,
             const RandomStep* random, std::uint64_t stream, const AugmentBatch& batch,
             void* workspace) {
  const AugmentWork w = augment_work(s, spec, workspace);
  const Choices shift_h = write_choices(context, spec.shift_h_choices, w.shift_h);
  const Choices shift_w = write_choices(context, spec.shift_w_choices, w.shift_w);
  const AugmentNumbers& numbers = spec;
  launch(context, draw_kernel, dim3(blocks_for(context, s.N, kThreads)), dim3(kThreads), 0, s,
         numbers, shift_h, shift_w, random, stream, batch.rows, batch.indices, w.draws);
  if (batch.x_dtype == DType::uint8)
    augment_from<std::uint8_t>(context, s, spec, batch, w);
  else
    augment_from<float>(context, s, spec, batch, w);
}

}  // namespace convlet::cuda
