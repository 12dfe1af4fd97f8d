// In the place of csrc/core/error.h on the emulated processor, which has no exceptions: an error,
// which a kernel never makes, is an instruction that stops the emulator.
#pragma once

namespace convlet {

template <class... Parts>
[[noreturn]] void value_error(const Parts&...) {
  __builtin_trap();
}

template <class... Parts>
[[noreturn]] void type_error(const Parts&...) {
  __builtin_trap();
}

}  // namespace convlet
