// layer_norm over rows (formulas in ops/layer_norm.h): a warp per row, or a block per long row. The
// statistics of a row are made again for the backward. Sums along a row are in float32 over a few
// values of a thread, then in float64.
#include <type_traits>

#include "cuda/channels.cuh"
#include "ops/kernels.h"

namespace convlet::cuda {
namespace {

constexpr int kWarps = 8;
constexpr std::int64_t kLongRow = 2048;  // from here on a row has a block

// The threads of a row: a warp of the block, or with kWide all of it.
template <bool kWide>
struct RowThreads {
  static constexpr int kCount = kWide ? 32 * kWarps : 32;
  static constexpr int kRows = kWide ? 1 : kWarps;  // of a block

  static CONVLET_DEVICE int index() { return static_cast<int>(threadIdx.x) % kCount; }
  static CONVLET_DEVICE std::int64_t first_row() {
    return static_cast<std::int64_t>(blockIdx.x) * kRows + static_cast<int>(threadIdx.x) / kCount;
  }
  static CONVLET_DEVICE std::int64_t row_step() {
    return static_cast<std::int64_t>(gridDim.x) * kRows;
  }

  // The sum over the threads of a row, for each of them.
  static CONVLET_DEVICE double sum(double value) {
    for (int other = 16; other > 0; other /= 2) value += __shfl_xor_sync(~0u, value, other);
    if constexpr (kWide) {
      CONVLET_SHARED(double, of_warp, [kWarps]);
      const int warp = static_cast<int>(threadIdx.x) / 32;
      if (threadIdx.x % 32 == 0) of_warp[warp] = value;
      __syncthreads();
      value = 0.0;
      for (int i = 0; i < kWarps; ++i) value += of_warp[i];
      __syncthreads();
    }
    return value;
  }

  // The sum of f(c) over a row's columns c, kVector at a time.
  template <int kVector, class F>
  static CONVLET_DEVICE double sum_columns(std::int64_t columns, F f) {
    constexpr int kPiece = 16;
    double total = 0.0;
    for (std::int64_t c = index() * kVector; c < columns;) {
      float piece = 0.0f;
      for (int i = 0; i < kPiece && c < columns; ++i, c += kCount * kVector) piece += f(c);
      total += static_cast<double>(piece);
    }
    return sum(total);
  }
};

// The mean of a row, rounded, and 1 / sqrt(variance + epsilon).
struct RowScale {
  float mean, inverse;
};

template <int kVector, bool kWide>
CONVLET_DEVICE RowScale row_scale(const float* x, std::int64_t columns, float epsilon) {
  const double count = static_cast<double>(columns);
  const double sum = RowThreads<kWide>::template sum_columns<kVector>(columns, [=](std::int64_t c) {
    float v[kVector], total = 0.0f;
    load_values(x + c, v);
    for (int j = 0; j < kVector; ++j) total += v[j];
    return total;
  });
  const float mean = static_cast<float>(sum / count);
  const double square =
      RowThreads<kWide>::template sum_columns<kVector>(columns, [=](std::int64_t c) {
        float v[kVector], total = 0.0f;
        load_values(x + c, v);
        for (int j = 0; j < kVector; ++j) total = fmaf(v[j] - mean, v[j] - mean, total);
        return total;
      });
  return {mean, static_cast<float>(1.0 / sqrt(square / count + static_cast<double>(epsilon)))};
}

// Calls f for every row of this block's threads, all threads of a block as often.
template <bool kWide, class F>
CONVLET_DEVICE void for_rows(std::int64_t rows, F f) {
  using Threads = RowThreads<kWide>;
  for (std::int64_t n = Threads::first_row(); n < rows; n += Threads::row_step()) f(n);
}

template <int kVector, bool kWide>
__global__ void __launch_bounds__(32 * kWarps)
    layer_norm_kernel(LayerNormShape s, const float* x, const float* gamma, const float* beta,
                      float* y) {
  for_rows<kWide>(s.N, [&](std::int64_t n) {
    const float* from = x + n * s.C;
    const RowScale scale = row_scale<kVector, kWide>(from, s.C, s.epsilon);
    for (std::int64_t c = RowThreads<kWide>::index() * kVector; c < s.C;
         c += RowThreads<kWide>::kCount * kVector) {
      float v[kVector], factor[kVector], offset[kVector];
      load_values(from + c, v);
      load_values(gamma, c, 1.0f, factor);
      load_values(beta, c, 0.0f, offset);
      for (int j = 0; j < kVector; ++j)
        v[j] = (v[j] - scale.mean) * scale.inverse * factor[j] + offset[j];
      store_values(y + n * s.C + c, v);
    }
  });
}

template <int kVector, bool kWide>
__global__ void __launch_bounds__(32 * kWarps)
    row_scales_kernel(LayerNormShape s, const float* x, RowScale* scales) {
  for_rows<kWide>(s.N, [&](std::int64_t n) {
    const RowScale scale = row_scale<kVector, kWide>(x + n * s.C, s.C, s.epsilon);
    if (RowThreads<kWide>::index() == 0) scales[n] = scale;
  });
}

template <int kVector, bool kWide>
__global__ void __launch_bounds__(32 * kWarps)
    layer_norm_backward_kernel(LayerNormShape s, const float* dy, const float* x,
                               const float* gamma, const RowScale* scales, float* dx) {
  using Threads = RowThreads<kWide>;
  for_rows<kWide>(s.N, [&](std::int64_t n) {
    const RowScale scale = scales[n];
    const float *dy_n = dy + n * s.C, *x_n = x + n * s.C;
    // g and x^ of some columns.
    auto read = [&](std::int64_t c, float (&g)[kVector], float (&at)[kVector]) {
      float factor[kVector];
      load_values(dy_n + c, g);
      load_values(x_n + c, at);
      load_values(gamma, c, 1.0f, factor);
      for (int j = 0; j < kVector; ++j) {
        g[j] *= factor[j];
        at[j] = (at[j] - scale.mean) * scale.inverse;
      }
    };
    const double count = static_cast<double>(s.C);
    const double plain = Threads::template sum_columns<kVector>(s.C, [&](std::int64_t c) {
      float g[kVector], at[kVector], total = 0.0f;
      read(c, g, at);
      for (int j = 0; j < kVector; ++j) total += g[j];
      return total;
    });
    const double product = Threads::template sum_columns<kVector>(s.C, [&](std::int64_t c) {
      float g[kVector], at[kVector], total = 0.0f;
      read(c, g, at);
      for (int j = 0; j < kVector; ++j) total = fmaf(g[j], at[j], total);
      return total;
    });
    const float rest = static_cast<float>(plain / count);
    const float slope = static_cast<float>(product / count);
    for (std::int64_t c = Threads::index() * kVector; c < s.C; c += Threads::kCount * kVector) {
      float g[kVector], at[kVector];
      read(c, g, at);
      for (int j = 0; j < kVector; ++j) g[j] = (g[j] - rest - at[j] * slope) * scale.inverse;
      store_values(dx + n * s.C + c, g);
    }
  });
}

// The sums of dy and of dy * x^ by column.
template <int kVector>
struct ColumnTerms {
  static constexpr int kUnroll = 2;
  const float *dy, *x;
  const RowScale* scales;

