// Errors are exceptions that name the operation, the argument, what was expected and what came.
#pragma once
#include <sstream>
#include <stdexcept>
#include <string>

namespace convlet {

// Becomes TypeError (kind type) or ValueError (kind value) in Python; a C++ caller catches Error.
class Error : public std::runtime_error {
 public:
  enum class Kind { value, type };
  Error(Kind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}
  Kind kind() const { return kind_; }

 private:
  Kind kind_;
};

// Concatenates anything that can be streamed.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <class... Parts>
[[noreturn]] void value_error(const Parts&... parts) {
  throw Error(Error::Kind::value, concat(parts...));
}

template <class... Parts>
[[noreturn]] void type_error(const Parts&... parts) {
  throw Error(Error::Kind::type, concat(parts...));
}

}  // namespace convlet
