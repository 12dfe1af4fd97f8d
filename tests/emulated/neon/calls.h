// Kernels by number, whatever their types: entry i of a table is its member i after the name, and a
// call is an array with a pointer to each argument. Both sides of the emulator read it alike, since
// structs lie in memory the same way on 64-bit ARM and x86-64.
#pragma once
#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "ops/kernels.h"

namespace convlet::emulated {

constexpr std::size_t kEntries = sizeof(Kernels) / sizeof(void*) - 1;

// Becomes, in the place of entry i, a pointer to whatever function stands there: it calls
// Make::template at<i, R, A...>, which gives that pointer.
template <class Make, std::size_t i>
struct Entry {
  Make& make;

  template <class R, class... A>
  using Function = R (*)(A...);
  template <class R, class... A>
  constexpr operator Function<R, A...>() const {
    return make.template at<i, R, A...>();
  }
};

template <class Make, std::size_t... i>
constexpr Kernels table_of(const char* name, Make& make, std::index_sequence<i...>) {
  return {name, Entry<Make, i>{make}...};
}

// The table whose entries `make` makes.
template <class Make>
constexpr Kernels table_of(const char* name, Make& make) {
  return table_of(name, make, std::make_index_sequence<kEntries>());
}

}  // namespace convlet::emulated
