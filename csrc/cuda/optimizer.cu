// One update of all parameters in one pass over the flat buffers (formulas in
// formulas/optimizer.h), and running averages.
#include "cuda/quads.cuh"

namespace convlet::cuda {
namespace {

struct State {
  float* slot[kMostOptimizerSlots];
  int slots;
};

// An item is a quad of parameters.
template <OptimizerKind kind>
__global__ void __launch_bounds__(kThreads)
    optimizer_kernel(std::int64_t items, std::int64_t n, OptimizerSpec spec,
                     const OptimizerStep* step_data, float* p, const float* g, State state,
                     bool wide) {
  const OptimizerStep step = *step_data;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const std::int64_t at = 4 * item, left = n - at;
    Quad parameters = load_quad(p + at, left, wide);
    const Quad gradients = load_quad(g + at, left, wide);
    Quad values[kMostOptimizerSlots];
#pragma unroll
    for (int i = 0; i < kMostOptimizerSlots; ++i)
      values[i] = i < state.slots ? load_quad(state.slot[i] + at, left, wide) : quad_of(0.0f);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      float own[kMostOptimizerSlots];
#pragma unroll
      for (int i = 0; i < kMostOptimizerSlots; ++i) own[i] = values[i][k];
      parameters[k] = scalar::updated(kind, spec, step, parameters[k], gradients[k], own);
#pragma unroll
      for (int i = 0; i < kMostOptimizerSlots; ++i) values[i][k] = own[i];
    }
    store_quad(p + at, parameters, left, wide);
#pragma unroll
    for (int i = 0; i < kMostOptimizerSlots; ++i)
      if (i < state.slots) store_quad(state.slot[i] + at, values[i], left, wide);
  }
}

struct Average {
  const OptimizerStep* step;  // or null:
  float old, fresh;
  CONVLET_DEVICE float operator()(float average, float x) const {
    if (!step) return average * old + x * fresh;
    const float momentum = step->average_momentum;
    return momentum * average + (1.0f - momentum) * x;
  }
};

}  // namespace

void optimizer(Context& context, std::int64_t n, const OptimizerSpec& spec,
               const OptimizerStep* step, float* p, const float* g, float* const* state) {
  State slots = {};
  slots.slots = optimizer_slots(spec);
  bool wide = aligned_16(p) && aligned_16(g);
  for (int i = 0; i < slots.slots; ++i) {
    slots.slot[i] = state[i];
    wide = wide && aligned_16(state[i]);
  }
  scalar::with_value<OptimizerKind, kLastOptimizerKind>(spec.kind, [&](auto kind) {
    launch_items(context, optimizer_kernel<decltype(kind)::value>, quads_of(n), n, spec, step, p, g,
                 slots, wide);
  });
}

void weight_average(Context& context, std::int64_t n, const OptimizerStep* step, const float* p,
                    float* average) {
  transform(context, n, average, p, average, Average{step, 0.0f, 0.0f});
}

void moving_average(Context& context, std::int64_t n, double momentum, const float* x,
                    float* average) {
  transform(context, n, average, x, average,
            Average{nullptr, static_cast<float>(momentum), static_cast<float>(1.0 - momentum)});
}

}  // namespace convlet::cuda
