// What bodies and formulas use everywhere: whole numbers, and constants from values known at run
// time.
namespace convlet::CONVLET_ISA {

CONVLET_HOST_DEVICE constexpr std::int64_t smaller(std::int64_t a, std::int64_t b) {
  return a < b ? a : b;
}
CONVLET_HOST_DEVICE constexpr std::int64_t larger(std::int64_t a, std::int64_t b) {
  return a > b ? a : b;
}
CONVLET_HOST_DEVICE constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) {
  return (a + b - 1) / b;
}

// a / b for a >= 0 and b > 0. Most sizes fit into 32 bits, where dividing takes a fraction of the
// time.
CONVLET_HOST_DEVICE inline std::int64_t quotient(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 32) != 0) return a / b;
  return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
}

// f(std::integral_constant<Enum, value>) for the run-time value of an enum that ends with `last`.
template <class Enum, Enum last, int i = 0, class F>
inline void with_value(Enum value, F&& f) {
  if (static_cast<int>(value) == i) return f(std::integral_constant<Enum, static_cast<Enum>(i)>());
  if constexpr (i < static_cast<int>(last)) with_value<Enum, last, i + 1>(value, f);
}

}  // namespace convlet::CONVLET_ISA
