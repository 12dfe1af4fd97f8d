// One update of all parameters in one pass over the flat buffers (formulas in
// formulas/optimizer.h), running averages, and sums of gradients.
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
                     const OptimizerStep* step_data, Halt halt, float* p, const float* g,
                     State state, bool wide) {
  if (halt && *halt) return;
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
  Halt halt;
  CONVLET_DEVICE float operator()(float average, float x) const {
    if (halt && *halt) return average;
    if (!step) return average * old + x * fresh;
    const float momentum = step->average_momentum;
    return momentum * average + (1.0f - momentum) * x;
  }
};

struct AddGradient {
  Halt halt;
  CONVLET_DEVICE float operator()(float sum, float g) const {
    return halt && *halt ? sum : sum + g;
  }
};

// An item is a quad.
__global__ void __launch_bounds__(kThreads)
    take_gradients_kernel(std::int64_t items, std::int64_t n, float share, Halt halt, float* sum,
                          float* g, bool wide) {
  if (halt && *halt) return;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const std::int64_t at = 4 * item, left = n - at;
    Quad q = load_quad(sum + at, left, wide);
#pragma unroll
    for (int k = 0; k < 4; ++k) q[k] *= share;
    store_quad(g + at, q, left, wide);
    store_quad(sum + at, quad_of(0.0f), left, wide);
  }
}

}  // namespace

void optimizer(Context& context, std::int64_t n, const OptimizerSpec& spec,
               const OptimizerStep* step, Halt halt, float* p, const float* g,
               float* const* state) {
  State slots = {};
  slots.slots = optimizer_slots(spec);
  bool wide = aligned_16(p) && aligned_16(g);
  for (int i = 0; i < slots.slots; ++i) {
    slots.slot[i] = state[i];
    wide = wide && aligned_16(state[i]);
  }
  scalar::with_value<OptimizerKind, kLastOptimizerKind>(spec.kind, [&](auto kind) {
    launch_items(context, optimizer_kernel<decltype(kind)::value>, quads_of(n), n, spec, step, halt,
                 p, g, slots, wide);
  });
}

void weight_average(Context& context, std::int64_t n, const OptimizerStep* step, Halt halt,
                    const float* p, float* average) {
  transform(context, n, average, p, average, Average{step, 0.0f, 0.0f, halt});
}

void moving_average(Context& context, std::int64_t n, double momentum, Halt halt, const float* x,
                    float* average) {
  const float old = static_cast<float>(momentum), fresh = static_cast<float>(1.0 - momentum);
  transform(context, n, average, x, average, Average{nullptr, old, fresh, halt});
}

void add_gradients(Context& context, std::int64_t n, Halt halt, const float* g, float* sum) {
  transform(context, n, sum, g, sum, AddGradient{halt});
}

void take_gradients(Context& context, std::int64_t n, float share, Halt halt, float* sum,
                    float* g) {
  launch_items(context, take_gradients_kernel, quads_of(n), n, share, halt, sum, g,
               aligned_16(sum) && aligned_16(g));
}

}  // namespace convlet::cuda
