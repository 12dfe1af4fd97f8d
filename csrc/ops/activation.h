// Elementwise activations, and the gradient dx = dy * act'(x).
//   relu max(x,0) · sigmoid 1/(1+e^-x) · tanh · silu x*sigmoid(x) · exponential e^x
//   gelu x*Phi(x), the exact form with erf (torch's default) · softplus log(1+e^x)
//   relu6 min(max(x,0), alpha), alpha 6 · leaky_relu x > 0 ? x : alpha*x, alpha 0.2 as in Keras
//   elu x > 0 ? x : alpha*(e^x - 1), alpha 1 · selu s*(x > 0 ? x : a*(e^x - 1)), s = 1.0507...,
//   a = 1.6732... (Klambauer et al. 2017)
//   hard_sigmoid min(max(x+3,0),6)/6 · hard_swish x*hard_sigmoid(x) (Howard et al. 2019)
// NaN passes through, relu included, as in torch.
#pragma once
#include <string>

#include "core/host_device.h"
#include "core/tensor.h"

namespace convlet {

enum class Activation {
  none,
  relu,
  sigmoid,
  tanh,
  gelu,
  silu,
  relu6,
  leaky_relu,
  elu,
  selu,
  softplus,
  exponential,
  hard_sigmoid,
  hard_swish,
};
constexpr Activation kLastActivation = Activation::hard_swish;

// "linear" and "" are none; ValueError that lists the names otherwise.
Activation activation_named(const char* op, const std::string& name);
const char* name_of(Activation activation);

// The number that relu6, leaky_relu and elu take; 0 for the others. Where an activation is the
// epilogue of another kernel it has this value.
CONVLET_HOST_DEVICE constexpr float default_alpha(Activation activation) {
  return activation == Activation::relu6        ? 6.0f
         : activation == Activation::leaky_relu ? 0.2f
         : activation == Activation::elu        ? 1.0f
                                                : 0.0f;
}
// ValueError unless alpha is finite and >= 0 (what the gradient from the output needs).
float check_alpha(const char* op, const char* name, double alpha);

// Whether act'(x) can be had from y = act(x) alone: such an activation can be fused into the step
// before it in training; the others need x.
CONVLET_HOST_DEVICE constexpr bool gradient_from_output(Activation activation) {
  return activation != Activation::gelu && activation != Activation::silu &&
         activation != Activation::hard_sigmoid && activation != Activation::hard_swish;
}

}  // namespace convlet
