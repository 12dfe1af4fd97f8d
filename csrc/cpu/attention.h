// attention and its gradient (formulas in ops/attention.h) with the tile of gemm.h. A piece of work
// is a block of queries of one head, or in the backward all queries and a part of the keys of one
// head; scores exist for one block of queries and keys at a time, in workspace that the cache
// holds. The backward takes many queries and few keys at a time: its sums over queries are then
// long, and dk and dv, far apart in memory, are written once.
namespace convlet::CONVLET_ISA {

constexpr std::int64_t kQueries = 72;  // the most per block; a multiple of the tile's rows
constexpr std::int64_t kKeys = 256;    // per block; a multiple of kPanel
// From one row of scores to the next: not a power of two, whose rows would compete for the same
// lines of the cache.
constexpr std::int64_t kScorePitch = kKeys + 16;
constexpr float kLowestScore = -3.40282347e38f;

// Where one head of one sample starts, and how far its tokens are apart.
template <class T>
struct HeadColumns {
  T* data;
  std::int64_t stride;

  T* row(std::int64_t token) const { return data + token * stride; }
};

// `head` counts over samples and heads; a head has `columns` of the columns of each of `tokens`
// tokens.
template <class T>
inline HeadColumns<T> head_of(T* data, const AttentionShape& s, std::int64_t head,
                              std::int64_t tokens, std::int64_t columns) {
  const std::int64_t n = head / s.H, h = head % s.H, stride = s.H * columns;
  return {data + n * tokens * stride + h * columns, stride};
}

// The pieces into which T queries are cut: nearly equal, of at most kQueries.
struct QueryBlocks {
  std::int64_t T;

  std::int64_t count() const { return ceil_div(T, kQueries); }
  std::int64_t first(std::int64_t block) const { return T * block / count(); }
};

// How many of the keys [first, first + count) the query t sees.
inline std::int64_t visible_keys(const AttentionShape& s, std::int64_t t, std::int64_t first,
                                 std::int64_t count) {
  return s.causal ? larger(0, smaller(count, t + 1 - first)) : count;
}

// The random numbers of a query's keys start at a multiple of this of the stream's: the most that
// any vector makes at once.
constexpr std::int64_t kPitch = 32;
static_assert(kPitch % ParallelPhilox::kNumbers == 0, "rows begin with whole draws");

class ScoreDropout {
 public:
  ScoreDropout(const AttentionShape& s, float rate, const RandomStep* random, std::uint64_t stream)
      : rate_(rate),
        pitch_(static_cast<std::uint64_t>(ceil_div(s.S, kPitch) * kPitch)),
        start_(rate > 0 ? random->step << 40 : 0),
        philox_(rate > 0 ? random->seed : 0, stream) {}

  bool active() const { return rate_ > 0; }

  // factor[j] = 0 or 1 / (1 - rate) for the keys [first, first + count) of row `row` of all
  // queries; `first` is a multiple of kPitch, factor has room for a multiple of it.
  void factors(std::int64_t row, std::int64_t first, std::int64_t count, float* factor) const {
    const std::uint64_t index =
        static_cast<std::uint64_t>(row) * pitch_ + static_cast<std::uint64_t>(first);
    for (std::int64_t j = 0; j < count; j += ParallelPhilox::kNumbers) {
      philox_.uniforms(start_ + (index + static_cast<std::uint64_t>(j)) / 4, factor + j);
      for (std::int64_t i = j; i < j + ParallelPhilox::kNumbers; i += V::width)
        store(factor + i, select(load(factor + i) < broadcast(rate_), zero(),
                                 broadcast(1.0f) / broadcast(1.0f - rate_)));
    }
  }

