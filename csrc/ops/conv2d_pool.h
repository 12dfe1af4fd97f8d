// conv2d_pool: y = max_pool2d(act(conv2d(x, w, bias))), act none or relu, for windows that neither
// overlap nor reach into padding. What the convolution makes is never stored as a whole, and what
// no window reads of it is not computed.
// x (N,H,W,C)   w (R,S,C,K)   bias (K,)   y (N,P,Q,K)
// choice (N,P,Q,K) bytes: which pixel of its window, i * window_w + j, the maximum is: the first in
// row-major order, NaN being the largest; kNoChoice where relu is closed. The gradient of the
// convolution is dy there and 0 elsewhere, so the backward reads neither y nor the convolution.
#pragma once
#include <cstdint>

#include "ops/conv2d.h"
#include "ops/pool2d.h"

namespace convlet {

constexpr int kNoChoice = 255;

struct Conv2dPoolShape {
  Conv2dShape conv;  // its P and Q are what the windows read: a last odd row is left out
  Pool2dShape pool;  // of x (N, conv.P, conv.Q, K)
};

// Whether the two can be one: `pool` is of what `conv` makes.
bool conv2d_pool_fits(const Conv2dShape& conv, const Pool2dShape& pool);

// Of two that fit.
Conv2dPoolShape conv2d_pool_shape(Conv2dShape conv, Pool2dShape pool);

}  // namespace convlet
