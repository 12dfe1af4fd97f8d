#include "ops/unary.h"

namespace convlet {

const char* name_of(UnaryFunction function) {
  static const char* const names[] = {"exp",    "log", "log1p",    "sqrt",       "rsqrt",
                                      "square", "abs", "negative", "reciprocal", "sign"};
  return names[static_cast<int>(function)];
}

UnaryFunction unary_function_named(const char* op, const std::string& name) {
  std::string known;
  for (int i = 0; i <= static_cast<int>(kLastUnaryFunction); ++i) {
    UnaryFunction function = static_cast<UnaryFunction>(i);
    if (name == name_of(function)) return function;
    known += concat(i ? ", " : "", name_of(function));
  }
  value_error(op, ": expected function to be one of ", known, ", got '", name, "'");
}

}  // namespace convlet
