// Kernels that move rows about or judge them: columns in and out of a wider matrix, zero padding
// and cropping of images, the batch of a step, and the accuracy of predictions.
#include "cuda/convolution.h"
#include "cuda/team.cuh"

namespace convlet::cuda {
namespace {

// Copies the `count` columns from `from_offset` on of rows `from_width` wide to the same number of
// columns elsewhere. An item is a quad of a row.
struct Columns {
  std::int64_t count, from_width, from_offset, to_width, to_offset;
};
__global__ void __launch_bounds__(kThreads)
    copy_columns_kernel(std::int64_t items, Columns s, const float* x, float* y, bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t row = item;
    const std::int64_t at = 4 * take_coordinate(row, (s.count + 3) / 4), left = s.count - at;
    const float* from = x + row * s.from_width + s.from_offset + at;
    store_quad(y + row * s.to_width + s.to_offset + at, load_quad(from, left, wide), left, wide);
  }
}

void copy_columns(Context& context, std::int64_t rows, const Columns& s, const float* x, float* y) {
  const bool wide =
      wide_rows(s.from_width, x + s.from_offset) && wide_rows(s.to_width, y + s.to_offset);
  launch_items(context, copy_columns_kernel, rows * quads_of(s.count), s, x, y, wide);
}

// Images inside a frame. A row of pixels is `count` values, of which `left` and more stand around
// it in the frame.
struct Frame {
  std::int64_t H, rows, top;        // rows of the image, of the frame, above the image
  std::int64_t count, width, left;  // values of a row of the image, of the frame, before the image
};

// An item is a quad of a row of the frame.
__global__ void __launch_bounds__(kThreads)
    pad2d_kernel(std::int64_t items, Frame s, const float* x, float* y, bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t n = item;
    const std::int64_t at = 4 * take_coordinate(n, (s.width + 3) / 4);
    const std::int64_t row = take_coordinate(n, s.rows), h = row - s.top;
    Quad q = quad_of(0.0f);
    if (h >= 0 && h < s.H) {
      const std::int64_t i = at - s.left;
      const float* from = x + (n * s.H + h) * s.count;
      if (wide && i >= 0 && i < s.count) {
        q = load_quad(from + i, 4, true);
      } else if (!wide) {
        for (int k = 0; k < 4; ++k)
          if (i + k >= 0 && i + k < s.count) q[k] = from[i + k];
      }
    }
    store_quad(y + (n * s.rows + row) * s.width + at, q, s.width - at, wide);
  }
}

// An item is a quad of a row of the image.
__global__ void __launch_bounds__(kThreads)
    crop2d_kernel(std::int64_t items, Frame s, const float* dy, float* dx, bool wide) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t n = item;
    const std::int64_t at = 4 * take_coordinate(n, (s.count + 3) / 4), left = s.count - at;
    const std::int64_t h = take_coordinate(n, s.H);
    const float* from = dy + (n * s.rows + s.top + h) * s.width + s.left + at;
    store_quad(dx + (n * s.H + h) * s.count + at, load_quad(from, left, wide), left, wide);
  }
}

Frame frame_of(const Shape& x, std::int64_t top, std::int64_t bottom, std::int64_t left,
               std::int64_t right) {
  const std::int64_t H = x[1], W = x[2], C = x[3];
  return {H, top + H + bottom, top, W * C, (left + W + right) * C, left * C};
}
// Whether a quad of the frame lies inside the image or outside it, never across its edge.
bool wide_frame(const Frame& s, const float* inner, const float* outer) {
  return s.left % 4 == 0 && wide_rows(s.count, inner) && wide_rows(s.width, outer);
}

// Four elements of a row, read at once where the row allows it.
template <class T>
struct alignas(4 * sizeof(T) < 16 ? 4 * sizeof(T) : 16) Four {
  T value[4];
};

// An item is a quad of a row of y.
template <class T>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(std::int64_t items, std::int64_t count, const T* x, BatchRows batch, float* y,
                  bool wide) {
  if (batch.halted()) return;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t row = item;
    const std::int64_t at = 4 * take_coordinate(row, (count + 3) / 4), left = count - at;
    const T* from = x + batch.row(row) * count + at;
    Quad q = quad_of(0.0f);
    if (wide) {
      const Four<T> four = *reinterpret_cast<const Four<T>*>(from);
      for (int k = 0; k < 4; ++k) q[k] = static_cast<float>(four.value[k]);
    } else {
      for (int k = 0; k < 4; ++k)
        if (k < left) q[k] = static_cast<float>(from[k]);
    }
    store_quad(y + row * count + at, q, left, wide);
  }
}

