// Sums over whole buffers, in float64 and in a fixed order: the buffer is cut into parts by n
// alone, a block each, and then one warp adds the parts. And what is done with such sums.
#include "cuda/team.cuh"

namespace convlet::cuda {
namespace {

struct Value {
  CONVLET_DEVICE double operator()(double a) const { return a; }
};
struct Square {
  CONVLET_DEVICE double operator()(double a) const { return a * a; }
};
struct Penalty {
  double l1, l2;
  CONVLET_DEVICE double operator()(double a) const { return l1 * fabs(a) + l2 * a * a; }
};

constexpr int kSumThreads = 1024;
constexpr int kSumUnroll =
    4;  // loads under way at once: 64 blocks are to fill a device's memory bus

// sums[part] = sum of f(x[i]) over the quads [part * length, (part + 1) * length).
template <class F>
__global__ void __launch_bounds__(kSumThreads)
    sum_part_kernel(std::int64_t n, std::int64_t length, const float* x, bool wide, double* sums,
                    F f) {
  const Team team(static_cast<int>(blockDim.x));
  const std::int64_t begin = length * blockIdx.x;
  const std::int64_t end = scalar::smaller(begin + length, (n + 3) / 4);
  double total = 0.0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kSumUnroll * blockDim.x) {
    Quad q[kSumUnroll];
#pragma unroll
    for (int j = 0; j < kSumUnroll; ++j) {
      const std::int64_t at = i + j * blockDim.x;
      q[j] = at < end ? load_quad(x + 4 * at, n - 4 * at, wide) : quad_of(0.0f);
    }
#pragma unroll
    for (int j = 0; j < kSumUnroll; ++j)
      total += (f(q[j][0]) + f(q[j][1])) + (f(q[j][2]) + f(q[j][3]));
  }
  total = team.all(total, Sum());
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

// out[0] = the sum of out[1], ..., out[parts].
__global__ void __launch_bounds__(32) sum_parts_kernel(int parts, double* out) {
  const Team team(32);
  double total = 0.0;
  for (int part = threadIdx.x; part < parts; part += 32) total += out[1 + part];
  total = team.all(total, Sum());
  if (threadIdx.x == 0) out[0] = total;
}

// f(0) must be 0.
template <class F>
void sum_over(Context& context, std::int64_t n, const float* x, double* out, F f) {
  const std::int64_t quads = quads_of(n), least = 1024;
  const std::int64_t parts = scalar::larger(1, scalar::smaller(kReductionParts, quads / least));
  const std::int64_t length = scalar::ceil_div(quads, parts);
  const std::int64_t threads = scalar::smaller(
      kSumThreads, 32 * scalar::larger(1, scalar::ceil_div(length, 32 * kSumUnroll)));
  launch(context, sum_part_kernel<F>, static_cast<unsigned>(parts), static_cast<unsigned>(threads),
         0, n, length, x, aligned_16(x), parts > 1 ? out + 1 : out, f);
  if (parts > 1) launch(context, sum_parts_kernel, 1, 32, 0, static_cast<int>(parts), out);
}

struct PenaltyGradient {
  float l1, l2;
  CONVLET_DEVICE float operator()(float p, float g) const {
    const float sign = p > 0.0f ? l1 : p < 0.0f ? -l1 : 0.0f;
    return g + fmaf(2.0f * l2, p, sign);
  }
};

struct Clip {
  float limit;
  const double* squared_norm;
  CONVLET_DEVICE float operator()(float g) const {
    const double factor = static_cast<double>(limit) / sqrt(*squared_norm);
    return factor >= 1.0 ? g : g * static_cast<float>(factor);  // NaN makes every gradient NaN
  }
};

__global__ void __launch_bounds__(32) set_kernel(std::int64_t* out, std::int64_t value) {
  if (threadIdx.x == 0) *out = value;
}

// -1 is the largest number without a sign. Whole numbers: the order of the blocks does not matter.
__global__ void __launch_bounds__(kThreads)
    first_non_finite_kernel(std::int64_t items, std::int64_t n, const float* x, bool wide,
                            std::int64_t* out) {
  for (std::int64_t item = first_item(); item < items; item += all_threads()) {
    const std::int64_t at = 4 * item;
    const Quad q = load_quad(x + at, n - at, wide);
    for (int k = 3; k >= 0; --k)
      if (!(fabsf(q[k]) < INFINITY))
        atomicMin(reinterpret_cast<unsigned long long*>(out),
                  static_cast<unsigned long long>(at + k));
  }
}

__global__ void __launch_bounds__(32)
    step_results_kernel(ResultCounts s, const float* weights, const double* values, double* results,
                        std::int32_t* halt) {
  constexpr int kEach = 1 + kReductionParts;
  for (std::int64_t i = threadIdx.x; i < s.losses + s.metrics; i += 32)
    results[1 + i] = values[i * kEach];
  if (threadIdx.x > 0) return;
  double total = 0.0;
  for (std::int64_t i = 0; i < s.losses; ++i) total += weights[i] * values[i * kEach];
  for (std::int64_t i = 0; i < s.penalties; ++i)
    total += values[(s.losses + s.metrics + i) * kEach];
  results[0] = total;
  if (halt && !(fabs(total) < INFINITY)) *halt = 1;
}

}  // namespace

void sum(Context& context, std::int64_t n, const float* x, double* out) {
  sum_over(context, n, x, out, Value());
}

void sum_of_squares(Context& context, std::int64_t n, const float* x, double* out) {
  sum_over(context, n, x, out, Square());
}

void regularizer_penalty(Context& context, std::int64_t n, float l1, float l2, const float* p,
                         double* out) {
  sum_over(context, n, p, out, Penalty{l1, l2});
}

void regularizer_gradient(Context& context, std::int64_t n, float l1, float l2, const float* p,
                          float* g) {
  transform(context, n, p, g, g, PenaltyGradient{l1, l2});
}

void clip_by_norm(Context& context, std::int64_t n, float limit, const double* squared_norm,
                  float* g) {
  transform(context, n, g, g, Clip{limit, squared_norm});
}

void first_non_finite(Context& context, std::int64_t n, const float* x, std::int64_t* out) {
  launch(context, set_kernel, 1, 32, 0, out, std::int64_t{-1});
  launch_items(context, first_non_finite_kernel, quads_of(n), n, x, aligned_16(x), out);
}

void step_results(Context& context, const ResultCounts& s, const float* weights,
                  const double* values, double* results, std::int32_t* halt) {
  launch(context, step_results_kernel, 1, 32, 0, s, weights, values, results, halt);
}

}  // namespace convlet::cuda
