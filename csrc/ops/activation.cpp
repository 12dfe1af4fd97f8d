#include "ops/activation.h"

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
  }
  return "?";
}

Activation activation_named(const char* op, const std::string& name) {
  if (name.empty()) return Activation::none;
  for (Activation activation : {Activation::none, Activation::relu, Activation::sigmoid,
                                Activation::tanh, Activation::gelu, Activation::silu})
    if (name == name_of(activation)) return activation;
  value_error(op, ": expected activation \"linear\", \"relu\", \"sigmoid\", \"tanh\", \"gelu\" or ",
              "\"silu\", got \"", name, "\"");
}

}  // namespace convlet