template <class T>
void gather(Context& context, std::int64_t rows, std::int64_t count, const void* x,
            const BatchRows& batch, float* y) {
  const bool aligned = reinterpret_cast<std::uintptr_t>(x) % alignof(Four<T>) == 0;
  launch_items(context, gather_kernel<T>, rows * quads_of(count), count, static_cast<const T*>(x),
               batch, y, aligned && wide_rows(count, y));
}

// An item is an element of y, which is several bytes of a row where those are copied.
template <class T, class Y>
__global__ void __launch_bounds__(kThreads)
    gather_elements_kernel(std::int64_t items, std::int64_t count, const T* x, BatchRows batch,
                           Y* y) {
  if (batch.halted()) return;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t row = item;
    const std::int64_t at = take_coordinate(row, count);
    y[item] = static_cast<Y>(x[batch.row(row) * count + at]);
  }
}

template <class T>
void gather_integers(Context& context, std::int64_t rows, std::int64_t count, const void* x,
                     const BatchRows& batch, std::int32_t* y) {
  launch_items(context, gather_elements_kernel<T, std::int32_t>, rows * count, count,
               static_cast<const T*>(x), batch, y);
}

// Whether rows of `count` bytes are whole elements of T, and begin where one may.
template <class T>
bool has_whole(std::int64_t count, const std::uint8_t* x, const std::uint8_t* y) {
  const auto begin = reinterpret_cast<std::uintptr_t>(x) | reinterpret_cast<std::uintptr_t>(y);
  return count % sizeof(T) == 0 && begin % sizeof(T) == 0;
}

template <class T>
void gather_as(Context& context, std::int64_t rows, std::int64_t count, const std::uint8_t* x,
               const BatchRows& batch, std::uint8_t* y) {
  const std::int64_t elements = count / static_cast<std::int64_t>(sizeof(T));
  launch_items(context, gather_elements_kernel<T, T>, rows * elements, elements,
               reinterpret_cast<const T*>(x), batch, reinterpret_cast<T*>(y));
}

__global__ void __launch_bounds__(kThreads)
    gather_scale_kernel(std::int64_t items, std::int64_t count, const float* weights, double share,
                        BatchRows batch, float* y) {
  if (batch.halted()) return;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const std::int64_t row = scalar::quotient(item, count);
    y[item] =
        static_cast<float>(weights ? static_cast<double>(weights[batch.row(row)]) * share : share);
  }
}

// The position of the first largest value, or -1 when one is NaN.
CONVLET_DEVICE std::int64_t first_largest(const Team& team, const float* x, std::int64_t n,
                                          bool wide) {
  float best = -INFINITY;
  std::int64_t position = n;
  bool nan = false;
  for_own_quads(team, n, [&](std::int64_t c, std::int64_t left) {
    const Quad q = load_quad(x + c, left, wide, -INFINITY);
    for (int k = 0; k < 4; ++k) {
      nan = nan || scalar::is_nan(q[k]);
      if (q[k] > best || position == n) {
        best = q[k];
        position = c + k;
      }
    }
  });
  const float largest = team.largest(best);
  const bool nowhere = team.largest(nan ? 1.0f : 0.0f) > 0.0f;
  position = team.all(best == largest ? position : n, Smaller());
  return nowhere ? -1 : position;
}

struct Accuracy {
  AccuracyKind kind;
  std::int64_t C;
  const float* prediction;
  const std::int32_t* labels;
  const float* targets;
  float* correct;
  bool wide;

  // The share of the row's values on the right side of 0.5. NaN is on neither.
  CONVLET_DEVICE float binary(const Team& team, std::int64_t n, std::int64_t count) const {
    float right = 0.0f;
    for_own_quads(team, count, [&](std::int64_t c, std::int64_t left) {
      const Quad p = load_quad(prediction + n * C + c, left, wide, NAN);
      const Quad t = load_quad(targets + n * C + c, left, wide);
      for (int k = 0; k < 4; ++k)
        right += p[k] > 0.5f ? t[k] == 1.0f : p[k] <= 0.5f && t[k] == 0.0f;
    });
    return team.sum(right) / static_cast<float>(C);
  }

