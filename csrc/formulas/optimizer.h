// One update of parameters (ops/optimizer.h) on vectors.
namespace convlet::CONVLET_ISA {

CONVLET_HOST_DEVICE inline V sgd(const OptimizerSpec& spec, float rate, V p, V g, V* state) {
  const V decrease = broadcast(rate) * g;
  if (spec.momentum == 0.0f) return p - decrease;
  const V momentum = broadcast(spec.momentum);
  const V v = momentum * state[0] - decrease;
  state[0] = v;
  return p + (spec.nesterov ? momentum * v - decrease : v);
}

CONVLET_HOST_DEVICE inline V rmsprop(const OptimizerSpec& spec, float rate, V p, V g, V* state) {
  const V rho = broadcast(spec.rho), rest = broadcast(1.0f - spec.rho);
  const V v = rho * state[0] + rest * g * g;
  state[0] = v;
  V variance = v;
  if (spec.centered) {
    const V mean = rho * state[1] + rest * g;
    state[1] = mean;
    // Rounding may take the difference below zero, where it would have no root.
    variance = max(zero(), v - mean * mean);
  }
  V d = broadcast(rate) * g / (sqrt(variance) + broadcast(spec.epsilon));
  if (spec.momentum > 0.0f) {
    V& momentum = spec.centered ? state[2] : state[1];
    d = broadcast(spec.momentum) * momentum + d;
    momentum = d;
  }
  return p - d;
}

CONVLET_HOST_DEVICE inline V adam(const OptimizerSpec& spec, float alpha, V p, V g, V* state) {
  const V m = fma(broadcast(1.0f - spec.beta_1), g - state[0], state[0]);
  const V v = fma(broadcast(1.0f - spec.beta_2), g * g - state[1], state[1]);
  state[0] = m;
  state[1] = v;
  return p - broadcast(alpha) * m / (sqrt(v) + broadcast(spec.epsilon));
}

// p after the update by the gradient g; `state` holds the optimizer_slots() values, which change
// too. `kind` is spec.kind as a constant.
CONVLET_HOST_DEVICE inline V updated(OptimizerKind kind, const OptimizerSpec& spec,
                                     const OptimizerStep& step, V p, V g, V* state) {
  const float rate = step.learning_rate * spec.rate_scale;
  if (spec.clip_value != 0.0f)  // NaN passes
    g = min(broadcast(spec.clip_value), max(broadcast(-spec.clip_value), g));
  if (spec.weight_decay != 0.0f) p = p - broadcast(rate * spec.weight_decay) * p;
  if (kind == OptimizerKind::sgd) return sgd(spec, rate, p, g, state);
  if (kind == OptimizerKind::rmsprop) return rmsprop(spec, rate, p, g, state);
  return adam(spec, step.alpha * spec.rate_scale, p, g, state);
}

}  // namespace convlet::CONVLET_ISA
