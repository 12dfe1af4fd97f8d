// The side of this machine: a table whose kernels hand their arguments to the emulator.
#include <memory>

#include "calls.h"

namespace convlet::emulated {
namespace {

using Emulate = void (*)(std::size_t entry, void* const* arguments, void* result);
Emulate emulate;

template <class A>
void* pointer_to(A& argument) {
  return const_cast<void*>(static_cast<const void*>(std::addressof(argument)));
}

template <std::size_t i, class R, class... A>
R forward(A... arguments) {
  void* pointers[] = {pointer_to(arguments)...};
  if constexpr (std::is_void_v<R>) {
    emulate(i, pointers, nullptr);
  } else {
    R result = {};
    emulate(i, pointers, &result);
    return result;
  }
}

struct Forwarders {
  template <std::size_t i, class R, class... A>
  constexpr auto at() const -> R (*)(A...) {
    return forward<i, R, A...>;
  }
};

constexpr Forwarders forwarders;
constexpr Kernels make_kernels() {
  Kernels made = table_of("neon", forwarders);
  made.conv2d_bytes = {};  // the one way that the NEON table lacks
  return made;
}

constexpr Kernels kernels = make_kernels();

}  // namespace

extern "C" __attribute__((visibility("default"))) const Kernels* table(Emulate with) {
  emulate = with;
  return &kernels;
}

}  // namespace convlet::emulated
