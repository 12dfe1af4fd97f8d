// The walk of a recurrent layer along its time steps, and back (formulas in ops/recurrent.h). A
// block takes a few samples through all steps by itself, so that blocks never wait for each other.
// A step is a product with the recurrent kernel, whose depth the warps share, and one pass over the
// gates.
#include <type_traits>

#include "cuda/gpu.cuh"
#include "cuda/launch.h"
#include "cuda/scalar.cuh"
#include "ops/kernels.h"

namespace convlet::cuda {
namespace {

constexpr int kSamples = 4;  // of a block
constexpr int kUnits = 32;   // at a time: the lanes of a warp
constexpr int kWarps = 8;
constexpr int kThreads = kUnits * kWarps;

// What a walk needs besides its arguments, by sample: h of two steps where none is kept, or the
// gradient of h; c where none is kept, or the gradient of c.
struct RecurrentWork {
  float *h, *c;
  float* transposed;  // backward: the recurrent kernel
  std::size_t bytes;
};

RecurrentWork recurrent_work(const RecurrentShape& s, Pass pass, void* memory) {
  const std::int64_t states = s.N * s.U, weights = s.U * s.gates() * s.U;
  const bool forward = pass == Pass::forward;
  RecurrentWork w;
  w.h = static_cast<float*>(memory);
  w.c = w.h + (forward ? 2 : 1) * states;
  w.transposed = w.c + states;
  w.bytes = static_cast<std::size_t>((forward ? 3 : 2) * states + (forward ? 0 : weights)) *
            sizeof(float);
  return w;
}

// The time of x at which step j of the walk is.
CONVLET_DEVICE std::int64_t time_of(const RecurrentShape& s, std::int64_t j) {
  return s.reverse ? s.T - 1 - j : j;
}

// y of sample n after step j, or null where it is not returned.
template <class T>
CONVLET_DEVICE T* output_of(const RecurrentShape& s, T* y, std::int64_t n, std::int64_t j) {
  if (s.sequences) return y + (n * s.T + (s.aligned ? time_of(s, j) : j)) * s.U;
  return j == s.T - 1 ? y + n * s.U : nullptr;
}

CONVLET_DEVICE int lane() {
  return static_cast<int>(threadIdx.x) % kUnits;
}
CONVLET_DEVICE int warp() {
  return static_cast<int>(threadIdx.x) / kUnits;
}

// The samples of this block, and how many.
struct Samples {
  std::int64_t first;
  int count;
};
CONVLET_DEVICE Samples samples_at(const RecurrentShape& s, std::int64_t first) {
  return {first, static_cast<int>(min(s.N - first, std::int64_t{kSamples}))};
}

// Rows of a step: sample i's at data + i * stride.
struct Rows {
  const float* data;
  std::int64_t stride;
};

// For 32 units from `unit` on, and kGroups columns of the weights for each (unit + group * U): the
// products of the samples' rows of `depth` values with the columns. Sample i's are returned to the
// lanes of warp i. Of a block, all threads call it.
template <int kGroups>
CONVLET_DEVICE void multiply(const Samples& samples, const Rows& rows, std::int64_t depth,
                             const float* weights, std::int64_t pitch, std::int64_t units,
                             std::int64_t unit, float (&products)[kGroups]) {
  CONVLET_SHARED(float, partial, [kWarps][kGroups * kSamples][kUnits]);
  float sums[kGroups][kSamples] = {};
  const std::int64_t column = unit + lane();
  if (column < units) {
#pragma unroll 4
    for (std::int64_t k = warp(); k < depth; k += kWarps) {
      float w[kGroups];
      for (int g = 0; g < kGroups; ++g) w[g] = weights[k * pitch + g * units + column];
      for (int i = 0; i < kSamples; ++i) {
        const float x = i < samples.count ? rows.data[i * rows.stride + k] : 0.0f;
        for (int g = 0; g < kGroups; ++g) sums[g][i] = fmaf(x, w[g], sums[g][i]);
      }
    }
  }
  for (int g = 0; g < kGroups; ++g)
    for (int i = 0; i < kSamples; ++i) partial[warp()][g * kSamples + i][lane()] = sums[g][i];
  __syncthreads();
  if (warp() < samples.count)
    for (int g = 0; g < kGroups; ++g) {
      products[g] = 0.0f;
      for (int other = 0; other < kWarps; ++other)
        products[g] += partial[other][g * kSamples + warp()][lane()];
    }
  __syncthreads();
}

// ---------------------------------------------------------------- forward

struct RecurrentData {
  const float *projected, *kernel, *bias;
  float *kept, *previous, *y;
  float *h, *c;  // in place of previous and kept where those are null
};

// Where h of sample n before step j lies.
CONVLET_DEVICE Rows state_before(const RecurrentShape& s, const RecurrentData& data, std::int64_t n,
                                 std::int64_t j) {
  if (data.previous) return {data.previous + (n * s.T + time_of(s, j)) * s.U, s.T * s.U};
  return {data.h + (j % 2 * s.N + n) * s.U, s.U};
}

// One step of a unit of one sample. `m` lacks its bias.
template <Cell cell>
CONVLET_DEVICE void step_unit(const RecurrentShape& s, const RecurrentData& data, std::int64_t n,
                              std::int64_t j, std::int64_t u, float (&m)[gates_of(cell)]) {
  constexpr int kGates = gates_of(cell), kKept = kept_values_of(cell);
  const std::int64_t row = n * s.T + time_of(s, j);
  float a[kGates];
  for (int g = 0; g < kGates; ++g) {
    a[g] = data.projected[(row * kGates + g) * s.U + u];
    if (data.bias) m[g] += data.bias[g * s.U + u];
  }
  float* h = const_cast<float*>(state_before(s, data, n, j).data) + u;
  float before = 0.0f, c = 0.0f;
  if (j == 0)
    *h = 0.0f;
  else
    before = *h;
  if (cell == Cell::lstm && j > 0)
    c = data.kept ? data.kept[((n * s.T + time_of(s, j - 1)) * kKept + kKept - 1) * s.U + u]
                  : data.c[n * s.U + u];
  const auto next = scalar::cell_step<cell>(a, m, before, c);
  if (data.kept)
    for (int i = 0; i < kKept; ++i) data.kept[(row * kKept + i) * s.U + u] = next.kept[i];
  else if (cell == Cell::lstm)
    data.c[n * s.U + u] = next.kept[kKept - 1];
  if (j + 1 < s.T) const_cast<float*>(state_before(s, data, n, j + 1).data)[u] = next.h;
  if (float* out = output_of(s, data.y, n, j)) out[u] = next.h;
}

template <Cell cell>
__global__ void __launch_bounds__(kThreads) recurrent_kernel(RecurrentShape s, RecurrentData data) {
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kSamples; first < s.N;
       first += static_cast<std::int64_t>(gridDim.x) * kSamples) {
    const Samples samples = samples_at(s, first);
    for (std::int64_t j = 0; j < s.T; ++j) {
      const Rows h = state_before(s, data, first, j);
      for (std::int64_t unit = 0; unit < s.U; unit += kUnits) {
        float m[gates_of(cell)] = {};
        if (j > 0) multiply(samples, h, s.U, data.kernel, gates_of(cell) * s.U, s.U, unit, m);
        if (warp() < samples.count && unit + lane() < s.U)
          step_unit<cell>(s, data, first + warp(), j, unit + lane(), m);
      }
      __syncthreads();  // the next step reads what all threads wrote
    }
  }
}

// ---------------------------------------------------------------- backward

struct RecurrentGradientData {
  const float *dy, *kept, *previous;
  const float* transposed;  // the recurrent kernel, (G*U,U)
  float *da, *dm;
  float *dh, *dc;  // (N,U)
};

// kernel (rows,columns) -> (columns,rows).
__global__ void __launch_bounds__(kThreads)
    transpose_kernel(std::int64_t rows, std::int64_t columns, const float* x, float* y) {
  CONVLET_SHARED(float, tile, [32][33]);
  const std::int64_t across = (columns + 31) / 32, tiles = (rows + 31) / 32 * across;
  for (std::int64_t i = blockIdx.x; i < tiles; i += gridDim.x) {
    const std::int64_t row = i / across * 32, column = i % across * 32;
    for (int r = warp(); r < 32; r += kWarps)
      if (row + r < rows && column + lane() < columns)
        tile[r][lane()] = x[(row + r) * columns + column + lane()];
    __syncthreads();
    for (int c = warp(); c < 32; c += kWarps)
      if (column + c < columns && row + lane() < rows)
        y[(column + c) * rows + row + lane()] = tile[lane()][c];
    __syncthreads();
  }
}

// One step of a unit of one sample: da and dm, and what of dh and dc goes on.
template <Cell cell>
CONVLET_DEVICE void step_unit_backward(const RecurrentShape& s, const RecurrentGradientData& data,
                                       std::int64_t n, std::int64_t j, std::int64_t u) {
  constexpr int kGates = gates_of(cell), kKept = kept_values_of(cell);
  const std::int64_t row = n * s.T + time_of(s, j), state = n * s.U + u;
  const bool last = j == s.T - 1;
  float kept[kKept];
  for (int i = 0; i < kKept; ++i) kept[i] = data.kept[(row * kKept + i) * s.U + u];
  float dh = last ? 0.0f : data.dh[state], c = 0.0f;
  const float dc = last || cell != Cell::lstm ? 0.0f : data.dc[state];
  if (const float* dy = output_of(s, data.dy, n, j)) dh += dy[u];
  if (cell == Cell::lstm && j > 0)
    c = data.kept[((n * s.T + time_of(s, j - 1)) * kKept + kKept - 1) * s.U + u];
  const auto gradients =
      scalar::cell_step_backward<cell>(kept, data.previous[row * s.U + u], c, dh, dc);
  for (int g = 0; g < kGates; ++g) {
    data.da[(row * kGates + g) * s.U + u] = gradients.da[g];
    if (cell == Cell::gru) data.dm[(row * kGates + g) * s.U + u] = gradients.dm[g];
  }
  if (cell == Cell::lstm) data.dc[state] = gradients.dc;
  if (cell == Cell::gru) data.dh[state] = gradients.dh;
}

template <Cell cell>
__global__ void __launch_bounds__(kThreads)
    recurrent_backward_kernel(RecurrentShape s, RecurrentGradientData data) {
  const std::int64_t columns = gates_of(cell) * s.U;
  for (std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * kSamples; first < s.N;
       first += static_cast<std::int64_t>(gridDim.x) * kSamples) {
    const Samples samples = samples_at(s, first);
    for (std::int64_t j = s.T - 1; j >= 0; --j) {
      for (std::int64_t i = threadIdx.x; i < samples.count * s.U; i += kThreads)
        step_unit_backward<cell>(s, data, first + i / s.U, j, i % s.U);
      __syncthreads();
      if (j == 0) break;
      const Rows dm = {data.dm + (first * s.T + time_of(s, j)) * columns, s.T * columns};
      for (std::int64_t unit = 0; unit < s.U; unit += kUnits) {
        float product[1];
        multiply(samples, dm, columns, data.transposed, s.U, s.U, unit, product);
        if (warp() >= samples.count || unit + lane() >= s.U) continue;
        float& dh = data.dh[(first + warp()) * s.U + unit + lane()];
        dh = cell == Cell::gru ? dh + product[0] : product[0];
      }
      __syncthreads();
    }
  }
}

// Calls f(std::integral_constant<Cell, cell>) for the run-time value cell.
template <class F>
void with_cell(Cell cell, F&& f) {
  switch (cell) {
    case Cell::simple_rnn:
      return f(std::integral_constant<Cell, Cell::simple_rnn>());
    case Cell::lstm:
      return f(std::integral_constant<Cell, Cell::lstm>());
    case Cell::gru:
      return f(std::integral_constant<Cell, Cell::gru>());
  }
}

dim3 sample_blocks(const RecurrentShape& s) {
  return dim3(
      static_cast<unsigned>(std::min((s.N + kSamples - 1) / kSamples, std::int64_t{1} << 30)));
}

}  // namespace

