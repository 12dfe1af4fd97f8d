// Elementwise activations, and the gradient dx = dy * act'(x).
//   relu max(x,0) · sigmoid 1/(1+e^-x) · tanh · silu x*sigmoid(x)
//   gelu x*Phi(x), the exact form with erf (torch's default)
// NaN passes through, relu included, as in torch.
#pragma once
#include <string>

#include "core/tensor.h"

namespace convlet {

enum class Activation { none, relu, sigmoid, tanh, gelu, silu };

// "linear" and "" are none; ValueError that lists the names otherwise.
Activation activation_named(const char* op, const std::string& name);
const char* name_of(Activation activation);

// Whether act'(x) can be had from y = act(x) alone (none, relu, sigmoid, tanh): such an activation
// can be fused into the step before it in training; the others need x.
constexpr bool gradient_from_output(Activation activation) {
  return activation != Activation::gelu && activation != Activation::silu;
}

}  // namespace convlet