 private:
  float rate_;
  std::uint64_t pitch_, start_;
  ParallelPhilox philox_;
};

// ------------------------------------------------------------ forward

struct AttentionForward {
  std::int64_t* packed;           // by worker: the head whose keys and values it has packed, or -1
  float *keys, *values, *scores;  // per worker; keys are packed transposed
  std::int64_t key_floats, value_floats;
  Row* rows;  // from queries to scores, then from scores to results
  std::size_t bytes;
};

inline AttentionForward make_attention_forward(const AttentionShape& s, int threads, void* memory) {
  AttentionForward w;
  Workspace workspace(memory);
  w.key_floats = s.D * Panels{s.S}.padded_columns();
  w.value_floats = s.S * Panels{s.E}.padded_columns();
  w.packed = workspace.take<std::int64_t>(threads);
  w.keys = workspace.take<float>(w.key_floats * threads);
  w.values = workspace.take<float>(w.value_floats * threads);
  w.scores = workspace.take<float>(kQueries * kScorePitch * threads);
  w.rows = workspace.take<Row>(2 * kQueries);
  w.bytes = workspace.bytes();
  return w;
}

// One row of scores becomes exponentials below the largest score so far; what was summed before,
// also in y, is brought to that. A row of which no score is finite ends as NaN.
inline void softmax_step(float* scores, std::int64_t keys, std::int64_t visible, float scale,
                         float* maximum, float* sum, float* y, std::int64_t E) {
  const V factor = broadcast(scale), lowest = broadcast(kLowestScore);
  V best = broadcast(*maximum);
  for_vectors(0, visible, [&](std::int64_t j, auto lanes) {
    best = max(keep(load(scores + j, lanes) * factor, lowest, lanes), best);
  });
  const float before = *maximum;
  *maximum = max_of_lanes(best);
  const V largest = broadcast(*maximum);
  const float total = row_sum(visible, [=](std::int64_t j, auto lanes) {
    const V e = exp_negative(load(scores + j, lanes) * factor - largest);
    store(scores + j, e, lanes);
    return e;
  });
  clear(scores + visible, keys - visible);
  if (*maximum == before || *sum == 0.0f) {
    *sum += total;
    return;
  }
  const V correction = exp(broadcast(before) - largest);
  *sum = *sum * first_lane(correction) + total;
  for_vectors(0, E, [=](std::int64_t e, auto lanes) {
    store(y + e, load(y + e, lanes) * correction, lanes);
  });
}

// The results of the queries [first, first + count) of a head whose keys and values are packed.
inline void attend(const AttentionShape& s, const ScoreDropout& dropout, std::int64_t head,
                   std::int64_t first, std::int64_t count, const float* q, const float* keys,
                   const float* values, float* scores, const Row* rows, HeadColumns<float> y,
                   float* lse) {
  float maximum[kQueries], sum[kQueries], factor[kKeys];
  for (std::int64_t i = 0; i < count; ++i) {
    maximum[i] = kLowestScore;
    sum[i] = 0.0f;
  }
  const std::int64_t seen = visible_keys(s, first + count - 1, 0, s.S);
  const Panels value_panels = {s.E};
  for (std::int64_t b = 0; b < seen; b += kKeys) {
    const std::int64_t n = smaller(kKeys, s.S - b);
    multiply_packed(q, rows, count, s.D, 1, keys + b * s.D, {n}, scores, false);
    for (std::int64_t i = 0; i < count; ++i) {
      float* row = scores + i * kScorePitch;
      softmax_step(row, n, visible_keys(s, first + i, b, n), s.scale, &maximum[i], &sum[i],
                   y.row(first + i), s.E);
      if (!dropout.active()) continue;
      dropout.factors(head * s.T + first + i, b, n, factor);
      for_vectors(0, n, [&](std::int64_t j, auto lanes) {
        store(row + j, load(row + j, lanes) * load(factor + j, lanes), lanes);
      });
    }
    multiply_packed(scores, rows + kQueries, count, n, 1,
                    values + b * value_panels.padded_columns(), value_panels, y.row(first), b > 0);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    float* row = y.row(first + i);
    for_vectors(0, s.E, [&](std::int64_t e, auto lanes) {
      store(row + e, load(row + e, lanes) / broadcast(sum[i]), lanes);
    });
    if (lse) lse[head * s.T + first + i] = maximum[i] + logarithm(sum[i]);
  }
}

inline void pack_head(const AttentionShape& s, HeadColumns<const float> k,
                      HeadColumns<const float> v, float* keys, float* values) {
  const Panels value_panels = {s.E};
  for (std::int64_t b = 0; b < s.S; b += kKeys) {
    const std::int64_t n = smaller(kKeys, s.S - b);
    pack_panels_transposed(k.row(b), k.stride, s.D, {n}, keys + b * s.D);
    pack_panels(v.row(b), v.stride, n, value_panels, values + b * value_panels.padded_columns());
  }
}

inline void attention(Context& context, const AttentionShape& s, float rate,
                      const RandomStep* random, std::uint64_t stream, const float* q,
                      const float* k, const float* v, float* y, float* lse, void* memory) {
  const AttentionForward w = make_attention_forward(s, context.threads(), memory);
  const ScoreDropout drop(s, rate, random, stream);
  const QueryBlocks blocks = {s.T};
  for (int worker = 0; worker < context.threads(); ++worker) w.packed[worker] = -1;
  list_dense_rows(kQueries, s.H * s.D, kScorePitch, w.rows);
  list_dense_rows(kQueries, kScorePitch, s.H * s.E, w.rows + kQueries);
  parallel_for(context, s.N * s.H * blocks.count(), grain_of(s.T * s.S / 8 * (s.D + s.E)),
               [&](std::int64_t begin, std::int64_t end, int worker) {
                 float* keys = w.keys + worker * w.key_floats;
                 float* values = w.values + worker * w.value_floats;
                 for (std::int64_t item = begin; item < end; ++item) {
                   const std::int64_t head = item / blocks.count(), block = item % blocks.count();
                   if (w.packed[worker] != head)
                     pack_head(s, head_of(k, s, head, s.S, s.D), head_of(v, s, head, s.S, s.E),
                               keys, values);
                   w.packed[worker] = head;
                   const std::int64_t first = blocks.first(block);
                   attend(s, drop, head, first, blocks.first(block + 1) - first,
                          head_of(q, s, head, s.T, s.D).row(first), keys, values,
                          w.scores + worker * kQueries * kScorePitch, w.rows,
                          head_of(y, s, head, s.T, s.E), lse);
                 }
               });
}

// ------------------------------------------------------------ backward

constexpr std::int64_t kGradientQueries = 256, kGradientKeys = 96;  // the most per block

// From one row to the next for rows of `columns`: whole vectors, and an odd number of lines, so
// that a column's lines lie in all sets of the cache.
inline std::int64_t spread_pitch(std::int64_t columns) {
  return (ceil_div(columns, kLineFloats) | 1) * kLineFloats;
}

struct AttentionBackward {
  std::int64_t parts;  // into which the keys of a head are cut; fixed by the shape
  float* partial;      // dq of all parts but the first
  std::int64_t query_pitch, value_pitch, score_pitch;
  // Per worker. Of a block of queries: these, dy, dy . y and dq. Of a block of keys: these, and
  // keys and values transposed. Of both: P, dS.
  float *queries, *dy, *delta, *dq, *keys, *keys_across, *values_across, *probabilities, *gradients;
  Row *to_scores, *dy_to_scores, *to_dq, *to_dk, *to_dv;
  std::int64_t worker_floats;
  std::size_t bytes;

