#include "ops/interpolation.h"

#include "core/error.h"

namespace convlet {

Interpolation interpolation_named(const char* op, const std::string& name) {
  if (name == "nearest") return Interpolation::nearest;
  if (name == "bilinear") return Interpolation::bilinear;
  value_error(op, ": expected interpolation \"nearest\" or \"bilinear\", got \"", name, '"');
}

}  // namespace convlet
