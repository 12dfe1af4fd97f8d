#include "ops/activation.h"

#include <limits>

namespace convlet {

const char* name_of(Activation activation) {
  switch (activation) {
    case Activation::none:
      return "linear";
    case Activation::relu:
      return "relu";
    case Activation::sigmoid:
      return "sigmoid";
    case Activation::tanh:
      return "tanh";
    case Activation::gelu:
      return "gelu";
    case Activation::silu:
      return "silu";
    case Activation::relu6:
      return "relu6";
    case Activation::leaky_relu:
      return "leaky_relu";
    case Activation::elu:
      return "elu";
    case Activation::selu:
      return "selu";
    case Activation::softplus:
      return "softplus";
    case Activation::exponential:
      return "exponential";
    case Activation::hard_sigmoid:
      return "hard_sigmoid";
    case Activation::hard_swish:
      return "hard_swish";
  }
  return "?";
}

Activation activation_named(const char* op, const std::string& name) {
  if (name.empty()) return Activation::none;
  std::string known;
  for (int i = 0; i <= static_cast<int>(kLastActivation); ++i) {
    Activation activation = static_cast<Activation>(i);
    if (name == name_of(activation)) return activation;
    known += concat(i ? ", " : "", '"', name_of(activation), '"');
  }
  value_error(op, ": expected activation to be one of ", known, ", got \"", name, "\"");
}

float check_alpha(const char* op, const char* name, double alpha) {
  if (!(alpha >= 0 && alpha <= std::numeric_limits<float>::max()))
    value_error(op, ": expected ", name, " to be a finite number of at least 0, got ", alpha);
  return static_cast<float>(alpha);
}

}  // namespace convlet
