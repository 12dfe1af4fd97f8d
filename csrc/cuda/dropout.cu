// Dropout by counted random numbers (RandomStep in ops/kernels.h): the masks are those of the CPU,
// bit for bit, and the backward makes them again.
#include "core/rng.h"
#include "cuda/quads.cuh"

namespace convlet::cuda {
namespace {

// uniform number i of the step.
CONVLET_DEVICE float uniform_at(const RandomStep& random, std::uint64_t stream, std::int64_t i) {
  const std::uint64_t counter = (random.step << 40) + static_cast<std::uint64_t>(i) / 4;
  const Philox draw = philox(random.seed, stream, counter);
  const int k =
      static_cast<int>(i % 4);  // not as an index: the words would have to leave registers
  return uniform(k < 2 ? (k == 0 ? draw.word[0] : draw.word[1])
                       : (k == 2 ? draw.word[2] : draw.word[3]));
}

// One draw per element. An item is a quad: the four numbers of one counter.
__global__ void __launch_bounds__(kThreads)
    dropout_elements_kernel(std::int64_t items, std::int64_t n, float rate,
                            const RandomStep* random, std::uint64_t stream, const float* x,
                            float* y, bool wide) {
  const std::uint64_t seed = random->seed, start = random->step << 40;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const Philox draw = philox(seed, stream, start + static_cast<std::uint64_t>(item));
    const std::int64_t at = 4 * item;
    Quad q = load_quad(x + at, n - at, wide);
#pragma unroll
    for (int k = 0; k < 4; ++k) q[k] = uniform(draw.word[k]) < rate ? 0.0f : q[k] / (1.0f - rate);
    store_quad(y + at, q, n - at, wide);
  }
}

// One draw per sample and channel. An item is a quad of channels in some of a sample's pixels.
constexpr std::int64_t kDropoutPixels = 16;

__global__ void __launch_bounds__(kThreads)
    dropout_channels_kernel(std::int64_t items, DropoutShape s, float rate,
                            const RandomStep* random, std::uint64_t stream, const float* x,
                            float* y, bool wide) {
  const std::int64_t quads = (s.C + 3) / 4;
  const std::int64_t pieces = (s.P + kDropoutPixels - 1) / kDropoutPixels;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t n = item;
    const std::int64_t c = 4 * take_coordinate(n, quads), left = s.C - c;
    const std::int64_t first = kDropoutPixels * take_coordinate(n, pieces);
    const std::int64_t last = scalar::smaller(first + kDropoutPixels, s.P);
    bool dropped[4];
    for (int k = 0; k < 4; ++k)
      dropped[k] = k < left && uniform_at(*random, stream, n * s.C + c + k) < rate;
    for (std::int64_t p = first; p < last; ++p) {
      const std::int64_t at = (n * s.P + p) * s.C + c;
      Quad q = load_quad(x + at, left, wide);
#pragma unroll
      for (int k = 0; k < 4; ++k) q[k] = dropped[k] ? 0.0f : q[k] / (1.0f - rate);
      store_quad(y + at, q, left, wide);
    }
  }
}

// One draw per sample. An item is a quad of its values.
__global__ void __launch_bounds__(kThreads)
    dropout_samples_kernel(std::int64_t items, std::int64_t size, float rate,
                           const RandomStep* random, std::uint64_t stream, const float* x, float* y,
                           bool wide) {
  const std::int64_t quads = (size + 3) / 4;
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    std::int64_t n = item;
    const std::int64_t i = 4 * take_coordinate(n, quads), at = n * size + i;
    const bool dropped = uniform_at(*random, stream, n) < rate;
    Quad q = load_quad(x + at, size - i, wide);
#pragma unroll
    for (int k = 0; k < 4; ++k) q[k] = dropped ? 0.0f : q[k] / (1.0f - rate);
    store_quad(y + at, q, size - i, wide);
  }
}

}  // namespace

void dropout(Context& context, const DropoutShape& s, float rate, const RandomStep* random,
             std::uint64_t stream, const float* x, float* y) {
  const bool aligned = aligned_16(x) && aligned_16(y);
  if (s.P == 1) {
    const std::int64_t n = s.N * s.C;
    launch_items(context, dropout_elements_kernel, quads_of(n), n, rate, random, stream, x, y,
                 aligned);
  } else if (s.C == 1) {
    launch_items(context, dropout_samples_kernel, s.N * quads_of(s.P), s.P, rate, random, stream, x,
                 y, aligned && s.P % 4 == 0);
  } else {
    const std::int64_t pieces = (s.P + kDropoutPixels - 1) / kDropoutPixels;
    launch_items(context, dropout_channels_kernel, s.N * pieces * quads_of(s.C), s, rate, random,
                 stream, x, y, aligned && s.C % 4 == 0);
  }
}

}  // namespace convlet::cuda
