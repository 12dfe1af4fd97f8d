// One update of all parameters in one pass over the flat buffers (formulas in
// formulas/optimizer.h), running averages, and sums of gradients.
namespace convlet::CONVLET_ISA {

inline void optimizer(Context& context, std::int64_t n, const OptimizerSpec& spec,
                      const OptimizerStep* step, Halt halt, float* p, const float* g,
                      float* const* state) {
  if (halt && *halt) return;
  with_value<OptimizerKind, kLastOptimizerKind>(spec.kind, [&](auto kind) {
    with_value<int, kMostOptimizerSlots>(optimizer_slots(spec), [&](auto slots) {
      for_elements(context, n, [&](std::int64_t begin, std::int64_t end) {
        // Copies: what is stored might change the originals, as far as the compiler knows.
        const OptimizerSpec own = spec;
        const OptimizerStep now = *step;
        for_vectors(begin, end, [&](std::int64_t i, auto lanes) {
          V values[kMostOptimizerSlots] = {};
          for (int k = 0; k < decltype(slots)::value; ++k) values[k] = load(state[k] + i, lanes);
          const V next = updated(decltype(kind)::value, own, now, load(p + i, lanes),
                                 load(g + i, lanes), values);
          store(p + i, next, lanes);
          for (int k = 0; k < decltype(slots)::value; ++k) store(state[k] + i, values[k], lanes);
        });
      });
    });
  });
}

inline void weight_average(Context& context, std::int64_t n, const OptimizerStep* step, Halt halt,
                           const float* p, float* average) {
  if (halt && *halt) return;
  const float momentum = step->average_momentum;
  for_elements(context, n, [&](std::int64_t begin, std::int64_t end) {
    for_vectors(begin, end, [&](std::int64_t i, auto lanes) {
      store(average + i,
            broadcast(momentum) * load(average + i, lanes) +
                broadcast(1.0f - momentum) * load(p + i, lanes),
            lanes);
    });
  });
}

inline void add_gradients(Context& context, std::int64_t n, Halt halt, const float* g, float* sum) {
  if (halt && *halt) return;
  transform(context, n, sum, g, sum, [](V a, V b) { return a + b; });
}

inline void take_gradients(Context& context, std::int64_t n, float share, Halt halt, float* sum,
                           float* g) {
  if (halt && *halt) return;
  for_elements(context, n, [&](std::int64_t begin, std::int64_t end) {
    for_vectors(begin, end, [&](std::int64_t i, auto lanes) {
      store(g + i, broadcast(share) * load(sum + i, lanes), lanes);
      store(sum + i, zero(), lanes);
    });
  });
}

}  // namespace convlet::CONVLET_ISA
