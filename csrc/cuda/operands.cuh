// Where the operands of a product of matrices lie in memory. A source is seen as lines of columns
// that are next to each other:
//   Matrix   a matrix as it is
//   Patches  line = pixel of a convolution's result, column = term (tap, channel) of its sum: the
//            value of the image that the term takes there, zero outside it
//   Filters  line = input channel, column = term (tap, output channel) of the sum for an input
//            pixel: the weight
// A feed copies one tile of a source after the other into shared memory, with zeros where the
// source has ended.
#pragma once
#include "cuda/product_shape.h"
#include "cuda/ptx.cuh"

namespace convlet::cuda {

// a / b for a >= 0 and b > 0; nearly always both fit in 32 bits, where it is much faster.
CONVLET_DEVICE std::int64_t divide(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
  return a / b;
}

// A position in an array of (any length, middle, low).
struct Digits {
  std::int64_t high;
  int middle, low;
};

struct Radix {
  int middle, low;

  CONVLET_DEVICE Digits digits(std::int64_t index) const {
    const std::int64_t line = divide(index, low), high = divide(line, middle);
    return {high, static_cast<int>(line - high * middle), static_cast<int>(index - line * low)};
  }
  CONVLET_DEVICE Digits sum(Digits a, const Digits& b) const {
    a.low += b.low, a.middle += b.middle, a.high += b.high;
    if (a.low >= low) a.low -= low, ++a.middle;
    if (a.middle >= middle) a.middle -= middle, ++a.high;
    return a;
  }
  CONVLET_DEVICE Digits after(Digits a, int n) const {  // n is small
    for (a.low += n; a.low >= low; a.low -= low)
      if (++a.middle == middle) a.middle = 0, ++a.high;
    return a;
  }
};

struct Matrix {
  const float* data;
  std::int64_t pitch, lines, columns;
  bool vectors;  // every 4 columns from a multiple of 4 on are aligned, and all or none exist

  using Line = std::int64_t;
  using Column = std::int64_t;
  using Place = std::int64_t;
  using Step = std::int64_t;
  CONVLET_DEVICE Line line(std::int64_t index) const { return index; }
  CONVLET_DEVICE Column column(std::int64_t index) const { return index; }
  CONVLET_DEVICE Step line_step(int n) const { return n; }
  CONVLET_DEVICE Step column_step(int n) const { return n; }
  CONVLET_DEVICE void advance_line(Line& line, Step step) const { line += step; }
  CONVLET_DEVICE void advance_column(Column& column, Step step) const { column += step; }
  CONVLET_DEVICE Column after(Column column, int n) const { return column + n; }
  CONVLET_DEVICE Place place(Column column) const { return column; }
  CONVLET_DEVICE bool find(Line line, Place place, std::int64_t* offset) const {
    *offset = line * pitch + place;
    return line < lines && place < columns;
  }
};

// All sizes and coordinates are below kLargestExtent: the sum of two fits in 32 bits, and with
// kOutside it is not inside any image.
constexpr std::int64_t kLargestExtent = std::int64_t{1} << 29;
constexpr unsigned kOutside = 1u << 30;

struct Patches {
  const float* data;
  std::int64_t images, image, row, pixel;  // how many, and elements from one to the next
  int height, width;                       // of an image
  Radix results;                           // P x Q
  int stride_h, stride_w;                  // from one result to the next in the image
  int first_h, first_w;                    // where the first tap of the first result falls
  std::int64_t taps_h;
  Radix terms;       // taps of a row x channels
  int tap_h, tap_w;  // from one tap to the next in the image; may be negative
  bool vectors;

  struct Line {
    Digits at;
    std::int64_t offset;
    unsigned h, w;
  };
  using Column = Digits;
  struct Place {
    std::int64_t offset;
    unsigned h, w;
  };
  using Step = Digits;

  CONVLET_DEVICE Line line_at(const Digits& at) const {
    const int h = at.middle * stride_h + first_h, w = at.low * stride_w + first_w;
    return {at, at.high * image + h * row + w * pixel,
            at.high < images ? static_cast<unsigned>(h) : kOutside, static_cast<unsigned>(w)};
  }
  CONVLET_DEVICE Line line(std::int64_t index) const { return line_at(results.digits(index)); }
  CONVLET_DEVICE Column column(std::int64_t index) const { return terms.digits(index); }
  CONVLET_DEVICE Step line_step(int n) const { return results.digits(n); }
  CONVLET_DEVICE Step column_step(int n) const { return terms.digits(n); }
  CONVLET_DEVICE void advance_line(Line& line, const Step& step) const {
    line = line_at(results.sum(line.at, step));
  }
  CONVLET_DEVICE void advance_column(Column& column, const Step& step) const {
    column = terms.sum(column, step);
  }
  CONVLET_DEVICE Column after(const Column& column, int n) const { return terms.after(column, n); }
  CONVLET_DEVICE Place place(const Column& column) const {
    const std::int64_t h = column.high * tap_h,
                       w = static_cast<std::int64_t>(column.middle) * tap_w;
    return {h * row + w * pixel + column.low,
            column.high < taps_h ? static_cast<unsigned>(h) : kOutside, static_cast<unsigned>(w)};
  }
  CONVLET_DEVICE bool find(const Line& line, const Place& place, std::int64_t* offset) const {
    *offset = line.offset + place.offset;
    return line.h + place.h < static_cast<unsigned>(height) &&
           line.w + place.w < static_cast<unsigned>(width);
  }
};

struct Filters {
  const float* data;
  std::int64_t pitch, lines;  // of an input channel; how many there are
  std::int64_t taps_h;
  Radix terms;                // taps of a row x output channels
  std::int64_t tap_h, tap_w;  // elements from one tap to the next
  bool vectors;

