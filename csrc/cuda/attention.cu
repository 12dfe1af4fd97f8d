// attention and its gradient (formulas in ops/attention.h). A block has 64 tokens of one head, the
// rows, and passes over the others of that head 64 at a time: their products with the rows become
// weights in shared memory, which sum up 64 or 128 columns of the others' values in registers. The
// forward and the gradients of q, k and v are this pass with different operands, so nothing is
// added from two places. Each of 16 x 16 threads has 4 x 4 of the products and of the results.
#include <type_traits>

#include "core/rng.h"
#include "cuda/gpu.cuh"
#include "cuda/launch.h"
#include "ops/kernels.h"

namespace convlet::cuda {
namespace {

constexpr int kTokens = 64;  // rows of a block, and others at a time
constexpr int kDepth = 32;   // columns of a product at a time
constexpr int kPitch = 36;   // from row to row of an operand: 8 neighbours lie in different banks
constexpr int kWeightPitch = 68;
constexpr int kThreads = 256;
constexpr float kLowestScore = -3.40282347e38f;

// Up to kTokens tokens of a sample, and of each the columns of one head. Inside a block 32 bits
// count.
template <class T>
struct HeadTokens {
  T* data;
  std::int64_t stride;
  int tokens, columns;
  bool vectors;  // can be read 16 bytes at a time
};

// One head of all tokens.
template <class T>
struct Head {
  T* data;
  std::int64_t tokens, columns, stride;

  // From this token and column on.
  CONVLET_DEVICE HeadTokens<T> from(std::int64_t token, std::int64_t column = 0) const {
    T* first = data + token * stride + column;
    return {first, stride, static_cast<int>(min(tokens - token, std::int64_t{kTokens})),
            static_cast<int>(columns - column),
            columns % 4 == 0 && reinterpret_cast<std::uintptr_t>(first) % 16 == 0};
  }
};

template <class T>
CONVLET_DEVICE Head<T> head_of(T* data, std::int64_t heads, std::int64_t head, std::int64_t tokens,
                               std::int64_t columns) {
  const std::int64_t n = head / heads, h = head % heads, stride = heads * columns;
  return {data + n * tokens * stride + h * columns, tokens, columns, stride};
}

// Four columns of a token; zeros beyond the last of either.
CONVLET_DEVICE float4 load_quad(const HeadTokens<const float>& x, int token, int column) {
  float4 quad = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (token >= x.tokens || column >= x.columns) return quad;
  const float* p = x.data + token * x.stride + column;
  if (x.vectors) return *reinterpret_cast<const float4*>(p);
  const int left = x.columns - column;
  quad.x = p[0];
  if (left > 1) quad.y = p[1];
  if (left > 2) quad.z = p[2];
  if (left > 3) quad.w = p[3];
  return quad;
}

CONVLET_DEVICE void store_quad(const HeadTokens<float>& x, int token, int column,
                               const float (&v)[4]) {
  if (token >= x.tokens || column >= x.columns) return;
  float* p = x.data + token * x.stride + column;
  if (x.vectors) {
    *reinterpret_cast<float4*>(p) = make_float4(v[0], v[1], v[2], v[3]);
    return;
  }
  for (int j = 0; j < 4; ++j)
    if (column + j < x.columns) p[j] = v[j];
}

// A block's shared memory: two operands of a product, or the values of the others.
struct Tiles {
  float* operands;  // 2 x kTokens x kPitch, or kTokens x 64
  float* weights;   // kTokens x kWeightPitch
};

CONVLET_DEVICE int thread_row() {
  return static_cast<int>(threadIdx.x) / 16 * 4;
}
CONVLET_DEVICE int thread_column() {
  return static_cast<int>(threadIdx.x) % 16 * 4;
}

// sums[i][j] = the product of row thread_row() + i of `rows` and other thread_column() + j of
// `others`.
CONVLET_DEVICE void multiply(const Tiles& tiles, const HeadTokens<const float>& rows,
                             const HeadTokens<const float>& others, float (&sums)[4][4]) {
  float *a = tiles.operands, *b = a + kTokens * kPitch;
  const int column = thread_column() / 4;
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) sums[i][j] = 0.0f;
  for (int d = 0; d < rows.columns; d += kDepth) {
    __syncthreads();
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < kTokens * kDepth / 4; i += kThreads) {
      const int token = i / (kDepth / 4), quad = i % (kDepth / 4) * 4;
      // The others that a thread reads are 16 rows apart, so that threads side by side read rows
      // side by side.
      const int place = token % 4 * 16 + token / 4;
      *reinterpret_cast<float4*>(a + token * kPitch + quad) = load_quad(rows, token, d + quad);
      *reinterpret_cast<float4*>(b + place * kPitch + quad) = load_quad(others, token, d + quad);
    }
    __syncthreads();
    const float* a_row = a + thread_row() * kPitch;
    const float* b_row = b + column * kPitch;
#pragma unroll 1
    for (int k = 0; k < kDepth; k += 4) {
      float4 x[4], y[4];
      for (int i = 0; i < 4; ++i) {
        x[i] = *reinterpret_cast<const float4*>(a_row + i * kPitch + k);
        y[i] = *reinterpret_cast<const float4*>(b_row + i * 16 * kPitch + k);
      }
      for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 4; ++j) {
          sums[i][j] = fmaf(x[i].x, y[j].x, sums[i][j]);
          sums[i][j] = fmaf(x[i].y, y[j].y, sums[i][j]);
          sums[i][j] = fmaf(x[i].z, y[j].z, sums[i][j]);
          sums[i][j] = fmaf(x[i].w, y[j].w, sums[i][j]);
        }
    }
  }
}

