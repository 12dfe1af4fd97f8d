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
};

// The positions [begin, end) of the enlarged axis that x[i] counts for. Its weight falls off with
// the distance of their centres, but not towards a side where it is the last pixel.
struct Dependents {
  std::int64_t begin, end;

  CONVLET_HOST_DEVICE Dependents(Interpolation interpolation, std::int64_t i, std::int64_t factor,
                                 std::int64_t size) {
    const bool nearest = interpolation == Interpolation::nearest;
    const std::int64_t reach = nearest ? 0 : factor / 2;
    begin = larger(0, i * factor - reach);
    end = smaller(size * factor, (i + 1) * factor + reach);
    centre_ = (2 * i + 1) * factor - 1;
    span_ = static_cast<float>(2 * factor);
    before_ = nearest || i == 0 ? 0.0f : 1.0f;
    after_ = nearest || i == size - 1 ? 0.0f : 1.0f;
    unit_ = 1.0f / span_;
  }
  CONVLET_HOST_DEVICE float weight(std::int64_t q) const {
    const float distance = static_cast<float>(2 * q - centre_);
    const float rising = span_ + before_ * distance, falling = span_ - after_ * distance;
    return unit_ * (rising < falling ? rising : falling);
  }

 private:
  std::int64_t centre_;  // twice that of x[i], as an integer
  float span_, unit_, before_, after_;
};

}  // namespace convlet::CONVLET_ISA
