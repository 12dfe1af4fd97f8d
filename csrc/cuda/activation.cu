// Activations over whole tensors (formulas/activation.h).
#include "cuda/scalar.cuh"
#include "cuda/transform.cuh"

namespace convlet::cuda {
namespace {

template <Activation kind>
struct Activate {
  float alpha;
  CONVLET_DEVICE float operator()(float x) const { return scalar::activate(kind, x, alpha); }
};

template <Activation kind>
struct ActivationGradient {
  float alpha;
  CONVLET_DEVICE float operator()(float dy, float y_or_x) const {
    return scalar::activation_gradient(kind, dy, y_or_x, alpha);
  }
};

}  // namespace

void activation(Context& context, std::int64_t n, Activation kind, float alpha, const float* x,
                float* y) {
  scalar::with_value<Activation, kLastActivation>(kind, [&](auto constant) {
    transform(context, n, x, y, Activate<decltype(constant)::value>{alpha});
  });
}

void activation_backward(Context& context, std::int64_t n, Activation kind, float alpha,
                         const float* dy, const float* y_or_x, float* dx) {
  scalar::with_value<Activation, kLastActivation>(kind, [&](auto constant) {
    transform(context, n, dy, y_or_x, dx, ActivationGradient<decltype(constant)::value>{alpha});
  });
}

}  // namespace convlet::cuda
