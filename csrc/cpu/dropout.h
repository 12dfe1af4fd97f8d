// Dropout with counter-based random numbers: element i depends on (seed, stream, step, i) alone
// (RandomStep in ops/kernels.h), so any thread can make any part, and the backward makes it again.
namespace convlet::CONVLET_ISA {

// Each of these counters gives four random words.
constexpr int kCounters = V::width / 2;
constexpr int kUniforms = 4 * kCounters;

// uniform(philox(seed, stream, counter + i / 4).word[i % 4]) for 0 <= i < kUniforms: the functions of
// core/rng.h, several counters side by side. The high halves of c0 to c3 hold remains that no product
// reads.
inline void uniforms(std::uint64_t seed, std::uint64_t stream, std::uint64_t counter, float* out) {
  constexpr std::uint64_t kFirst[] = {0, 1, 2, 3, 4, 5, 6, 7};
  constexpr std::uint64_t kLow = 0xffffffffu;
  Words index;
  std::memcpy(&index, kFirst, sizeof index);
  index += counter;
  Words c0 = index, c1 = index >> 32, c2 = Words{} + stream, c3 = Words{} + (stream >> 32);
  std::uint32_t k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const Words p0 = multiply_low_halves(c0, Words{} + std::uint64_t{0xD2511F53});
    const Words p1 = multiply_low_halves(c2, Words{} + std::uint64_t{0xCD9E8D57});
    c0 = (p1 >> 32) ^ c1 ^ std::uint64_t{k0};
    c2 = (p0 >> 32) ^ c3 ^ std::uint64_t{k1};
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  const Words first = (c0 & kLow) | (c1 << 32), second = (c2 & kLow) | (c3 << 32);
  for (int i = 0; i < kCounters; ++i) {
    out[4 * i + 0] = uniform(static_cast<std::uint32_t>(first[i]));
    out[4 * i + 1] = uniform(static_cast<std::uint32_t>(first[i] >> 32));
    out[4 * i + 2] = uniform(static_cast<std::uint32_t>(second[i]));
    out[4 * i + 3] = uniform(static_cast<std::uint32_t>(second[i] >> 32));
  }
}

inline void dropout(Context& context, std::int64_t n, float rate, const RandomStep* random,
                    std::uint64_t stream, const float* x, float* y) {
  const std::uint64_t seed = random->seed, first = random->step << 40;
  for_elements(context, n, [=](std::int64_t begin, std::int64_t end) {
    float u[kUniforms];
    for (std::int64_t i = begin; i < end; i += kUniforms) {
      uniforms(seed, stream, first + static_cast<std::uint64_t>(i) / 4, u);
      for_vectors(i, i + kUniforms < end ? i + kUniforms : end, [&](std::int64_t j, auto lanes) {
        const V kept = load(x + j, lanes) / broadcast(1.0f - rate);
        store(y + j, select(load(u + (j - i)) < broadcast(rate), zero(), kept), lanes);
      });
    }
  });
}

}  // namespace convlet::CONVLET_ISA