  AttentionBackward of(int worker) const {
    AttentionBackward own = *this;
    float** const parts_of_worker[] = {
        &own.queries,  &own.dy,          &own.delta,         &own.dq,
        &own.keys,     &own.keys_across, &own.values_across, &own.probabilities,
        &own.gradients};
    for (float** part : parts_of_worker) *part += worker * worker_floats;
    return own;
  }
};

inline AttentionBackward make_attention_backward(const AttentionShape& s, int threads,
                                                 void* memory) {
  AttentionBackward w;
  // Few heads are cut further, so that there is work for all threads.
  w.parts = s.N * s.H >= 16 ? 1 : larger(1, smaller(4, s.S / 64));
  w.query_pitch = spread_pitch(s.D);
  w.value_pitch = spread_pitch(s.E);
  w.score_pitch = spread_pitch(kGradientKeys);
  Workspace workspace(memory);
  w.partial = workspace.take<float>((w.parts - 1) * s.q().elements());
  w.to_scores = workspace.take<Row>(kGradientQueries);
  w.dy_to_scores = workspace.take<Row>(kGradientQueries);
  w.to_dq = workspace.take<Row>(kGradientQueries);
  w.to_dk = workspace.take<Row>(kGradientKeys);
  w.to_dv = workspace.take<Row>(kGradientKeys);
  const std::size_t before = workspace.bytes();
  w.queries = workspace.take<float>(kGradientQueries * w.query_pitch);
  w.dq = workspace.take<float>(kGradientQueries * w.query_pitch);
  w.dy = workspace.take<float>(kGradientQueries * w.value_pitch);
  w.delta = workspace.take<float>(kGradientQueries);
  w.keys = workspace.take<float>(kGradientKeys * w.query_pitch);
  w.keys_across = workspace.take<float>(s.D * kGradientKeys);
  w.values_across = workspace.take<float>(s.E * kGradientKeys);
  w.probabilities = workspace.take<float>(kGradientQueries * w.score_pitch);
  w.gradients = workspace.take<float>(kGradientQueries * w.score_pitch);
  const std::size_t one = workspace.bytes() - before;
  w.worker_floats = static_cast<std::int64_t>(one / sizeof(float));
  w.bytes = before + one * static_cast<std::size_t>(threads);
  return w;
}

inline std::size_t attention_workspace(const AttentionShape& s, Pass pass, int threads) {
  return pass == Pass::forward ? make_attention_forward(s, threads, nullptr).bytes
                               : make_attention_backward(s, threads, nullptr).bytes;
}

// c = a b, or c += a b, as multiply_packed, with the rows of b `pitch` apart.
inline void multiply_spread(const float* a, const Row* rows, std::int64_t row_count,
                            std::int64_t terms, std::int64_t stride, const float* b,
                            std::int64_t pitch, std::int64_t columns, float* c, bool accumulate) {
  const Panels panels = {columns};
  const std::int64_t stretches = larger(1, ceil_div(terms, kLongestStretch));
  for (std::int64_t p = 0; p < panels.count(); ++p)
    for (std::int64_t i = 0; i < stretches; ++i) {
      const std::int64_t first = terms * i / stretches, last = terms * (i + 1) / stretches;
      const Run run = {first * stride, last - first, stride, first};
      multiply(a, rows, row_count, &run, 1, b + p * kPanel, pitch, c + p * kPanel,
               panels.columns_of(p), {nullptr, accumulate || i > 0, Activation::none});
    }
}

// What the backward of one head reads and writes; the statistics of its queries come as lse and y.
struct HeadGradient {
  HeadColumns<const float> q, k, v, y, dy;
  const float* lse;  // of its first query
  HeadColumns<float> dq, dk, dv;
  std::int64_t row;  // of its first query, among all queries
};

// The queries [first, first + count) and n keys from b on.
struct ScoreBlock {
  std::int64_t first, count, b, n;
};

// From row `skipped` of a block on, scores become P, as it multiplies v, and dP becomes scale * dS.
inline void score_gradients(const AttentionShape& s, const ScoreDropout& dropout,
                            const HeadGradient& head, const ScoreBlock& block, std::int64_t skipped,
                            const AttentionBackward& w) {
  float factor[kGradientKeys];
  for (std::int64_t i = skipped; i < block.count; ++i) {
    const std::int64_t t = block.first + i, visible = visible_keys(s, t, block.b, block.n);
    const V scale = broadcast(s.scale), lse = broadcast(head.lse[t]), delta = broadcast(w.delta[i]);
    float *p = w.probabilities + i * w.score_pitch, *g = w.gradients + i * w.score_pitch;
    if (dropout.active()) {
      dropout.factors(head.row + t, block.b, block.n, factor);
      for_vectors(0, visible, [&](std::int64_t j, auto lanes) {
        const V e = exp_negative(load(p + j, lanes) * scale - lse), kept = load(factor + j, lanes);
        store(p + j, e * kept, lanes);
        store(g + j, e * (load(g + j, lanes) * kept - delta) * scale, lanes);
      });
    } else {
      for_vectors(0, visible, [&](std::int64_t j, auto lanes) {
        const V e = exp_negative(load(p + j, lanes) * scale - lse);
        store(p + j, e, lanes);
        store(g + j, e * (load(g + j, lanes) - delta) * scale, lanes);
      });
    }
    clear(p + visible, block.n - visible);
    clear(g + visible, block.n - visible);
  }
}

// The share of a block in w.dq and its keys' dk and dv: stored by the first block of keys or of
// queries, added by the later ones.
inline void attend_backward(const AttentionShape& s, const ScoreDropout& dropout,
                            const HeadGradient& head, const ScoreBlock& block, bool first_keys,
                            const AttentionBackward& w) {
  const std::int64_t b = block.b, n = block.n, pitch = w.score_pitch;
  // The queries before `skipped` see none of the keys.
  const std::int64_t skipped = s.causal ? larger(0, smaller(block.count, b - block.first)) : 0;
  const std::int64_t count = block.count - skipped;
  const float *q = w.queries + skipped * w.query_pitch, *dy = w.dy + skipped * w.value_pitch;
  float *p = w.probabilities + skipped * pitch, *g = w.gradients + skipped * pitch;
  multiply_packed(q, w.to_scores, count, s.D, 1, w.keys_across, {n}, p, false);
  multiply_packed(dy, w.dy_to_scores, count, s.E, 1, w.values_across, {n}, g, false);
  score_gradients(s, dropout, head, block, skipped, w);
  if (first_keys) clear(w.dq, skipped * w.query_pitch);
  multiply_spread(g, w.to_dq, count, n, 1, w.keys, w.query_pitch, s.D,
                  w.dq + skipped * w.query_pitch, !first_keys);
  multiply_spread(p, w.to_dv, n, count, pitch, dy, w.value_pitch, s.E, head.dv.row(b),
                  block.first > 0);
  multiply_spread(g, w.to_dk, n, count, pitch, q, w.query_pitch, s.D, head.dk.row(b),
                  block.first > 0);
}

// Tokens next to each other: at their own distance, often a multiple of a large power of two, they
// would compete for the same lines of the cache.
inline void copy_tokens(HeadColumns<const float> x, std::int64_t first, std::int64_t count,
                        std::int64_t columns, float* to, std::int64_t pitch) {
  for (std::int64_t i = 0; i < count; ++i) copy(to + i * pitch, x.row(first + i), columns);
}

// All gradients of one head from the keys [begin, end); dq is their share.
inline void head_backward(const AttentionShape& s, const ScoreDropout& dropout,
                          const HeadGradient& head, std::int64_t begin, std::int64_t end,
                          const AttentionBackward& w) {
  const std::int64_t query_blocks = ceil_div(s.T, kGradientQueries);
  const std::int64_t units = ceil_div(end - begin, kPitch);
  const std::int64_t key_blocks = ceil_div(end - begin, kGradientKeys);
  for (std::int64_t i = 0; i < query_blocks; ++i) {
    ScoreBlock block;
    block.first = s.T * i / query_blocks;
    block.count = s.T * (i + 1) / query_blocks - block.first;
    copy_tokens(head.q, block.first, block.count, s.D, w.queries, w.query_pitch);
    copy_tokens(head.dy, block.first, block.count, s.E, w.dy, w.value_pitch);
    for (std::int64_t t = 0; t < block.count; ++t) {
      const float *y = head.y.row(block.first + t), *dy = w.dy + t * w.value_pitch;
      w.delta[t] = row_sum(s.E, [=](std::int64_t e, auto lanes) {
        return load(y + e, lanes) * load(dy + e, lanes);
      });
    }
    for (std::int64_t j = 0; j < key_blocks; ++j) {
      block.b = begin + units * j / key_blocks * kPitch;
      block.n = smaller(end, begin + units * (j + 1) / key_blocks * kPitch) - block.b;
      copy_tokens(head.k, block.b, block.n, s.D, w.keys, w.query_pitch);
      pack_panels_transposed(w.keys, w.query_pitch, s.D, {block.n}, w.keys_across);
      pack_panels_transposed(head.v.row(block.b), head.v.stride, s.E, {block.n}, w.values_across);
      attend_backward(s, dropout, head, block, j == 0, w);
    }
    for (std::int64_t t = 0; t < block.count; ++t)
      copy(head.dq.row(block.first + t), w.dq + t * w.query_pitch, s.D);
  }
}

// The keys of part `part` start here, at a multiple of kPitch.
inline std::int64_t first_key(const AttentionShape& s, std::int64_t parts, std::int64_t part) {
  return part == parts ? s.S : s.S * part / parts / kPitch * kPitch;
}

inline void attention_backward(Context& context, const AttentionShape& s, float rate,
                               const RandomStep* random, std::uint64_t stream, const float* dy,
                               const float* q, const float* k, const float* v, const float* y,
                               const float* lse, float* dq, float* dk, float* dv, void* memory) {
  const AttentionBackward w = make_attention_backward(s, context.threads(), memory);
  const ScoreDropout drop(s, rate, random, stream);
  const std::int64_t query_floats = s.q().elements();
  list_dense_rows(kGradientQueries, w.query_pitch, w.score_pitch, w.to_scores);
  list_dense_rows(kGradientQueries, w.value_pitch, w.score_pitch, w.dy_to_scores);
  list_dense_rows(kGradientQueries, w.score_pitch, w.query_pitch, w.to_dq);
  list_dense_rows(kGradientKeys, 1, s.H * s.D, w.to_dk);
  list_dense_rows(kGradientKeys, 1, s.H * s.E, w.to_dv);
  parallel_for(context, s.N * s.H * w.parts, grain_of(s.T * s.S / w.parts / 2 * (s.D + s.E)),
               [&](std::int64_t begin, std::int64_t end, int worker) {
                 for (std::int64_t item = begin; item < end; ++item) {
                   const std::int64_t head = item / w.parts, part = item % w.parts;
                   float* part_dq = part == 0 ? dq : w.partial + (part - 1) * query_floats;
                   const HeadGradient gradient = {
                       head_of(q, s, head, s.T, s.D),       head_of(k, s, head, s.S, s.D),
                       head_of(v, s, head, s.S, s.E),       head_of(y, s, head, s.T, s.E),
                       head_of(dy, s, head, s.T, s.E),      lse + head * s.T,
                       head_of(part_dq, s, head, s.T, s.D), head_of(dk, s, head, s.S, s.D),
                       head_of(dv, s, head, s.S, s.E),      head * s.T};
                   head_backward(s, drop, gradient, first_key(s, w.parts, part),
                                 first_key(s, w.parts, part + 1), w.of(worker));
                 }
               });
  add_parts(context, w.parts, query_floats, w.partial, dq);
}

}  // namespace convlet::CONVLET_ISA