// results += weights * values, for kChunks times 64 columns of the values. The weights of a row
// were written by the threads of its warp.
template <int kChunks>
CONVLET_DEVICE void accumulate(const Tiles& tiles, const HeadTokens<const float>& values,
                               float (&results)[kChunks][4][4]) {
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    __syncthreads();
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < kTokens * 16; i += kThreads)
      *reinterpret_cast<float4*>(tiles.operands + i * 4) =
          load_quad(values, i / 16, chunk * 64 + i % 16 * 4);
    __syncthreads();
    const float* weight = tiles.weights + thread_row() * kWeightPitch;
    const float* value = tiles.operands + thread_column();
    float (&sums)[4][4] = results[chunk];
#pragma unroll 1
    for (int k = 0; k < kTokens; k += 4) {
      float4 w[4], x[4];
      for (int i = 0; i < 4; ++i) {
        w[i] = *reinterpret_cast<const float4*>(weight + i * kWeightPitch + k);
        x[i] = *reinterpret_cast<const float4*>(value + (k + i) * 64);
      }
      for (int i = 0; i < 4; ++i) {
        const float of_row[4] = {w[i].x, w[i].y, w[i].z, w[i].w};
        for (int j = 0; j < 4; ++j) {
          sums[i][0] = fmaf(of_row[j], x[j].x, sums[i][0]);
          sums[i][1] = fmaf(of_row[j], x[j].y, sums[i][1]);
          sums[i][2] = fmaf(of_row[j], x[j].z, sums[i][2]);
          sums[i][3] = fmaf(of_row[j], x[j].w, sums[i][3]);
        }
      }
    }
  }
}

CONVLET_DEVICE void store_weights(const Tiles& tiles, const float (&weights)[4][4]) {
  for (int i = 0; i < 4; ++i)
    *reinterpret_cast<float4*>(tiles.weights + (thread_row() + i) * kWeightPitch +
                               thread_column()) =
        make_float4(weights[i][0], weights[i][1], weights[i][2], weights[i][3]);
}

// Which of the probabilities multiply, and by what: ops/kernels.h.
struct ScoreDropout {
  float rate;
  const RandomStep* random;
  std::uint64_t stream;
  std::int64_t pitch;  // of a query's keys

  // 0 or 1 / (1 - rate) for four keys from `key` on, a multiple of 4, of query number `row` of all.
  CONVLET_DEVICE void factors(std::int64_t row, std::int64_t key, float (&factor)[4]) const {
    const auto index = static_cast<std::uint64_t>(row * pitch + key);
    const Philox words = philox(random->seed, stream, (random->step << 40) + index / 4);
    for (int j = 0; j < 4; ++j)
      factor[j] = uniform(words.word[j]) < rate ? 0.0f : 1.0f / (1.0f - rate);
  }
};

