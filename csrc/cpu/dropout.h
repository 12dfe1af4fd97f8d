// Dropout with counter-based random numbers: element i depends on (seed, stream, step, i) alone
// (RandomStep in ops/kernels.h), so any thread can make any part, and the backward makes it again.
namespace convlet::CONVLET_ISA {

// philox() of core/rng.h for several counters side by side, one in each 64-bit lane of Words. A
// round waits for the one before it: two Words take turns, for 32 numbers at most.
class ParallelPhilox {
 public:
  static constexpr int kCounters = V::width / 2;
  static constexpr int kWays = V::width < 16 ? 2 : 1, kNumbers = kWays * 4 * kCounters;

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
    Words c0[kWays], c1[kWays], c2[kWays], c3[kWays];
    CONVLET_UNROLL
    for (int i = 0; i < kWays; ++i) {
      c0[i] = order_ + (counter + static_cast<std::uint64_t>(i * kCounters));
      c1[i] = c0[i] >> 32;
      c2[i] = c2_;
      c3[i] = c3_;
    }
    for (int round = 0; round < kRounds; ++round) {
      CONVLET_UNROLL
      for (int i = 0; i < kWays; ++i) {
        const Words p0 = multiply_low_halves(c0[i], Words{} + std::uint64_t{0xD2511F53});
        const Words p1 = multiply_low_halves(c2[i], Words{} + std::uint64_t{0xCD9E8D57});
        c0[i] = (p1 >> 32) ^ c1[i] ^ key0_[round];
        c2[i] = (p0 >> 32) ^ c3[i] ^ key1_[round];
        c1[i] = p1;
        c3[i] = p0;
      }
    }
    constexpr std::uint64_t kLow = 0xffffffffu;
    std::uint32_t words[kNumbers];
    CONVLET_UNROLL
    for (int i = 0; i < kWays; ++i) {
      const Words first = (c0[i] & kLow) | (c1[i] << 32), second = (c2[i] & kLow) | (c3[i] << 32);
      const Words pairs[] = {even_pairs(first, second), odd_pairs(first, second)};
      std::memcpy(words + i * 4 * kCounters, pairs, sizeof pairs);
    }
    for (int i = 0; i < kNumbers; ++i) out[i] = uniform(words[i]);
  }

 private:
  static constexpr int kRounds = 10;
  Words order_, c2_, c3_;
  Words key0_[kRounds], key1_[kRounds];
};

// One draw per element.
inline void dropout_elements(Context& context, std::int64_t n, float rate, const RandomStep* random,
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

// uniform number i of the step.
inline float uniform_at(const RandomStep* random, std::uint64_t stream, std::int64_t i) {
  const std::uint64_t counter = (random->step << 40) + static_cast<std::uint64_t>(i) / 4;
  return uniform(convlet::philox(random->seed, stream, counter).word[i % 4]);
}

// One draw for all elements of a row of P * C that share a channel: a block of channels at a time.
inline void dropout_row(const DropoutShape& s, std::int64_t n, float rate, const RandomStep* random,
                        std::uint64_t stream, const float* x, float* y) {
  constexpr std::int64_t kBlock = 64;
  for (std::int64_t first = 0; first < s.C; first += kBlock) {
    const std::int64_t channels = s.C - first < kBlock ? s.C - first : kBlock;
    float u[kBlock];
    for (std::int64_t c = 0; c < channels; ++c)
      u[c] = uniform_at(random, stream, n * s.C + first + c);
    for (std::int64_t p = 0; p < s.P; ++p) {
      const std::int64_t at = p * s.C + first;
      for_vectors(0, channels, [&](std::int64_t c, auto lanes) {
        const V kept = load(x + at + c, lanes) / broadcast(1.0f - rate);
        store(y + at + c, select(load(u + c, lanes) < broadcast(rate), zero(), kept), lanes);
      });
    }
  }
}

inline void dropout(Context& context, const DropoutShape& s, float rate, const RandomStep* random,
                    std::uint64_t stream, const float* x, float* y) {
  const std::int64_t size = s.P * s.C;
  if (s.P == 1) return dropout_elements(context, s.N * s.C, rate, random, stream, x, y);
  parallel_for(context, s.N, grain_of(size), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t n = begin; n < end; ++n) {
      const float* from = x + n * size;
      float* to = y + n * size;
      if (s.C > 1) {
        dropout_row(s, n, rate, random, stream, from, to);
        continue;
      }
      const bool dropped = uniform_at(random, stream, n) < rate;
      const V divisor = broadcast(1.0f - rate);
      for_vectors(0, size, [&](std::int64_t i, auto lanes) {
        store(to + i, dropped ? zero() : load(from + i, lanes) / divisor, lanes);
      });
    }
  });
}

}  // namespace convlet::CONVLET_ISA
