// The ARM side: calls a kernel of the NEON table. A program without a main and without a C library;
// the emulator starts it at `call`, once per kernel.
#include <cstring>

#include "calls.h"
#include "cpu/table.h"

// What kernels use of the C library. Mathematics is that of the machine outside: a system call with
// the number of the function.
namespace {

double outside(long function, double first, double second = 0) {
  register long number asm("x8") = function;
  register double x asm("d0") = first;
  register double y asm("d1") = second;
  asm volatile("svc 0" : "+w"(x) : "r"(number), "w"(y));
  return x;
}

}  // namespace

extern "C" double sin(double x) {
  return outside(0, x);
}
extern "C" double cos(double x) {
  return outside(1, x);
}
extern "C" double pow(double x, double y) {
  return outside(2, x, y);
}
extern "C" float powf(float x, float y) {
  return static_cast<float>(outside(2, x, y));
}
extern "C" __attribute__((no_builtin("memcpy"))) void* memcpy(void* to, const void* from,
                                                              std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i)
    static_cast<char*>(to)[i] = static_cast<const char*>(from)[i];
  return to;
}
extern "C" __attribute__((no_builtin("memset"))) void* memset(void* to, int value,
                                                              std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) static_cast<char*>(to)[i] = static_cast<char>(value);
  return to;
}
void operator delete(void*, std::size_t) noexcept {}  // of objects that are never deleted

namespace convlet::emulated {
namespace {

// All the work on the one thread there is, cut in two, as it might be on more.
class OneThread final : public Context {
 public:
  int threads() const override { return 1; }
  void parallel(std::int64_t count, std::int64_t grain, Body body, void* argument) override {
    const std::int64_t first = count > grain ? count / 2 : count;
    if (first) body(argument, 0, first, 0);
    if (first < count) body(argument, first, count, 0);
  }
};
OneThread one_thread;

using Caller = void (*)(void* const* arguments, void* result);

template <class A>
A argument(void* pointer) {
  if constexpr (std::is_same_v<A, Context&>)
    return one_thread;
  else
    return *static_cast<std::remove_reference_t<A>*>(pointer);
}

template <std::size_t i, class R, class... A, std::size_t... j>
void call_entry(void* const* arguments, void* result, std::index_sequence<j...>) {
  R (*kernel)(A...);
  const char* entries = reinterpret_cast<const char*>(&cpu::table_neon()) + sizeof(void*);
  std::memcpy(&kernel, entries + i * sizeof kernel, sizeof kernel);
  if constexpr (std::is_void_v<R>)
    kernel(argument<A>(arguments[j])...);
  else
    *static_cast<R*>(result) = kernel(argument<A>(arguments[j])...);
}

template <std::size_t i, class R, class... A>
void caller(void* const* arguments, void* result) {
  call_entry<i, R, A...>(arguments, result, std::make_index_sequence<sizeof...(A)>());
}

struct Callers {
  std::array<Caller, kEntries> all = {};

  template <std::size_t i, class R, class... A>
  constexpr auto at() -> R (*)(A...) {
    all[i] = caller<i, R, A...>;
    return nullptr;
  }
};

constexpr std::array<Caller, kEntries> callers() {
  Callers made;
  table_of("", made);
  return made.all;
}

constexpr std::array<Caller, kEntries> kCallers = callers();

}  // namespace

extern "C" void call(std::size_t entry, void* const* arguments, void* result) {
  kCallers[entry](arguments, result);
}

}  // namespace convlet::emulated