  CONVLET_DEVICE void operator()(const Team& team, std::int64_t n, std::int64_t count) const {
    float result;
    if (kind == AccuracyKind::binary) {
      result = binary(team, n, count);
    } else {
      const std::int64_t label = kind == AccuracyKind::sparse
                                     ? labels[n]
                                     : first_largest(team, targets + n * C, count, wide);
      const std::int64_t guess = first_largest(team, prediction + n * C, count, wide);
      result = label >= 0 && guess == label ? 1.0f : 0.0f;
    }
    if (count > 0 && team.rank() == 0) correct[n] = result;
  }
};

}  // namespace

void copy_to_columns(Context& context, std::int64_t rows, std::int64_t count, const float* x,
                     std::int64_t width, std::int64_t offset, float* y) {
  copy_columns(context, rows, {count, count, 0, width, offset}, x, y);
}

void copy_from_columns(Context& context, std::int64_t rows, std::int64_t count, const float* x,
                       std::int64_t width, std::int64_t offset, float* y) {
  copy_columns(context, rows, {count, width, offset, count, 0}, x, y);
}

void pad2d(Context& context, const Shape& x, std::int64_t top, std::int64_t bottom,
           std::int64_t left, std::int64_t right, const float* x_data, float* y) {
  const Frame s = frame_of(x, top, bottom, left, right);
  launch_items(context, pad2d_kernel, x[0] * s.rows * quads_of(s.width), s, x_data, y,
               wide_frame(s, x_data, y));
}

void crop2d(Context& context, const Shape& x, std::int64_t top, std::int64_t bottom,
            std::int64_t left, std::int64_t right, const float* dy, float* dx) {
  const Frame s = frame_of(x, top, bottom, left, right);
  launch_items(context, crop2d_kernel, x[0] * s.H * quads_of(s.count), s, dy, dx,
               wide_frame(s, dx, dy));
}

void gather_rows(Context& context, std::int64_t rows, std::int64_t count, const void* x,
                 DType dtype, const BatchRows& batch, float* y) {
  switch (dtype) {
    case DType::float32:
      return gather<float>(context, rows, count, x, batch, y);
    case DType::float64:
      return gather<double>(context, rows, count, x, batch, y);
    case DType::uint8:
      return gather<std::uint8_t>(context, rows, count, x, batch, y);
    case DType::int32:
      return gather<std::int32_t>(context, rows, count, x, batch, y);
    case DType::int64:
      return gather<std::int64_t>(context, rows, count, x, batch, y);
  }
}

void gather_labels(Context& context, std::int64_t rows, std::int64_t count, const void* x,
                   DType dtype, const BatchRows& batch, std::int32_t* y) {
  switch (dtype) {
    case DType::uint8:
      return gather_integers<std::uint8_t>(context, rows, count, x, batch, y);
    case DType::int32:
      return gather_integers<std::int32_t>(context, rows, count, x, batch, y);
    case DType::int64:
      return gather_integers<std::int64_t>(context, rows, count, x, batch, y);
    default:
      break;  // labels are integers
  }
}

void gather_bytes(Context& context, std::int64_t rows, std::int64_t count, const std::uint8_t* x,
                  const BatchRows& batch, std::uint8_t* y) {
  if (has_whole<uint4>(count, x, y))
    gather_as<uint4>(context, rows, count, x, batch, y);
  else if (has_whole<std::uint32_t>(count, x, y))
    gather_as<std::uint32_t>(context, rows, count, x, batch, y);
  else
    gather_as<std::uint8_t>(context, rows, count, x, batch, y);
}

void gather_scale(Context& context, std::int64_t rows, std::int64_t count, const float* weights,
                  double share, const BatchRows& batch, float* y) {
  launch_items(context, gather_scale_kernel, rows * count, count, weights, share, batch, y);
}

void accuracy(Context& context, const RowsShape& s, AccuracyKind kind, const float* prediction,
              const void* labels, float* correct) {
  const bool sparse = kind == AccuracyKind::sparse;
  const auto* integers = static_cast<const std::int32_t*>(labels);
  const auto* targets = static_cast<const float*>(labels);
  const bool wide = wide_rows(s.C, prediction) && (sparse || wide_rows(s.C, targets));
  launch_rows(context, s.N, s.C,
              Accuracy{kind, s.C, prediction, sparse ? integers : nullptr,
                       sparse ? nullptr : targets, correct, wide});
}

}  // namespace convlet::cuda
