// One update of all parameters in one pass over the flat buffers (formulas in ops/optimizer.h).
namespace convlet::CONVLET_ISA {

struct OptimizerPass {
  const OptimizerSpec& spec;
  const OptimizerStep& step;
  float* p;
  const float* g;
  float* const* state;

  float learning_rate() const { return step.learning_rate * spec.rate_scale; }

  template <class Lanes>
  V gradient(std::int64_t i, Lanes lanes) const {
    const V v = load(g + i, lanes);
    if (spec.clip_value == 0.0f) return v;
    return min(broadcast(spec.clip_value), max(broadcast(-spec.clip_value), v));  // NaN passes
  }

  // The parameters at i before the update, after decoupled weight decay.
  template <class Lanes>
  V decayed(std::int64_t i, Lanes lanes) const {
    const V v = load(p + i, lanes);
    if (spec.weight_decay == 0.0f) return v;
    return v - broadcast(learning_rate() * spec.weight_decay) * v;
  }
};

template <class Lanes>
inline void sgd(const OptimizerPass& a, std::int64_t i, Lanes lanes) {
  const V decrease = broadcast(a.learning_rate()) * a.gradient(i, lanes);
  V p = a.decayed(i, lanes);
  if (a.spec.momentum == 0.0f) {
    p = p - decrease;
  } else {
    const V momentum = broadcast(a.spec.momentum);
    const V v = momentum * load(a.state[0] + i, lanes) - decrease;
    store(a.state[0] + i, v, lanes);
    p = p + (a.spec.nesterov ? momentum * v - decrease : v);
  }
  store(a.p + i, p, lanes);
}

template <class Lanes>
inline void rmsprop(const OptimizerPass& a, std::int64_t i, Lanes lanes) {
  const V rho = broadcast(a.spec.rho), rest = broadcast(1.0f - a.spec.rho);
  const V g = a.gradient(i, lanes);
  int slot = 0;
  float* velocity = a.state[slot++] + i;
  const V v = rho * load(velocity, lanes) + rest * g * g;
  store(velocity, v, lanes);
  V variance = v;
  if (a.spec.centered) {
    float* average = a.state[slot++] + i;
    const V mean = rho * load(average, lanes) + rest * g;
    store(average, mean, lanes);
    // Rounding may take the difference below zero, where it would have no root.
    variance = max(zero(), v - mean * mean);
  }
  V d = broadcast(a.learning_rate()) * g / (sqrt(variance) + broadcast(a.spec.epsilon));
  if (a.spec.momentum > 0.0f) {
    float* momentum = a.state[slot++] + i;
    d = broadcast(a.spec.momentum) * load(momentum, lanes) + d;
    store(momentum, d, lanes);
  }
  store(a.p + i, a.decayed(i, lanes) - d, lanes);
}

template <class Lanes>
inline void adam(const OptimizerPass& a, std::int64_t i, Lanes lanes) {
  const V g = a.gradient(i, lanes);
  V m = load(a.state[0] + i, lanes), v = load(a.state[1] + i, lanes);
  m = fma(broadcast(1.0f - a.spec.beta_1), g - m, m);
  v = fma(broadcast(1.0f - a.spec.beta_2), g * g - v, v);
  store(a.state[0] + i, m, lanes);
  store(a.state[1] + i, v, lanes);
  const V d =
      broadcast(a.step.alpha * a.spec.rate_scale) * m / (sqrt(v) + broadcast(a.spec.epsilon));
  store(a.p + i, a.decayed(i, lanes) - d, lanes);
}

inline void optimizer(Context& context, std::int64_t n, const OptimizerSpec& spec,
                      const OptimizerStep* step, float* p, const float* g, float* const* state) {
  const OptimizerPass pass = {spec, *step, p, g, state};
  for_elements(context, n, [&](std::int64_t begin, std::int64_t end) {
    switch (spec.kind) {
      case OptimizerKind::sgd:
        return for_vectors(begin, end, [&](std::int64_t i, auto lanes) { sgd(pass, i, lanes); });
      case OptimizerKind::rmsprop:
        return for_vectors(begin, end,
                           [&](std::int64_t i, auto lanes) { rmsprop(pass, i, lanes); });
      case OptimizerKind::adam:
        return for_vectors(begin, end, [&](std::int64_t i, auto lanes) { adam(pass, i, lanes); });
    }
  });
}

inline void weight_average(Context& context, std::int64_t n, const OptimizerStep* step,
                           const float* p, float* average) {
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

}  // namespace convlet::CONVLET_ISA
