// dense: y = act(x w + bias), and its gradients dx = dy w^T and dw = x^T dy, with the tile of
// gemm.h. The weights may be far larger than any cache and are used once per batch: they are read
// in place when there are few rows, and otherwise packed a block at a time, never as a whole.
namespace convlet::CONVLET_ISA {

constexpr std::int64_t kDenseColumns = 8 * kPanel;  // of w, per piece of work
constexpr std::int64_t kDenseRows = 240;            // of x, per piece of work
// Rows of w that are read in place before the next panel: few enough for the translation buffer and
// the prefetchers to follow them all.
constexpr std::int64_t kTermsInPlace = 64;

// The pieces that a matrix of `rows` x `columns` results is cut into: nearly equal, columns in
// whole panels.
struct Pieces {
  std::int64_t rows, columns;
  std::int64_t row_pieces, column_pieces;

  Pieces(std::int64_t rows, std::int64_t columns, std::int64_t most_rows, std::int64_t most_columns)
      : rows(rows),
        columns(columns),
        row_pieces(ceil_div(rows, most_rows)),
        column_pieces(ceil_div(columns, most_columns)) {}
  std::int64_t count() const { return row_pieces * column_pieces; }
  std::int64_t first_row(std::int64_t piece) const { return rows * piece / row_pieces; }
  std::int64_t first_column(std::int64_t piece) const {
    std::int64_t panels = ceil_div(columns, kPanel);
    return smaller(columns, panels * piece / column_pieces * kPanel);
  }
};

// Offsets of a piece's rows: a's are `a` apart, c's `c`.
inline void list_dense_rows(std::int64_t count, std::int64_t a, std::int64_t c, Row* rows) {
  for (std::int64_t i = 0; i < count; ++i) rows[i] = {i * a, i * c};
}

struct DenseWork {
  std::int64_t parts;  // into which the sum is cut; fixed by the shape
  std::int64_t most_rows, most_columns;
  float*
      partial;  // results of the parts: all of them forward, all but the first in weight gradients
  float* shared;    // dy, packed whole for weight gradients
  float* elements;  // the rows of x or dy that tiles read, where the Product converts them
  float* blocks;    // per worker
  std::int64_t block_floats;
  Row* rows;  // per worker
  std::size_t bytes;
};

template <class Product>
inline DenseWork make_dense_work(const DenseShape& s, Pass pass, int threads, void* memory) {
  DenseWork d;
  constexpr std::int64_t kPartsBytes = 8 << 20;
  auto most_parts = [](std::int64_t size) {
    return larger(1, kPartsBytes / larger(1, size * static_cast<std::int64_t>(sizeof(float))));
  };
  d.parts = 1;
  d.most_rows = kDenseRows;
  d.most_columns = kDenseColumns;
  std::int64_t partials = 0, shared = 0, converted = 0;
  d.block_floats = kStretch * kDenseColumns;
  switch (pass) {
    case Pass::forward:
      // Long sums with few results are cut, so that there is work for all threads.
      d.parts = larger(1, smaller(smaller(16, s.I / 2048), most_parts(s.N * s.O)));
      partials = d.parts > 1 ? d.parts * s.N * s.O : 0;
      // So have all threads where the columns are enough; where they are cut changes no sum.
      d.most_columns =
          smaller(kDenseColumns, kPanel * larger(1, ceil_div(s.O, kPanel) * d.parts *
                                                        ceil_div(s.N, kDenseRows) / threads));
      converted = s.N * Product::elements(s.I);
      break;
    case Pass::backward_input:
      converted = s.N * Product::elements(s.O);
      break;
    case Pass::backward_weight:
      d.parts = larger(1, smaller(smaller(8, s.N / 512), most_parts(s.I * s.O)));
      d.most_rows = larger(12, smaller(128, s.I / 16));
      d.most_columns = larger(s.O, 1);
      partials = (d.parts - 1) * s.I * s.O;
      shared = Product::elements(s.N) * Panels{s.O}.padded_columns();
      d.block_floats = kStretch * d.most_rows;
      break;
  }
  Workspace workspace(memory);
  d.partial = workspace.take<float>(partials);
  d.shared = workspace.take<float>(shared);
  d.elements = workspace.take<float>(Product::converts ? converted : 0);
  d.blocks = workspace.take<float>(d.block_floats * threads);
  d.rows = workspace.take<Row>(d.most_rows * threads);
  d.bytes = workspace.bytes();
  return d;
}

inline std::size_t dense_workspace(const DenseShape& shape, Pass pass, int threads) {
  return make_dense_work<Float32>(shape, pass, threads, nullptr).bytes;
}

// Rows of values as the tiles read them: `from` itself, or elements in `to`.
template <class Product>
inline const float* elements_of_rows(Context& context, std::int64_t rows, std::int64_t columns,
                                     const float* from, float* to) {
  if constexpr (Product::converts) {
    parallel_for(context, rows, grain_of(columns), [=](std::int64_t begin, std::int64_t end, int) {
      Product::convert(from + begin * columns, end - begin, columns,
                       to + begin * Product::elements(columns));
    });
    return to;
  }
  return from;
}

// Elements [first, last) of the columns [column, end) of some rows of x w. w (I,O) is read in place
// by a single tile of rows; when several read it, a stretch of it is packed at a time, in the order
// of its memory.
template <class Product>
inline void dense_piece(const DenseShape& s, const float* x, const Row* rows,
                        std::int64_t row_count, const float* w, std::int64_t first,
                        std::int64_t last, std::int64_t column, std::int64_t end, float* block,
                        float* y, const float* bias, Activation activation) {
  const Panels panels = {end - column};
  const bool reused = Product::converts || row_count > max_rows(kMaxVectors);
  const std::int64_t step = reused ? kStretch : kTermsInPlace;
  for (std::int64_t i = first; i < last; i += step) {
    const std::int64_t terms = smaller(step, last - i);
    const Run run = {i, terms, 1, 0};
    const float* from = w + Product::terms * i * s.O + column;
    auto pack = [&](std::int64_t panel, std::int64_t begin, std::int64_t count) {
      const int width = panels.width_of(panel);
      Product::pack(from + panel * kPanel + Product::terms * begin * s.O, s.O,
                    smaller(Product::terms * count, s.I - Product::terms * (i + begin)),
                    panels.columns_of(panel), width,
                    block + panels.offset_of(panel, terms) + begin * width);
    };
    auto epilogue_at = [&](std::int64_t o) -> Epilogue {
      return {bias && i == first ? bias + o : nullptr, i > first,
              i + terms == last ? activation : Activation::none};
    };
    constexpr std::int64_t kRowsAtOnce = 4;
    for (std::int64_t t = 0; reused && t < terms; t += kRowsAtOnce)
      for (std::int64_t p = 0; p < panels.count(); ++p) pack(p, t, smaller(kRowsAtOnce, terms - t));

    std::int64_t panel = 0;
    // A single row leaves registers for several panels: longer pieces of w's rows, and so twice the
    // bandwidth.
    constexpr int kAtOnce = 4;
    for (; !reused && row_count == 1 && (panel + kAtOnce) * kPanel <= panels.columns;
         panel += kAtOnce) {
      const std::int64_t o = column + panel * kPanel;
      tiles<Product, 1, kAtOnce * kMaxVectors>(1, x, rows, &run, 1, from + panel * kPanel, s.O,
                                               y + o, kAtOnce * kPanel, epilogue_at(o));
    }
    for (; panel < panels.count(); ++panel) {
      const std::int64_t o = column + panel * kPanel;
      const int columns = panels.columns_of(panel), width = panels.width_of(panel);
      const bool in_place = !reused && columns == width;  // whole vectors of b must be readable
      if (!reused && !in_place) pack(panel, 0, terms);
      multiply<Product>(x, rows, row_count, &run, 1,
                        in_place ? from + panel * kPanel : block + panels.offset_of(panel, terms),
                        in_place ? s.O : width, y + o, columns, epilogue_at(o));
    }
  }
}

// y = act(bias + part 0 + part 1 + ...).
inline void finish_parts(Context& context, const DenseShape& s, std::int64_t parts,
                         const float* partial, const float* bias, Activation activation, float* y) {
  parallel_for(context, s.N, grain_of(s.O), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t n = begin; n < end; ++n)
      for_vectors(0, s.O, [&](std::int64_t o, auto lanes) {
        V sum = bias ? load(bias + o, lanes) : zero();
        for (std::int64_t part = 0; part < parts; ++part)
          sum = sum + load(partial + (part * s.N + n) * s.O + o, lanes);
        store(y + n * s.O + o, activate(activation, sum), lanes);
      });
  });
}

