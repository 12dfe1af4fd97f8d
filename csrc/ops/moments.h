// Mean and sum of squared distances from it, and how those of two sets of values become those of
// both together (Chan, Golub & LeVeque 1983). Shared by every device.
#pragma once
#include "core/host_device.h"

namespace convlet {

struct Moments {
  double mean, square;
};

// What a and then b more values contribute to the moments of all.
struct Shares {
  double mean, square;  // b / (a + b), a * b / (a + b)
};
CONVLET_HOST_DEVICE inline Shares shares_of(double a, double b) {
  return {b / (a + b), a * (b / (a + b))};
}
CONVLET_HOST_DEVICE inline Moments merged(Moments x, Moments y, Shares shares) {
  const double distance = y.mean - x.mean;
  return {x.mean + distance * shares.mean,
          x.square + y.square + distance * distance * shares.square};
}

}  // namespace convlet