  using Line = std::int64_t;
  using Column = Digits;
  struct Place {
    std::int64_t offset;
    bool valid;
  };
  using Step = Digits;
  CONVLET_DEVICE Line line(std::int64_t index) const { return index; }
  CONVLET_DEVICE Column column(std::int64_t index) const { return terms.digits(index); }
  CONVLET_DEVICE Step column_step(int n) const { return terms.digits(n); }
  CONVLET_DEVICE void advance_column(Column& column, const Step& step) const {
    column = terms.sum(column, step);
  }
  CONVLET_DEVICE Column after(const Column& column, int n) const { return terms.after(column, n); }
  CONVLET_DEVICE Place place(const Column& column) const {
    return {column.high * tap_h + column.middle * tap_w + column.low, column.high < taps_h};
  }
  CONVLET_DEVICE bool find(Line line, const Place& place, std::int64_t* offset) const {
    *offset = line * pitch + place.offset;
    return line < lines && place.valid;
  }
};

// A tile in shared memory holds kDepth terms of `extent` rows or columns of the result. It lies as
// its source does: where a source's columns are terms, as [extent][kDepth], else as
// [kDepth][extent] with the pieces of 8 exchanged so that the 4 x 8 elements that a warp reads at
// once, lines 4 apart, are in different banks.
template <bool columns_are_terms, int extent>
struct TileLayout {
  static constexpr bool kColumnsAreTerms = columns_are_terms;
  static constexpr int kLines = columns_are_terms ? extent : kDepth;
  static constexpr int kColumns = columns_are_terms ? kDepth : extent;

  CONVLET_DEVICE static int offset(int line, int column) {
    if (columns_are_terms) return line * kDepth + column;
    return line * extent + (column ^ ((line / 4 % 4) * 8));
  }
  // Terms 4t to 4t+3 of row or column i.
  CONVLET_DEVICE static void read(const float* tile, int i, int t, float (&value)[4]) {
    if (columns_are_terms) {
      const float4 v = *reinterpret_cast<const float4*>(tile + offset(i, 4 * t));
      value[0] = v.x, value[1] = v.y, value[2] = v.z, value[3] = v.w;
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) value[j] = tile[offset(4 * t + j, i)];
    }
  }
};

template <class Source, class Layout, int threads>
class Feed {
 public:
  // Tiles of the results from `result` on, beginning with `term`.
  CONVLET_DEVICE Feed(const Source& source, std::int64_t result, std::int64_t term)
      : source_(source),
        line_(static_cast<int>(threadIdx.x) / kPieces),
        column_(static_cast<int>(threadIdx.x) % kPieces * 4),
        place_(source.column((Layout::kColumnsAreTerms ? term : result) + column_)) {
#pragma unroll
    for (int i = 0; i < kPasses; ++i)
      lines_[i] = source.line((Layout::kColumnsAreTerms ? result : term) + line_ + i * kAtOnce);
  }

  CONVLET_DEVICE void copy(float* tile) const {
    if (source_.vectors) {
      const auto place = source_.place(place_);
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        std::int64_t offset;
        const bool valid = source_.find(lines_[i], place, &offset);
        copy_async_16(tile + Layout::offset(line_ + i * kAtOnce, column_),
                      source_.data + (valid ? offset : 0), valid);
      }
      return;
    }
    // Lanes 8 apart would meet in a bank: each begins with another of its four elements.
    const int turn = static_cast<int>(threadIdx.x) / 8;
#pragma unroll 1
    for (int j = 0; j < 4; ++j) {
      const int element = (j + turn) % 4;
      const auto place = source_.place(source_.after(place_, element));
#pragma unroll
      for (int i = 0; i < kPasses; ++i) {
        std::int64_t offset;
        const bool valid = source_.find(lines_[i], place, &offset);
        copy_async_4(tile + Layout::offset(line_ + i * kAtOnce, column_) + element,
                     source_.data + (valid ? offset : 0), valid);
      }
    }
  }

  CONVLET_DEVICE void advance() {
    if constexpr (Layout::kColumnsAreTerms) {
      source_.advance_column(place_, step_);
    } else {
#pragma unroll
      for (int i = 0; i < kPasses; ++i) source_.advance_line(lines_[i], step_);
    }
  }

 private:
  static constexpr int kPieces = Layout::kColumns / 4;
  static constexpr int kAtOnce = threads / kPieces;  // lines
  static constexpr int kPasses = Layout::kLines / kAtOnce;
  static_assert(kPasses * kAtOnce == Layout::kLines && kAtOnce * kPieces == threads,
                "no thread is idle");

  CONVLET_DEVICE static typename Source::Step step_of(const Source& source) {
    if constexpr (Layout::kColumnsAreTerms)
      return source.column_step(Layout::kColumns);
    else
      return source.line_step(Layout::kLines);
  }

  const Source& source_;
  const int line_, column_;  // in the tile, of the first piece that this thread copies
  typename Source::Column place_;
  typename Source::Line lines_[kPasses];
  const typename Source::Step step_ = step_of(source_);
};

}  // namespace convlet::cuda
