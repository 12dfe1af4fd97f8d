// attention and its gradient (formulas in ops/attention.h) with the tile of gemm.h. A piece of work
// is a block of queries of one head, or in the backward all queries and a part of the keys of one
// head; scores exist for one block of queries and keys at a time, in workspace that the cache
// holds.
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

struct AttentionBackward {
  std::int64_t parts;  // into which the keys of a head are cut; fixed by the shape
  float* partial;      // dq of all parts but the first
  // Per worker: keys and values of a block transposed, its keys, queries and dy of a block, P, dS.
  float *keys_across, *values_across, *keys, *queries, *dy, *probabilities, *gradients;
  Row* rows;
  std::int64_t worker_floats;
  std::size_t bytes;

  AttentionBackward of(int worker) const {
    AttentionBackward own = *this;
    const std::int64_t offset = worker * worker_floats;
    own.keys_across += offset;
    own.values_across += offset;
    own.keys += offset;
    own.queries += offset;
    own.dy += offset;
    own.probabilities += offset;
    own.gradients += offset;
    return own;
  }
};

// The keys of part `part` start here, at a multiple of kPitch.
inline std::int64_t first_key(const AttentionShape& s, std::int64_t parts, std::int64_t part) {
  return part == parts ? s.S : s.S * part / parts / kPitch * kPitch;
}

inline AttentionBackward make_attention_backward(const AttentionShape& s, int threads,
                                                 void* memory) {
  AttentionBackward w;
  // Few heads are cut further, so that there is work for all threads.
  w.parts = s.N * s.H >= 16 ? 1 : larger(1, smaller(4, s.S / 64));
  Workspace workspace(memory);
  w.partial = workspace.take<float>((w.parts - 1) * s.q().elements());
  w.rows = workspace.take<Row>(3 * kQueries + 2 * kKeys);
  const std::int64_t D = Panels{s.D}.padded_columns(), E = Panels{s.E}.padded_columns();
  const std::size_t before = workspace.bytes();
  w.keys_across = workspace.take<float>(s.D * kKeys);
  w.values_across = workspace.take<float>(s.E * kKeys);
  w.keys = workspace.take<float>(kKeys * D);
  w.queries = workspace.take<float>(kQueries * D);
  w.dy = workspace.take<float>(kQueries * E);
  w.probabilities = workspace.take<float>(kQueries * kScorePitch);
  w.gradients = workspace.take<float>(kQueries * kScorePitch);
  const std::size_t one = workspace.bytes() - before;
  w.worker_floats = static_cast<std::int64_t>(one / sizeof(float));
  w.bytes = before + one * static_cast<std::size_t>(threads);
  return w;
}

inline std::size_t attention_workspace(const AttentionShape& s, Pass pass, int threads) {
  return pass == Pass::forward ? make_attention_forward(s, threads, nullptr).bytes
                               : make_attention_backward(s, threads, nullptr).bytes;
}

// What the backward of one head reads and writes; the statistics of its queries come as lse and y.
struct HeadGradient {
  HeadColumns<const float> q, k, v, y, dy;
  const float* lse;  // of its first query
  HeadColumns<float> dq, dk, dv;
  std::int64_t row;  // of its first query, among all queries
};

// Scores and dP of the queries [first, first + count) and n keys from b on become P, as it
// multiplies v, and scale * dS.
inline void score_gradients(const AttentionShape& s, const ScoreDropout& dropout,
                            const HeadGradient& head, std::int64_t first, std::int64_t count,
                            std::int64_t b, std::int64_t n, float* scores, float* gradients) {
  float factor[kKeys];
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t t = first + i, visible = visible_keys(s, t, b, n);
    const float *y = head.y.row(t), *dy = head.dy.row(t);
    const V delta = broadcast(row_sum(
        s.E, [=](std::int64_t e, auto lanes) { return load(y + e, lanes) * load(dy + e, lanes); }));
    const V scale = broadcast(s.scale), lse = broadcast(head.lse[t]);
    float *p = scores + i * kScorePitch, *g = gradients + i * kScorePitch;
    if (dropout.active()) {
      dropout.factors(head.row + t, b, n, factor);
      for_vectors(0, visible, [&](std::int64_t j, auto lanes) {
        const V e = exp(load(p + j, lanes) * scale - lse), kept = load(factor + j, lanes);
        store(p + j, e * kept, lanes);
        store(g + j, e * (load(g + j, lanes) * kept - delta) * scale, lanes);
      });
    } else {
      for_vectors(0, visible, [&](std::int64_t j, auto lanes) {
        const V e = exp(load(p + j, lanes) * scale - lse);
        store(p + j, e, lanes);
        store(g + j, e * (load(g + j, lanes) - delta) * scale, lanes);
      });
    }
    clear(p + visible, n - visible);
    clear(g + visible, n - visible);
  }
}