  struct State {};
  CONVLET_DEVICE State start(std::int64_t, std::int64_t, std::int64_t) const { return {}; }
  CONVLET_DEVICE void add(State, std::int64_t row, std::int64_t at, float (&plain)[kVector],
                          float (&product)[kVector]) const {
    const RowScale scale = scales[row];
    float g[kVector], v[kVector];
    load_values(dy + at, g);
    load_values(x + at, v);
    for (int j = 0; j < kVector; ++j) {
      plain[j] += g[j];
      product[j] = fmaf(g[j], (v[j] - scale.mean) * scale.inverse, product[j]);
    }
  }
};

__global__ void __launch_bounds__(kMergeColumns* kMergeLines)
    merge_columns_kernel(ChannelGrid g, const double* sums, float* dgamma, float* dbeta) {
  for (std::int64_t tile = blockIdx.x; tile * kMergeColumns < g.channels; tile += gridDim.x) {
    const std::int64_t c = tile * kMergeColumns + threadIdx.x;
    const ChannelTotals total =
        merge_sums(sums, g.parts, g.channels, c, [](std::int64_t) { return 1.0; });
    if (threadIdx.y == 0 && c < g.channels) {
      if (dbeta) dbeta[c] = static_cast<float>(total.first);
      if (dgamma) dgamma[c] = static_cast<float>(total.second);
    }
    __syncthreads();
  }
}

// f(vector, wide, blocks) for the kernel that fits a shape and the alignment of its arrays.
template <class F, class... T>
void with_rows(const LayerNormShape& s, F&& f, const T*... pointers) {
  auto with_width = [&](auto vector) {
    if (s.C >= kLongRow)
      f(vector, std::true_type(), dim3(blocks_of(s.N)));
    else
      f(vector, std::false_type(), dim3(blocks_of((s.N + kWarps - 1) / kWarps)));
  };
  if (s.C % 4 == 0 && (aligned_16(pointers) && ...))
    with_width(std::integral_constant<int, 4>());
  else
    with_width(std::integral_constant<int, 1>());
}

}  // namespace

void layer_norm(Context& context, const LayerNormShape& s, const float* x, const float* gamma,
                const float* beta, float* y) {
  with_rows(
      s,
      [&](auto vector, auto wide, dim3 blocks) {
        launch(context, layer_norm_kernel<vector.value, wide.value>, blocks, dim3(32 * kWarps), 0,
               s, x, gamma, beta, y);
      },
      x, gamma, beta, y);
}

std::size_t layer_norm_backward_workspace(const LayerNormShape& s) {
  return static_cast<std::size_t>(channel_grid(1, s.N, s.C).sums()) * sizeof(double) +
         static_cast<std::size_t>(s.N) * sizeof(RowScale);
}

// dgamma and dbeta come first: dx may take the place of dy or x.
void layer_norm_backward(Context& context, const LayerNormShape& s, const float* dy, const float* x,
                         const float* gamma, const AffineGradients& out, void* workspace) {
  const ChannelGrid grid = channel_grid(1, s.N, s.C);
  double* sums = static_cast<double*>(workspace);
  RowScale* scales = reinterpret_cast<RowScale*>(sums + grid.sums());
  with_rows(
      s,
      [&](auto vector, auto wide, dim3 blocks) {
        launch(context, row_scales_kernel<vector.value, wide.value>, blocks, dim3(32 * kWarps), 0,
               s, x, scales);
      },
      x);
  if (out.dgamma || out.dbeta) {
    with_vector(
        grid,
        [&](auto vector, const ChannelGrid& g) {
          sum_channels<vector.value>(context, g, ColumnTerms<vector.value>{dy, x, scales}, sums);
        },
        dy, x);
    launch(context, merge_columns_kernel, merge_grid(s.C), merge_block(), 0, grid, sums, out.dgamma,
           out.dbeta);
  }
  if (out.dx)
    with_rows(
        s,
        [&](auto vector, auto wide, dim3 blocks) {
          launch(context, layer_norm_backward_kernel<vector.value, wide.value>, blocks,
                 dim3(32 * kWarps), 0, s, dy, x, gamma, scales, out.dx);
        },
        dy, x, gamma, out.dx);
}

}  // namespace convlet::cuda