template <class Product>
inline void dense_forward(Context& context, const DenseShape& s, const float* x, const float* w,
                          const float* bias, Activation activation, float* y, void* memory) {
  const DenseWork d = make_dense_work<Product>(s, Pass::forward, context.threads(), memory);
  const std::int64_t I = Product::elements(s.I);
  x = elements_of_rows<Product>(context, s.N, s.I, x, d.elements);
  const Pieces pieces(s.N, s.O, d.most_rows, d.most_columns);
  const bool whole = d.parts == 1;
  parallel_for(
      context, d.parts * pieces.count(), 1, [&](std::int64_t begin, std::int64_t end, int worker) {
        Row* rows = d.rows + worker * d.most_rows;
        for (std::int64_t item = begin; item < end; ++item) {
          const std::int64_t part = item % d.parts;
          const std::int64_t row_piece = item / d.parts % pieces.row_pieces;
          const std::int64_t column_piece = item / d.parts / pieces.row_pieces;
          const std::int64_t n = pieces.first_row(row_piece);
          const std::int64_t count = pieces.first_row(row_piece + 1) - n;
          list_dense_rows(count, I, s.O, rows);
          dense_piece<Product>(s, x + n * I, rows, count, w, I * part / d.parts,
                               I * (part + 1) / d.parts, pieces.first_column(column_piece),
                               pieces.first_column(column_piece + 1),
                               d.blocks + worker * d.block_floats,
                               (whole ? y : d.partial + part * s.N * s.O) + n * s.O,
                               whole ? bias : nullptr, whole ? activation : Activation::none);
        }
      });
  if (!whole) finish_parts(context, s, d.parts, d.partial, bias, activation, y);
}

