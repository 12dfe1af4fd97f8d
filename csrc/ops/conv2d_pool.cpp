#include "ops/conv2d_pool.h"

namespace convlet {
namespace {

// Of a larger window the maximum is a small share of the work, and a block of rows takes long.
constexpr std::int64_t kLargestWindow = 4;

}  // namespace

bool conv2d_pool_fits(const Conv2dShape& conv, const Pool2dShape& pool) {
  return conv.groups == 1 && pool.R <= kLargestWindow && pool.S <= kLargestWindow &&
         pool.stride_h == pool.R && pool.stride_w == pool.S && pool.dilation_h == 1 &&
         pool.dilation_w == 1 && pool.pad_top == 0 && pool.pad_left == 0 &&
         pool.P * pool.R <= conv.P && pool.Q * pool.S <= conv.Q;
}

Conv2dPoolShape conv2d_pool_shape(Conv2dShape conv, Pool2dShape pool) {
  conv.P = pool.H = pool.P * pool.R;
  conv.Q = pool.W = pool.Q * pool.S;
  return {conv, pool};
}

}  // namespace convlet
