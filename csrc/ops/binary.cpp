#include "ops/binary.h"

namespace convlet {

const char* name_of(BinaryFunction function) {
  static const char* const names[] = {
      "add",     "subtract",      "multiply", "divide",     "maximum", "minimum",  "power",
      "greater", "greater_equal", "less",     "less_equal", "equal",   "not_equal"};
  return names[static_cast<int>(function)];
}

BinaryFunction binary_function_named(const char* op, const std::string& name) {
  std::string known;
  for (int i = 0; i <= static_cast<int>(kLastBinaryFunction); ++i) {
    BinaryFunction function = static_cast<BinaryFunction>(i);
    if (name == name_of(function)) return function;
    known += concat(i ? ", " : "", name_of(function));
  }
  value_error(op, ": expected function to be one of ", known, ", got '", name, "'");
}

}  // namespace convlet