template <class Product>
inline void dense_input_gradient(Context& context, const DenseShape& s, const float* dy,
                                 const float* w, float* dx, void* memory) {
  const DenseWork d = make_dense_work<Product>(s, Pass::backward_input, context.threads(), memory);
  const std::int64_t O = Product::elements(s.O);
  dy = elements_of_rows<Product>(context, s.N, s.O, dy, d.elements);
  const Pieces pieces(s.N, s.I, d.most_rows, d.most_columns);
  parallel_for(context, pieces.count(), 1, [&](std::int64_t begin, std::int64_t end, int worker) {
    Row* rows = d.rows + worker * d.most_rows;
    float* block = d.blocks + worker * d.block_floats;
    for (std::int64_t item = begin; item < end; ++item) {
      const std::int64_t n = pieces.first_row(item % pieces.row_pieces);
      const std::int64_t count = pieces.first_row(item % pieces.row_pieces + 1) - n;
      const std::int64_t last = pieces.first_column(item / pieces.row_pieces + 1);
      list_dense_rows(count, O, s.I, rows);
      for (std::int64_t i = pieces.first_column(item / pieces.row_pieces); i < last; i += kPanel)
        for (std::int64_t o = 0; o < O; o += kStretch) {
          const int columns = static_cast<int>(smaller(kPanel, last - i));
          const int width = vectors_of(columns) * V::width;
          const Run run = {o, smaller(kStretch, O - o), 1, 0};
          const std::int64_t first = Product::terms * o;
          Product::pack_turned(w + i * s.O + first, s.O,
                               smaller(Product::terms * run.count, s.O - first), columns, width,
                               block);
          multiply<Product>(dy + n * O, rows, count, &run, 1, block, width, dx + n * s.I + i,
                            columns, {nullptr, o > 0, Activation::none});
        }
    }
  });
}

template <class Product>
inline void dense_weight_gradient(Context& context, const DenseShape& s, const float* dy,
                                  const float* x, float* dw, void* memory) {
  if (s.N == 0) return clear(context, dw, s.I * s.O);
  const DenseWork d = make_dense_work<Product>(s, Pass::backward_weight, context.threads(), memory);
  const std::int64_t N = Product::elements(s.N);
  const Panels panels = {s.O};
  parallel_for(context, panels.count(), grain_of(s.N * kPanel),
               [&](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t p = begin; p < end; ++p)
                   Product::pack(dy + p * kPanel, s.O, s.N, panels.columns_of(p),
                                 panels.width_of(p), d.shared + panels.offset_of(p, N));
               });

  const Pieces pieces(s.I, s.O, d.most_rows, d.most_columns);
  parallel_for(
      context, d.parts * pieces.count(), 1, [&](std::int64_t begin, std::int64_t end, int worker) {
        Row* rows = d.rows + worker * d.most_rows;
        float* block = d.blocks + worker * d.block_floats;
        for (std::int64_t item = begin; item < end; ++item) {
          const std::int64_t part = item % d.parts;
          const std::int64_t i = pieces.first_row(item / d.parts);
          const std::int64_t count = pieces.first_row(item / d.parts + 1) - i;
          const std::int64_t first = N * part / d.parts, last = N * (part + 1) / d.parts;
          float* part_dw = (part == 0 ? dw : d.partial + (part - 1) * s.I * s.O) + i * s.O;
          list_dense_rows(count, 1, s.O, rows);
          for (std::int64_t n = first; n < last; n += kStretch) {
            // The inputs are copied next to each other: at their own distance, often a large power
            // of two, they would compete for the same lines of the cache.
            const Run run = {0, smaller(kStretch, last - n), count, 0};
            const std::int64_t sample = Product::terms * n;
            Product::gather(x + sample * s.I + i, s.I,
                            smaller(Product::terms * run.count, s.N - sample), count, block);
            for (std::int64_t p = 0; p < panels.count(); ++p)
              multiply<Product>(block, rows, count, &run, 1,
                                d.shared + panels.offset_of(p, N) + n * panels.width_of(p),
                                panels.width_of(p), part_dw + p * kPanel, panels.columns_of(p),
                                {nullptr, n > first, Activation::none});
          }
        }
      });
  add_parts(context, d.parts, s.I * s.O, d.partial, dw);
}

inline void dense(Context& context, const DenseShape& shape, const float* x, const float* w,
                  const float* bias, Activation activation, float* y, void* workspace) {
  dense_forward<Float32>(context, shape, x, w, bias, activation, y, workspace);
}

inline void dense_backward_input(Context& context, const DenseShape& shape, const float* dy,
                                 const float* w, float* dx, void* workspace) {
  dense_input_gradient<Float32>(context, shape, dy, w, dx, workspace);
}

inline void dense_backward_weight(Context& context, const DenseShape& shape, const float* dy,
                                  const float* x, float* dw, void* workspace) {
  dense_weight_gradient<Float32>(context, shape, dy, x, dw, workspace);
}

}  // namespace convlet::CONVLET_ISA