ScoreDropout score_dropout(const AttentionShape& s, float rate, const RandomStep* random,
                           std::uint64_t stream) {
  return {rate, random, stream, (s.S + 31) / 32 * 32};
}

CONVLET_DEVICE bool visible(const AttentionShape& s, std::int64_t query, std::int64_t key) {
  return query < s.T && key < s.S && (!s.causal || key <= query);
}

// What one block does: 64 rows of a head, and a group of columns of the result.
struct Work {
  std::int64_t rows, columns;  // of a head
  std::int64_t heads;          // of all samples
  int chunks;                  // times 64 columns in a group

  CONVLET_HOST_DEVICE std::int64_t blocks() const { return (rows + kTokens - 1) / kTokens; }
  CONVLET_HOST_DEVICE std::int64_t groups() const {
    return (columns + chunks * 64 - 1) / (chunks * 64);
  }
  CONVLET_HOST_DEVICE std::int64_t items() const { return heads * groups() * blocks(); }
};

// f(head, first row, first column) for the items of this block.
template <class F>
CONVLET_DEVICE void for_items(const Work& work, F f) {
  const std::int64_t blocks = work.blocks(), groups = work.groups(), items = work.items();
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x)
    f(item / blocks / groups, item % blocks * kTokens, item / blocks % groups * work.chunks * 64);
}

// kernel<chunks>(work, ...) for a result of this many rows and columns per head.
template <class F>
void with_work(const AttentionShape& s, std::int64_t rows, std::int64_t columns, F&& f) {
  Work work = {rows, columns, s.N * s.H, columns > 64 ? 2 : 1};
  const dim3 grid(
      static_cast<unsigned>(std::min<std::int64_t>(work.items(), std::int64_t{1} << 30)));
  if (work.chunks == 2)
    f(std::integral_constant<int, 2>(), work, grid);
  else
    f(std::integral_constant<int, 1>(), work, grid);
}

// ---------------------------------------------------------------- forward

// Of 16 threads that have a row together.
CONVLET_DEVICE float row_maximum(float value) {
  for (int other = 8; other > 0; other /= 2)
    value = fmaxf(value, __shfl_xor_sync(~0u, value, other));
  return value;
}
CONVLET_DEVICE float row_sum(float value) {
  for (int other = 8; other > 0; other /= 2) value += __shfl_xor_sync(~0u, value, other);
  return value;
}

// The largest score so far of each of a thread's rows, and the sum of the exponentials below it.
struct SoftmaxState {
  float maximum[4], sum[4];
};

// Scores of a row become exponentials below the largest score so far; what was summed before is
// brought to that. A row of which no score is finite ends as NaN.
template <int kChunks>
CONVLET_DEVICE void softmax_step(const AttentionShape& s, std::int64_t query, std::int64_t key,
                                 float (&scores)[4][4], SoftmaxState& state,
                                 float (&results)[kChunks][4][4]) {
  for (int i = 0; i < 4; ++i) {
    float largest = state.maximum[i];
    for (int j = 0; j < 4; ++j) {
      scores[i][j] *= s.scale;
      if (visible(s, query + i, key + j)) largest = fmaxf(largest, scores[i][j]);
    }
    largest = row_maximum(largest);
    float total = 0.0f;
    for (int j = 0; j < 4; ++j) {
      scores[i][j] = visible(s, query + i, key + j) ? expf(scores[i][j] - largest) : 0.0f;
      total += scores[i][j];
    }
    const float correction = expf(state.maximum[i] - largest);
    state.maximum[i] = largest;
    state.sum[i] = fmaf(state.sum[i], correction, row_sum(total));
    for (int chunk = 0; chunk < kChunks; ++chunk)
      for (int j = 0; j < 4; ++j) results[chunk][i][j] *= correction;
  }
}

