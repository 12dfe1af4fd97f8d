// Dropout with counter-based random numbers: element i depends on (seed, stream, step, i) alone
// (RandomStep in ops/kernels.h), so any thread can make any part, and the backward makes it again.
namespace convlet::CONVLET_ISA {

// philox() of core/rng.h for several counters side by side, one in each 64-bit lane of Words.
class ParallelPhilox {
 public:
  static constexpr int kCounters = V::width / 2;
  static constexpr int kNumbers = 4 * kCounters;

  ParallelPhilox(std::uint64_t seed, std::uint64_t stream)
      : c2_(Words{} + stream), c3_(Words{} + (stream >> 32)) {
    // even_pairs and odd_pairs bring this order of counters into 0, 1, 2, ...
    std::uint64_t order[kCounters];
    for (int i = 0; i < kCounters; ++i)
      order[i] = static_cast<std::uint64_t>(i / 2 + i % 2 * (kCounters / 2));
    std::memcpy(&order_, order, sizeof order_);
    std::uint32_t k0 = static_cast<std::uint32_t>(seed);
    std::uint32_t k1 = static_cast<std::uint32_t>(seed >> 32);
    for (int round = 0; round < kRounds; ++round) {
      key0_[round] = Words{} + std::uint64_t{k0};
      key1_[round] = Words{} + std::uint64_t{k1};
      k0 += 0x9E3779B9;
      k1 += 0xBB67AE85;
    }
  }

  // out[i] = uniform(philox(seed, stream, counter + i / 4).word[i % 4]), kNumbers of them. The high
  // halves of c0 to c3 hold remains that no product reads.
  void uniforms(std::uint64_t counter, float* out) const {
    const Words index = order_ + counter;
    Words c0 = index, c1 = index >> 32, c2 = c2_, c3 = c3_;
    for (int round = 0; round < kRounds; ++round) {
      const Words p0 = multiply_low_halves(c0, Words{} + std::uint64_t{0xD2511F53});
      const Words p1 = multiply_low_halves(c2, Words{} + std::uint64_t{0xCD9E8D57});
      c0 = (p1 >> 32) ^ c1 ^ key0_[round];
      c2 = (p0 >> 32) ^ c3 ^ key1_[round];
      c1 = p1;
      c3 = p0;
    }
    constexpr std::uint64_t kLow = 0xffffffffu;
    const Words first = (c0 & kLow) | (c1 << 32), second = (c2 & kLow) | (c3 << 32);
    const Words pairs[] = {even_pairs(first, second), odd_pairs(first, second)};
    std::uint32_t words[kNumbers];
    std::memcpy(words, pairs, sizeof words);
    for (int i = 0; i < kNumbers; ++i) out[i] = uniform(words[i]);
  }

 private:
  static constexpr int kRounds = 10;
  Words order_, c2_, c3_;
  Words key0_[kRounds], key1_[kRounds];
};

inline void dropout(Context& context, std::int64_t n, float rate, const RandomStep* random,
                    std::uint64_t stream, const float* x, float* y) {
  for_elements(context, n, [=](std::int64_t begin, std::int64_t end) {
    const ParallelPhilox philox(random->seed, stream);
    const std::uint64_t first = random->step << 40;
    constexpr int kBatch = ParallelPhilox::kNumbers;
    float u[kBatch];
    for (std::int64_t i = begin; i < end; i += kBatch) {
      philox.uniforms(first + static_cast<std::uint64_t>(i) / 4, u);
      for_vectors(i, i + kBatch < end ? i + kBatch : end, [&](std::int64_t j, auto lanes) {
        const V kept = load(x + j, lanes) / broadcast(1.0f - rate);
        store(y + j, select(load(u + (j - i)) < broadcast(rate), zero(), kept), lanes);
      });
    }
  });
}

}  // namespace convlet::CONVLET_ISA
