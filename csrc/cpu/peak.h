// Not an op: multiply-adds in registers alone, the ceiling that benchmarks compare kernels with.
namespace convlet::CONVLET_ISA {

// As many independent chains as the tiles of gemm.h have accumulators, `rounds` steps each, from
// values that the compiler does not know. Returns a value that depends on all of them. So nothing
// is left out.
template <class Product>
__attribute__((noinline)) inline float fma_chains(std::int64_t rounds, float start) {
  constexpr int kChains = kVectorRegisters * 3 / 4;
  V sum[kChains];
  CONVLET_UNROLL
  for (int i = 0; i < kChains; ++i) sum[i] = broadcast(start + static_cast<float>(i));
  const V factor = broadcast(0.5f), term = broadcast(1.0f);
  for (std::int64_t round = 0; round < rounds; ++round) CONVLET_UNROLL
  for (int i = 0; i < kChains; ++i)
    sum[i] = Product::converts ? Product::multiply_add(factor, term, sum[i])
                               : Product::multiply_add(sum[i], factor, term);
  V total = zero();
  CONVLET_UNROLL
  for (int i = 0; i < kChains; ++i) total = total + sum[i];
  return sum_of_lanes(total);
}

// Runs `count` pieces of work on all threads and returns how many float operations they were.
template <class Product>
inline double fma_peak(Context& context, std::int64_t count) {
  constexpr std::int64_t kRounds = 20000;
  parallel_for(context, count, 1, [](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      volatile float value = static_cast<float>(i);
      value = fma_chains<Product>(kRounds, value);
    }
  });
  return 2.0 * Product::terms * V::width * (kVectorRegisters * 3 / 4) *
         static_cast<double>(kRounds * count);
}

}  // namespace convlet::CONVLET_ISA