std::size_t recurrent_workspace(const RecurrentShape& s, Pass pass, int) {
  return recurrent_work(s, pass, nullptr).bytes;
}

void recurrent(Context& context, const RecurrentShape& s, const float* projected,
               const float* recurrent_kernel, const float* recurrent_bias, float* kept,
               float* previous, float* y, void* workspace) {
  const RecurrentWork w = recurrent_work(s, Pass::forward, workspace);
  const RecurrentData data = {projected, recurrent_kernel, recurrent_bias, kept, previous, y, w.h,
                              w.c};
  with_cell(s.cell, [&](auto cell) {
    launch(context, cuda::recurrent_kernel<cell.value>, sample_blocks(s), dim3(kThreads), 0, s,
           data);
  });
}

void recurrent_backward(Context& context, const RecurrentShape& s, const float* dy,
                        const float* kept, const float* previous, const float* recurrent_kernel,
                        float* da, float* dm, void* workspace) {
  const RecurrentWork w = recurrent_work(s, Pass::backward_input, workspace);
  const std::int64_t columns = s.gates() * s.U;
  if (s.N == 0) return;
  launch(context, transpose_kernel, dim3(blocks_for(context, s.U * columns, 32 * 32)),
         dim3(kThreads), 0, s.U, columns, recurrent_kernel, w.transposed);
  const RecurrentGradientData data = {
      dy, kept, previous, w.transposed, da, s.cell == Cell::gru ? dm : da, w.h, w.c};
  with_cell(s.cell, [&](auto cell) {
    launch(context, recurrent_backward_kernel<cell.value>, sample_blocks(s), dim3(kThreads), 0, s,
           data);
  });
}

}  // namespace convlet::cuda
