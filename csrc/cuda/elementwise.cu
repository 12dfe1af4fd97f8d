// Arithmetic over n elements: y = a + b, y = factor * x + offset.
#include "cuda/transform.cuh"

namespace convlet::cuda {
namespace {

struct Add {
  CONVLET_DEVICE float operator()(float a, float b) const { return a + b; }
};

struct Scale {
  float factor, offset;
  CONVLET_DEVICE float operator()(float x) const { return fmaf(factor, x, offset); }
};

}  // namespace

void add(Context& context, std::int64_t n, const float* a, const float* b, float* y) {
  transform(context, n, a, b, y, Add{});
}

void scale(Context& context, std::int64_t n, float factor, float offset, const float* x, float* y) {
  transform(context, n, x, y, Scale{factor, offset});
}

}  // namespace convlet::cuda
