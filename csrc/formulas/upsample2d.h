// Which pixels make which when images are enlarged (ops/upsample2d.h).
namespace convlet::CONVLET_ISA {

// Where position p of an axis enlarged by `factor` lies between the two neighbours it is made of:
// (1 - share) * x[low] + share * x[high].
struct Neighbours {
  std::int64_t low, high;
  float share;

  CONVLET_HOST_DEVICE Neighbours(std::int64_t p, std::int64_t factor, std::int64_t size) {
    const std::int64_t numerator = larger(0, 2 * p + 1 - factor);
    low = quotient(numerator, 2 * factor);
    high = smaller(low + 1, size - 1);
    share = static_cast<float>(numerator - low * 2 * factor) / static_cast<float>(2 * factor);
  }
  // What x[i] counts here.
  CONVLET_HOST_DEVICE float weight(std::int64_t i) const {
    return (low == i ? 1.0f - share : 0.0f) + (high == i ? share : 0.0f);
  }
};

// f(q, weight) for the positions of the enlarged axis that x[i] counts for.
template <class F>
CONVLET_HOST_DEVICE inline void for_dependents(Interpolation interpolation, std::int64_t i,
                                               std::int64_t factor, std::int64_t size, F f) {
  const bool nearest = interpolation == Interpolation::nearest;
  const std::int64_t first = nearest ? i * factor : larger(0, (i - 1) * factor);
  const std::int64_t last = nearest ? (i + 1) * factor : smaller(size, i + 2) * factor;
  for (std::int64_t q = first; q < last; ++q) {
    const float weight = nearest ? 1.0f : Neighbours(q, factor, size).weight(i);
    if (weight != 0.0f) f(q, weight);
  }
}

}  // namespace convlet::CONVLET_ISA
