// What reductions (ops/reduce.h) do with each value, on vectors.
namespace convlet::CONVLET_ISA {

// How values are joined: from `start` on, one by one.
struct Total {
  CONVLET_HOST_DEVICE static V start() { return zero(); }
  CONVLET_HOST_DEVICE static V join(V total, V value) { return total + value; }
};
struct Largest {
  CONVLET_HOST_DEVICE static V start() { return broadcast(-__builtin_inff()); }
  CONVLET_HOST_DEVICE static V join(V best, V value) {
    return select(is_nan(value), value, max(value, best));
  }
};
struct Smallest {
  CONVLET_HOST_DEVICE static V start() { return broadcast(__builtin_inff()); }
  CONVLET_HOST_DEVICE static V join(V best, V value) {
    return select(is_nan(value), value, min(value, best));
  }
};

// Whether an element of x is (one of) the extreme(s) y.
CONVLET_HOST_DEVICE inline Mask is_extreme(V x, V y) {
  return (x == y) | is_nan(x);
}

}  // namespace convlet::CONVLET_ISA
