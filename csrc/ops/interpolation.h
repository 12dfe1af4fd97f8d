// How a value between pixels is made: of the nearest one, or of its neighbours by their distance.
#pragma once
#include <string>

namespace convlet {

enum class Interpolation { nearest, bilinear };

// ValueError that names both for another.
Interpolation interpolation_named(const char* op, const std::string& name);

}  // namespace convlet
