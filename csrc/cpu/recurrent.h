// The walk of a recurrent layer along its time steps, and back (formulas in ops/recurrent.h). The
// samples are cut into blocks; a block goes through all steps by itself, so that threads never wait
// for each other. A step is one product with the packed recurrent kernel and one pass over the
// gates.
namespace convlet::CONVLET_ISA {

constexpr std::int64_t kRecurrentRows = 48;  // the most samples per block

// Where a state of each sample of a block lies at time t of x. Where the states are not
// kept they take each other's place.
struct States {
  float* data;
  std::int64_t sample, step;

  float* at(std::int64_t i, std::int64_t t) const { return data + i * sample + t * step; }
};

inline States kept_states(float* data, std::int64_t first, std::int64_t T, std::int64_t width) {
  return {data + first * T * width, T * width, width};
}

struct RecurrentWork {
  std::int64_t block_rows;
  std::int64_t pitch;  // of the products' rows, and not a power of two
  float* packed;       // the recurrent kernel, for backward transposed
  float* products;     // per worker, m of one step; backward: the gradient of h
  float* h;            // per worker, of forward when nothing is kept; backward: the gradient of c
  float* kept;         // per worker, of forward when nothing is kept
  Row* rows;
  std::size_t bytes;
};

inline RecurrentWork make_recurrent_work(const RecurrentShape& s, Pass pass, int threads,
                                         void* memory) {
  RecurrentWork w;
  const bool forward = pass == Pass::forward;
  const std::int64_t columns = s.gates() * s.U;
  w.block_rows = larger(1, smaller(kRecurrentRows, ceil_div(s.N, threads)));
  w.pitch = (forward ? columns : s.U) + 16;
  Workspace workspace(memory);
  w.packed = workspace.take<float>(forward ? s.U * Panels{columns}.padded_columns()
                                           : columns * Panels{s.U}.padded_columns());
  w.products = workspace.take<float>(kRecurrentRows * w.pitch * threads);
  w.h = workspace.take<float>(kRecurrentRows * s.U * threads);
  w.kept = workspace.take<float>(forward ? kRecurrentRows * s.kept_values() * s.U * threads : 0);
  w.rows = workspace.take<Row>(kRecurrentRows);
  w.bytes = workspace.bytes();
  return w;
}

inline std::size_t recurrent_workspace(const RecurrentShape& s, Pass pass, int threads) {
  return make_recurrent_work(s, pass, threads, nullptr).bytes;
}

// f(first sample, how many, worker) for every block.
template <class F>
inline void for_blocks(Context& context, const RecurrentShape& s, const RecurrentWork& w, F f) {
  const std::int64_t cost = w.block_rows * s.T * s.gates() * s.U * (8 + s.U / 8);
  parallel_for(context, ceil_div(s.N, w.block_rows), grain_of(cost),
               [&](std::int64_t begin, std::int64_t end, int worker) {
                 for (std::int64_t block = begin; block < end; ++block) {
                   const std::int64_t first = block * w.block_rows;
                   f(first, smaller(w.block_rows, s.N - first), worker);
                 }
               });
}

// The time of x at which step j of the walk is.
inline std::int64_t time_of(const RecurrentShape& s, std::int64_t j) {
  return s.reverse ? s.T - 1 - j : j;
}

// y of sample n after step j, or null where it is not returned.
template <class T>
inline T* output_of(const RecurrentShape& s, T* y, std::int64_t n, std::int64_t j) {
  if (s.sequences) return y + (n * s.T + (s.aligned ? time_of(s, j) : j)) * s.U;
  return j == s.T - 1 ? y + n * s.U : nullptr;
}

// ------------------------------------------------------------ forward

// One step of one sample: a and m of all gates, h and c of the step before (c null: 0). The new h
// goes to up to two places.
struct CellStep {
  std::int64_t U;
  const float *a, *m, *bias;  // the bias of m may be null
  const float *h, *c;
  float *kept, *next, *out;
};

template <class Lanes>
inline V load_or_zero(const float* p, std::int64_t u, Lanes lanes) {
  return p ? load(p + u, lanes) : zero();
}

template <Cell cell>
inline void step_cell(const CellStep& s) {
  const std::int64_t U = s.U;
  for_vectors(0, U, [&](std::int64_t u, auto lanes) {
    V a[gates_of(cell)], m[gates_of(cell)];
    for (int gate = 0; gate < gates_of(cell); ++gate) {
      a[gate] = load(s.a + gate * U + u, lanes);
      m[gate] = load(s.m + gate * U + u, lanes);
      if (s.bias) m[gate] = m[gate] + load(s.bias + gate * U + u, lanes);
    }
    const auto next = cell_step<cell>(a, m, load(s.h + u, lanes), load_or_zero(s.c, u, lanes));
    for (int i = 0; i < kept_values_of(cell); ++i) store(s.kept + i * U + u, next.kept[i], lanes);
    if (s.next) store(s.next + u, next.h, lanes);
    if (s.out) store(s.out + u, next.h, lanes);
  });
}

template <Cell cell>
inline void walk(const RecurrentShape& s, const RecurrentWork& w, std::int64_t first,
                 std::int64_t count, const float* projected, const float* bias, States kept,
                 States previous, float* products, float* y) {
  const Panels panels = {s.gates() * s.U};
  for (std::int64_t j = 0; j < s.T; ++j) {
    const std::int64_t t = time_of(s, j);
    if (j == 0) {
      for (std::int64_t i = 0; i < count; ++i) clear(previous.at(i, t), s.U);
      clear(products, count * w.pitch);
    } else {
      multiply_packed(previous.at(0, t), w.rows, count, s.U, 1, w.packed, panels, products, false);
    }
    for (std::int64_t i = 0; i < count; ++i) {
      const float* before = j > 0 ? kept.at(i, time_of(s, j - 1)) : nullptr;
      CellStep step;
      step.U = s.U;
      step.a = projected + ((first + i) * s.T + t) * panels.columns;
      step.m = products + i * w.pitch;
      step.bias = bias;
      step.h = previous.at(i, t);
      step.c = cell == Cell::lstm && before ? before + 4 * s.U : nullptr;
      step.kept = kept.at(i, t);
      step.next = j + 1 < s.T ? previous.at(i, time_of(s, j + 1)) : nullptr;
      step.out = output_of(s, y, first + i, j);
      step_cell<cell>(step);
    }
  }
}

// Calls f(std::integral_constant<Cell, cell>) for the run-time value cell.
template <class F>
inline void with_cell(Cell cell, F&& f) {
  switch (cell) {
    case Cell::simple_rnn:
      return f(std::integral_constant<Cell, Cell::simple_rnn>());
    case Cell::lstm:
      return f(std::integral_constant<Cell, Cell::lstm>());
    case Cell::gru:
      return f(std::integral_constant<Cell, Cell::gru>());
  }
}

inline void recurrent(Context& context, const RecurrentShape& s, const float* projected,
                      const float* recurrent_kernel, const float* recurrent_bias, float* kept,
                      float* previous, float* y, void* memory) {
  const RecurrentWork w = make_recurrent_work(s, Pass::forward, context.threads(), memory);
  const std::int64_t columns = s.gates() * s.U, width = s.kept_values() * s.U;
  pack_panels(recurrent_kernel, columns, s.U, {columns}, w.packed);
  list_dense_rows(w.block_rows, previous ? s.T * s.U : s.U, w.pitch, w.rows);
  for_blocks(context, s, w, [&](std::int64_t first, std::int64_t count, int worker) {
    const States kept_here = kept ? kept_states(kept, first, s.T, width)
                                  : States{w.kept + worker * kRecurrentRows * width, width, 0};
    const States h_here = previous ? kept_states(previous, first, s.T, s.U)
                                   : States{w.h + worker * kRecurrentRows * s.U, s.U, 0};
    with_cell(s.cell, [&](auto cell) {
      walk<decltype(cell)::value>(s, w, first, count, projected, recurrent_bias, kept_here, h_here,
                                  w.products + worker * kRecurrentRows * w.pitch, y);
    });
  });
}

// ------------------------------------------------------------ backward

// One step of one sample: from dh, the gradient of h that came from the later steps, and dy to
// those of a and m; dh becomes the share of h[t-1] that does not go through m. dc is the gradient
// of c from the later steps and becomes that for the earlier ones.
struct CellGradient {
  std::int64_t U;
  const float *kept, *h, *c, *dy;  // of the step before: h, c (null: 0); dy may be null
  float *dh, *dc, *da, *dm;
};

template <Cell cell>
inline void step_cell_backward(const CellGradient& s) {
  const std::int64_t U = s.U;
  for_vectors(0, U, [&](std::int64_t u, auto lanes) {
    V kept[kept_values_of(cell)];
    for (int i = 0; i < kept_values_of(cell); ++i) kept[i] = load(s.kept + i * U + u, lanes);
    const V dh = load(s.dh + u, lanes) + load_or_zero(s.dy, u, lanes);
    const auto gradients = cell_step_backward<cell>(
        kept, load(s.h + u, lanes), load_or_zero(s.c, u, lanes), dh, load(s.dc + u, lanes));
    for (int gate = 0; gate < gates_of(cell); ++gate)
      store(s.da + gate * U + u, gradients.da[gate], lanes);
    if constexpr (cell == Cell::lstm) store(s.dc + u, gradients.dc, lanes);
    if constexpr (cell == Cell::gru) {
      for (int gate = 0; gate < gates_of(cell); ++gate)
        store(s.dm + gate * U + u, gradients.dm[gate], lanes);
      store(s.dh + u, gradients.dh, lanes);
    }
  });
}

template <Cell cell>
inline void walk_back(const RecurrentShape& s, const RecurrentWork& w, std::int64_t first,
                      std::int64_t count, const float* dy, const float* kept, const float* previous,
                      float* dh, float* dc, float* da, float* dm) {
  const std::int64_t columns = s.gates() * s.U, width = s.kept_values() * s.U;
  clear(dh, count * w.pitch);
  clear(dc, count * s.U);
  for (std::int64_t j = s.T - 1; j >= 0; --j) {
    const std::int64_t t = time_of(s, j);
    for (std::int64_t i = 0; i < count; ++i) {
      const std::int64_t row = (first + i) * s.T + t;
      CellGradient step;
      step.U = s.U;
      step.kept = kept + row * width;
      step.h = previous + row * s.U;
      step.c = nullptr;
      if (cell == Cell::lstm && j > 0)
        step.c = kept + ((first + i) * s.T + time_of(s, j - 1)) * width + 4 * s.U;
      step.dy = output_of(s, dy, first + i, j);
      step.dh = dh + i * w.pitch;
      step.dc = dc + i * s.U;
      step.da = da + row * columns;
      step.dm = dm + row * columns;
      step_cell_backward<cell>(step);
    }
    if (j > 0)
      multiply_packed(dm + (first * s.T + t) * columns, w.rows, count, columns, 1, w.packed, {s.U},
                      dh, cell == Cell::gru);
  }
}

inline void recurrent_backward(Context& context, const RecurrentShape& s, const float* dy,
                               const float* kept, const float* previous,
                               const float* recurrent_kernel, float* da, float* dm, void* memory) {
  const RecurrentWork w = make_recurrent_work(s, Pass::backward_input, context.threads(), memory);
  const std::int64_t columns = s.gates() * s.U;
  pack_panels_transposed(recurrent_kernel, columns, columns, {s.U}, w.packed);
  list_dense_rows(w.block_rows, s.T * columns, w.pitch, w.rows);
  for_blocks(context, s, w, [&](std::int64_t first, std::int64_t count, int worker) {
    float* dh = w.products + worker * kRecurrentRows * w.pitch;
    float* dc = w.h + worker * kRecurrentRows * s.U;
    with_cell(s.cell, [&](auto cell) {
      walk_back<decltype(cell)::value>(s, w, first, count, dy, kept, previous, dh, dc, da,
                                       cell.value == Cell::gru ? dm : da);
    });
  });
}

}  // namespace convlet::CONVLET_ISA