// Adds the share of n keys from b on to dq, and all of their dk and dv.
inline void attend_backward(const AttentionShape& s, const ScoreDropout& dropout,
                            const HeadGradient& head, std::int64_t b, std::int64_t n,
                            const AttentionBackward& w) {
  const Panels across = {n}, query_panels = {s.D}, value_panels = {s.E};
  const Row *to_scores = w.rows, *dy_to_scores = to_scores + kQueries;
  const Row *from_scores = dy_to_scores + kQueries, *to_dk = from_scores + kQueries;
  const Row* to_dv = to_dk + kKeys;
  pack_panels_transposed(head.k.row(b), head.k.stride, s.D, across, w.keys_across);
  pack_panels_transposed(head.v.row(b), head.v.stride, s.E, across, w.values_across);
  pack_panels(head.k.row(b), head.k.stride, n, query_panels, w.keys);
  const QueryBlocks blocks = {s.T};
  for (std::int64_t block = 0; block < blocks.count(); ++block) {
    const std::int64_t first = blocks.first(block), count = blocks.first(block + 1) - first;
    if (visible_keys(s, first + count - 1, b, n) == 0) continue;
    multiply_packed(head.q.row(first), to_scores, count, s.D, 1, w.keys_across, across,
                    w.probabilities, false);
    multiply_packed(head.dy.row(first), dy_to_scores, count, s.E, 1, w.values_across, across,
                    w.gradients, false);
    score_gradients(s, dropout, head, first, count, b, n, w.probabilities, w.gradients);
    multiply_packed(w.gradients, from_scores, count, n, 1, w.keys, query_panels, head.dq.row(first),
                    true);
    pack_panels(head.dy.row(first), head.dy.stride, count, value_panels, w.dy);
    multiply_packed(w.probabilities, to_dv, n, count, kScorePitch, w.dy, value_panels,
                    head.dv.row(b), true);
    pack_panels(head.q.row(first), head.q.stride, count, query_panels, w.queries);
    multiply_packed(w.gradients, to_dk, n, count, kScorePitch, w.queries, query_panels,
                    head.dk.row(b), true);
  }
}

inline void clear_rows(HeadColumns<float> x, std::int64_t begin, std::int64_t end,
                       std::int64_t columns) {
  for (std::int64_t t = begin; t < end; ++t) clear(x.row(t), columns);
}

inline void attention_backward(Context& context, const AttentionShape& s, float rate,
                               const RandomStep* random, std::uint64_t stream, const float* dy,
                               const float* q, const float* k, const float* v, const float* y,
                               const float* lse, float* dq, float* dk, float* dv, void* memory) {
  const AttentionBackward w = make_attention_backward(s, context.threads(), memory);
  const ScoreDropout drop(s, rate, random, stream);
  const std::int64_t query_floats = s.q().elements();
  list_dense_rows(kQueries, s.H * s.D, kScorePitch, w.rows);
  list_dense_rows(kQueries, s.H * s.E, kScorePitch, w.rows + kQueries);
  list_dense_rows(kQueries, kScorePitch, s.H * s.D, w.rows + 2 * kQueries);
  list_dense_rows(kKeys, 1, s.H * s.D, w.rows + 3 * kQueries);
  list_dense_rows(kKeys, 1, s.H * s.E, w.rows + 3 * kQueries + kKeys);
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
                   const std::int64_t first = first_key(s, w.parts, part);
                   const std::int64_t last = first_key(s, w.parts, part + 1);
                   clear_rows(gradient.dq, 0, s.T, s.D);
                   clear_rows(gradient.dk, first, last, s.D);
                   clear_rows(gradient.dv, first, last, s.E);
                   for (std::int64_t b = first; b < last; b += kKeys)
                     attend_backward(s, drop, gradient, b, smaller(kKeys, last - b), w.of(worker));
                 }
               });
  add_parts(context, w.parts, query_floats, w.partial, dq);
}

}  // namespace convlet::CONVLET_ISA