template <int kChunks>
__global__ void __launch_bounds__(kThreads, kChunks == 1 ? 2 : 1)
    attention_kernel(AttentionShape s, Work work, ScoreDropout dropout, const float* q,
                     const float* k, const float* v, float* y, float* lse) {
  CONVLET_SHARED(float, operands, [2 * kTokens * kPitch]);
  CONVLET_SHARED(float, weights, [kTokens * kWeightPitch]);
  const Tiles tiles = {operands, weights};
  for_items(work, [&](std::int64_t head, std::int64_t first, std::int64_t column) {
    const auto queries = head_of(q, s.H, head, s.T, s.D), keys = head_of(k, s.H, head, s.S, s.D);
    const auto values = head_of(v, s.H, head, s.S, s.E);
    const std::int64_t query = first + thread_row();
    const std::int64_t seen = s.causal ? min(s.S, first + kTokens) : s.S;
    float results[kChunks][4][4] = {};
    SoftmaxState state;
    for (int i = 0; i < 4; ++i) {
      state.maximum[i] = kLowestScore;
      state.sum[i] = 0.0f;
    }
    for (std::int64_t b = 0; b < seen; b += kTokens) {
      float scores[4][4];
      multiply(tiles, queries.from(first), keys.from(b), scores);
      softmax_step<kChunks>(s, query, b + thread_column(), scores, state, results);
      if (dropout.rate > 0.0f)
        for (int i = 0; i < 4; ++i) {
          float factor[4];
          dropout.factors(head * s.T + query + i, b + thread_column(), factor);
          for (int j = 0; j < 4; ++j) scores[i][j] *= factor[j];
        }
      store_weights(tiles, scores);
      accumulate<kChunks>(tiles, values.from(b, column), results);
    }
    const auto to = head_of(y, s.H, head, s.T, s.E).from(first, column);
    for (int i = 0; i < 4; ++i) {
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        for (float& value : results[chunk][i]) value /= state.sum[i];
        store_quad(to, thread_row() + i, chunk * 64 + thread_column(), results[chunk][i]);
      }
      if (lse && column == 0 && thread_column() == 0 && query + i < s.T)
        lse[head * s.T + query + i] = state.maximum[i] + logf(state.sum[i]);
    }
  });
}

// ---------------------------------------------------------------- backward

enum class Operand { query, key, value };

// delta[n,h,t] = dy[t] . y[t] of each head, by a warp.
__global__ void __launch_bounds__(kThreads)
    attention_delta_kernel(AttentionShape s, const float* dy, const float* y, float* delta) {
  constexpr int kWarps = kThreads / 32;
  const std::int64_t rows = s.N * s.H * s.T;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  for (std::int64_t row = static_cast<std::int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
       row < rows; row += static_cast<std::int64_t>(gridDim.x) * kWarps) {
    const std::int64_t t = row % s.T;
    const auto a = head_of(dy, s.H, row / s.T, s.T, s.E), b = head_of(y, s.H, row / s.T, s.T, s.E);
    float sum = 0.0f;
    for (std::int64_t e = lane; e < s.E; e += 32)
      sum = fmaf(a.data[t * a.stride + e], b.data[t * b.stride + e], sum);
    for (int other = 16; other > 0; other /= 2) sum += __shfl_xor_sync(~0u, sum, other);
    if (lane == 0) delta[row] = sum;
  }
}

struct AttentionData {
  const float *dy, *q, *k, *v, *lse, *delta;
};

// The weights of four rows and four others, from their scores and, but for dv, from dP.
template <Operand kOf>
CONVLET_DEVICE void gradient_weights(const AttentionShape& s, const ScoreDropout& dropout,
                                     const AttentionData& data, std::int64_t head, std::int64_t row,
                                     std::int64_t other, float (&scores)[4][4],
                                     const float (&dp)[4][4]) {
  constexpr bool kQueries = kOf == Operand::query;  // the rows are queries
  // Keys lie along the rows of a thread or along its others; a query's four come together.
  for (int a = 0; a < 4; ++a) {
    const std::int64_t query = (kQueries ? row : other) + a, key = kQueries ? other : row;
    const bool inside = query < s.T;
    const std::int64_t at = head * s.T + query;
    const float lse = inside ? data.lse[at] : 0.0f;
    const float delta = inside && kOf != Operand::value ? data.delta[at] : 0.0f;
    float kept[4] = {1.0f, 1.0f, 1.0f, 1.0f};
    if (dropout.rate > 0.0f) dropout.factors(at, key, kept);
    for (int b = 0; b < 4; ++b) {
      const int i = kQueries ? a : b, j = kQueries ? b : a;
      float weight = 0.0f;
      if (visible(s, query, key + b)) {
        weight = expf(scores[i][j] * s.scale - lse);
        weight *= kOf == Operand::value ? kept[b] : (dp[i][j] * kept[b] - delta) * s.scale;
      }
      scores[i][j] = weight;
    }
  }
}

