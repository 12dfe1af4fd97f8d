// How a product of matrices (product.cuh) is cut into blocks: a function of its shape and its
// precision alone, so that every device adds in the same order.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "core/device.h"

namespace convlet::cuda {

constexpr int kDepth = 16;     // terms that a block takes in at a time
constexpr int kPartUnit = 64;  // what the lengths of parts are multiples of
// The tensor cores cut the last bits of every sum they add to, always towards zero: longer sums are
// made of parts, and those are added with rounding.
constexpr std::int64_t kLongestPart = 4608;

struct ProductShape {
  std::int64_t rows, columns, terms;  // of one slice, at most
  std::int64_t slices;                // products of their own: groups, phases, entries of a batch
  std::int64_t elements;              // of the whole result
};

// Rows x columns of the result that one block makes: 128 x wide_columns, 64x64, 128x32, 32x32.
enum class TileKind { wide, square, narrow, small };

// float32, with its three products, needs more registers for each result.
constexpr int wide_columns(Precision precision) {
  return precision == Precision::float32 ? 64 : 128;
}

struct Cut {
  TileKind tile;
  std::int64_t row_tiles, column_tiles, slices, parts;
  std::int64_t part_terms;  // a multiple of kPartUnit

  std::int64_t blocks() const { return row_tiles * column_tiles * slices * parts; }
};

inline std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// Into tiles of `rows` x `columns`, and parts enough to fill a device.
inline Cut cut_into(const ProductShape& s, TileKind tile, std::int64_t rows, std::int64_t columns) {
  constexpr std::int64_t kShortestPart = 256;
  const std::int64_t enough = tile == TileKind::small ? 2048 : 512;  // its blocks are one warp each
  Cut cut = {tile, ceil_div(s.rows, rows), ceil_div(s.columns, columns), s.slices, 1, 0};
  const std::int64_t for_blocks = enough / std::max<std::int64_t>(cut.blocks(), 1);
  const std::int64_t parts = std::max({std::min(s.terms / kShortestPart, for_blocks),
                                       ceil_div(s.terms, kLongestPart), std::int64_t{1}});
  cut.part_terms = ceil_div(ceil_div(s.terms, parts), kPartUnit) * kPartUnit;
  if (s.terms > 0) cut.parts = ceil_div(s.terms, cut.part_terms);
  return cut;
}

inline Cut cut_product(const ProductShape& s, Precision precision) {
  // The gradient of a first layer's weights has a row for each tap of 1 or 3 channels.
  if (s.columns <= 32 && s.rows <= 32) return cut_into(s, TileKind::small, 32, 32);
  if (s.columns <= 32) return cut_into(s, TileKind::narrow, 128, 32);
  // Wide tiles read least from memory, where there are enough of them and not one half is empty.
  constexpr std::int64_t kEnoughWide = 96;
  const std::int64_t columns = wide_columns(precision), tiles = ceil_div(s.columns, columns);
  if (ceil_div(s.columns, 64) * 64 % columns == 0 &&
      ceil_div(s.rows, 128) * tiles * s.slices >= kEnoughWide)
    return cut_into(s, TileKind::wide, 128, columns);
  return cut_into(s, TileKind::square, 64, 64);
}

inline std::size_t product_workspace(const ProductShape& s, Precision precision) {
  const Cut cut = cut_product(s, precision);
  return cut.parts > 1 ? static_cast<std::size_t>(cut.parts * s.elements) * sizeof(float) : 0;
}

}  // namespace convlet::cuda
