#include "core/device.h"

#include "core/error.h"

namespace convlet {

const char* name_of(Precision precision) {
  constexpr const char* names[] = {"float32", "tf32", "bfloat16"};
  return names[static_cast<int>(precision)];
}

Precision precision_named(const char* what, const std::string& name) {
  for (Precision precision : {Precision::float32, Precision::tf32, Precision::bfloat16})
    if (name == name_of(precision)) return precision;
  value_error(what, ": expected precision \"float32\", \"tf32\" or \"bfloat16\", got \"", name,
              '"');
}

}  // namespace convlet