template <Operand kOf, int kChunks>
__global__ void __launch_bounds__(kThreads, kChunks == 1 ? 2 : 1)
    attention_backward_kernel(AttentionShape s, Work work, ScoreDropout dropout, AttentionData data,
                              float* gradient) {
  CONVLET_SHARED(float, operands, [2 * kTokens * kPitch]);
  CONVLET_SHARED(float, weights, [kTokens * kWeightPitch]);
  constexpr bool kQueries = kOf == Operand::query;
  const Tiles tiles = {operands, weights};
  for_items(work, [&](std::int64_t head, std::int64_t first, std::int64_t column) {
    const auto q = head_of(data.q, s.H, head, s.T, s.D), k = head_of(data.k, s.H, head, s.S, s.D);
    const auto dy = head_of(data.dy, s.H, head, s.T, s.E);
    const auto v = head_of(data.v, s.H, head, s.S, s.E);
    const std::int64_t others = kQueries ? (s.causal ? min(s.S, first + kTokens) : s.S) : s.T;
    float results[kChunks][4][4] = {};
    for (std::int64_t b = !kQueries && s.causal ? first : 0; b < others; b += kTokens) {
      float scores[4][4], dp[4][4] = {};
      multiply(tiles, (kQueries ? q : k).from(first), (kQueries ? k : q).from(b), scores);
      if (kOf != Operand::value)
        multiply(tiles, (kQueries ? dy : v).from(first), (kQueries ? v : dy).from(b), dp);
      gradient_weights<kOf>(s, dropout, data, head, first + thread_row(), b + thread_column(),
                            scores, dp);
      store_weights(tiles, scores);
      const auto& values = kQueries ? k : kOf == Operand::key ? q : dy;
      accumulate<kChunks>(tiles, values.from(b, column), results);
    }
    const auto to = head_of(gradient, s.H, head, work.rows, work.columns).from(first, column);
    for (int chunk = 0; chunk < kChunks; ++chunk)
      for (int i = 0; i < 4; ++i)
        store_quad(to, thread_row() + i, chunk * 64 + thread_column(), results[chunk][i]);
  });
}

}  // namespace

std::size_t attention_workspace(const AttentionShape& s, Pass pass, int) {
  return pass == Pass::forward ? 0 : static_cast<std::size_t>(s.lse().elements()) * sizeof(float);
}

void attention(Context& context, const AttentionShape& s, float rate, const RandomStep* random,
               std::uint64_t stream, const float* q, const float* k, const float* v, float* y,
               float* lse, void*) {
  with_work(s, s.T, s.E, [&](auto chunks, const Work& work, dim3 grid) {
    launch(context, attention_kernel<chunks.value>, grid, dim3(kThreads), 0, s, work,
           score_dropout(s, rate, random, stream), q, k, v, y, lse);
  });
}

void attention_backward(Context& context, const AttentionShape& s, float rate,
                        const RandomStep* random, std::uint64_t stream, const float* dy,
                        const float* q, const float* k, const float* v, const float* y,
                        const float* lse, float* dq, float* dk, float* dv, void* workspace) {
  float* delta = static_cast<float*>(workspace);
  launch(context, attention_delta_kernel, dim3(blocks_for(context, s.N * s.H * s.T, 8)),
         dim3(kThreads), 0, s, dy, y, delta);
  const AttentionData data = {dy, q, k, v, lse, delta};
  auto differentiate = [&](auto of, std::int64_t rows, std::int64_t columns, float* gradient) {
    with_work(s, rows, columns, [&](auto chunks, const Work& work, dim3 grid) {
      launch(context, attention_backward_kernel<of.value, chunks.value>, grid, dim3(kThreads), 0, s,
             work, score_dropout(s, rate, random, stream), data, gradient);
    });
  };
  differentiate(std::integral_constant<Operand, Operand::query>(), s.T, s.D, dq);
  differentiate(std::integral_constant<Operand, Operand::key>(), s.S, s.D, dk);
  differentiate(std::integral_constant<Operand, Operand::value>(), s.S, s.E, dv);
}

}  // namespace convlet::cuda
