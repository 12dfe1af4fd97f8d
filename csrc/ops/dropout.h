// dropout: y[n,p,c] = kept(n * C + c) ? x[n,p,c] / (1 - rate) : 0. x and y are (N,P,C).
//   one draw per element:             P = 1, C = all elements of a sample
//   one draw per sample and channel:  P = the pixels (Tompson et al. 2015)
//   one draw per sample:              C = 1, P = all elements (Huang et al. 2016)
#pragma once
#include <string>

#include "core/tensor.h"

namespace convlet {

struct DropoutShape {
  std::int64_t N, P, C;
};

// ValueError unless noise is "element", "channel" (x of rank >= 2) or "sample" (rank >= 1).
DropoutShape check_dropout(const char* op, const Shape& x, double rate, const std::string& noise);

}  // namespace convlet
