// The batch-reduce GEMM tile that convolution and dense kernels are made of. One tile computes, for
// a few rows i and up to kMaxVectors vectors of columns j, in registers:
//
//   c[rows[i].c + j] = act( start[j] + sum over runs, t of
//                           a[rows[i].a + run.offset + t * run.stride] * b[(run.b + t) * ldb + j] )
//
// So a list of runs says where the terms of every row lie, and nothing is ever gathered into a
// matrix: in a forward convolution rows are output pixels, terms are the taps (r,s,c) of a window
// and b the weights; in the gradient of the weights rows are the taps, terms are the pixels and b
// is dy; in a dense layer terms are one run.
//
// A Product (product.h) says what an element of a and b holds and how two are multiplied.
//
// Each sum adds its terms one after the other with fma, whatever tile its row and column fall into:
// the result does not depend on how rows and columns are cut. Long lists of terms are cut into
// stretches, whose sums are added in c.
namespace convlet::CONVLET_ISA {

struct Float32;  // the usual Product

struct Row {
  std::int64_t a, c;  // offsets, in floats
};

struct Run {
  std::int64_t offset, count, stride;  // in a: offset, offset + stride, ...
  std::int64_t b;                      // in b: rows b, b + 1, ...
};

// Asks for the line of the cache in which p lies, to be used after some thousand cycles.
inline void fetch_early(const float* p) {
  __builtin_prefetch(p, 0, 2);
}

// Fewer weights stay in the second-level cache, and asking for them only costs instructions.
inline bool worth_fetching(std::int64_t weights) {
  return weights >= 64 * 1024;
}

// Images of so many values come from memory, and where each value meets few weights that sets the
// pace: what the next block reads of them is asked for.
inline bool worth_fetching_images(std::int64_t values, std::int64_t weights) {
  return values >= 1024 * 1024 && weights <= 64 * 1024;
}

// What tiles ask for while they multiply, so that it comes to the second-level cache evenly:
// `each` values for each term of a panel, from `from` on (which need not be memory), or nothing.
struct Ahead {
  const float* from = nullptr;
  std::int64_t each = 0;
};

struct Epilogue {
  const float* bias;                // where a sum starts, per column; null is zero
  bool accumulate;                  // the sum is added to what c holds
  Activation activation;            // applied to the sum
  const float* residual = nullptr;  // added before that, where c is; null is zero
};

#if CONVLET_ISA_LEVEL == 2 || defined(__aarch64__)
constexpr int kVectorRegisters = 32;
#else
constexpr int kVectorRegisters = 16;
#endif

// A tile has 3/4 of the registers as accumulators (the rest hold b and one broadcast value), but
// not more rows than general registers have their addresses.
#if defined(__x86_64__)
constexpr int kMostRows = 10;
#else
constexpr int kMostRows = 12;
#endif
constexpr int kMaxVectors = kVectorRegisters == 32 ? 4 : 2;
constexpr int kPanel = kMaxVectors * V::width;
constexpr int max_rows(int vectors) {
  int rows = kVectorRegisters * 3 / 4 / vectors;
  return rows < kMostRows ? rows : kMostRows;
}

// Activations that are too long to be inlined into every tile, over the rows that it has just
// stored.
__attribute__((noinline)) inline void activate_rows(Activation activation, const Row* rows,
                                                    int count, float* c, int columns) {
  for (int i = 0; i < count; ++i) {
    float* p = c + rows[i].c;
    for_vectors(0, columns, [=](std::int64_t j, auto lanes) {
      store(p + j, activate(activation, load(p + j, lanes)), lanes);
    });
  }
}

// f(sum, its place in c, its lanes) for all sums of a tile. What is to be done with them is asked
// before, once: a jump for each sum costs as much as many of its terms.
template <int kRows, int kVectors, class F>
__attribute__((always_inline)) inline void for_sums(V (&sum)[kRows][kVectors], const Row* rows,
                                                    int columns, F f) {
  CONVLET_UNROLL
  for (int j = 0; j < kVectors; ++j) {
    const int lanes = columns - j * V::width;
    if (lanes >= V::width) {
      CONVLET_UNROLL
      for (int i = 0; i < kRows; ++i) f(sum[i][j], rows[i].c + j * V::width, All());
    } else {
      CONVLET_UNROLL
      for (int i = 0; i < kRows; ++i) f(sum[i][j], rows[i].c + j * V::width, First{lanes});
    }
  }
}

// `count` tiles, one below the other, so that their start and end are a small part of short sums.
// With kFetches, what lies `step` floats further from `next` on is asked for with each term of the
// first `fetching` tiles, so that it comes to the second-level cache evenly.
template <class Product, int kRows, int kVectors, bool kFetches = false>
__attribute__((noinline)) void tiles(std::int64_t count, const float* a, const Row* rows,
                                     const Run* runs, std::int64_t run_count, const float* b,
                                     std::int64_t ldb, float* c, int columns,
                                     const Epilogue& epilogue, const float* next = nullptr,
                                     std::int64_t step = 0, std::int64_t fetching = 0) {
  const float *bias = epilogue.bias, *residual = epilogue.residual;
  const bool accumulate = epilogue.accumulate, relu = epilogue.activation == Activation::relu;
  const bool more = !relu && epilogue.activation != Activation::none;
  for (std::int64_t index = 0; index < count; ++index, rows += kRows) {
    V sum[kRows][kVectors];
    CONVLET_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      V start = zero();
      if (bias && columns - j * V::width >= V::width)
        start = load(bias + j * V::width);
      else if (bias)
        start = load_first(bias + j * V::width, columns - j * V::width);
      CONVLET_UNROLL
      for (int i = 0; i < kRows; ++i) sum[i][j] = start;
    }
    if (kFetches && index >= fetching) {
      next = b;
      step = 0;
    }

    const float* p[kRows];
    CONVLET_UNROLL
    for (int i = 0; i < kRows; ++i) p[i] = a + rows[i].a;
    for (const Run* run = runs; run != runs + run_count; ++run) {
      const std::int64_t stride = run->stride;
      const std::int64_t end = run->offset + run->count * stride;
      const float* row = b + run->b * ldb;
      for (std::int64_t t = run->offset; t != end; t += stride) {
        V v[kVectors];
        CONVLET_UNROLL
        for (int j = 0; j < kVectors; ++j) v[j] = load(row + j * V::width);
        CONVLET_UNROLL
        for (int i = 0; i < kRows; ++i) {
          V value = broadcast(p[i][t]);
          CONVLET_UNROLL
          for (int j = 0; j < kVectors; ++j)
            sum[i][j] = Product::multiply_add(value, v[j], sum[i][j]);
        }
        row += ldb;
        if constexpr (kFetches) {
          fetch_early(next);
          next += step;
        }
      }
    }

    if (accumulate)
      for_sums(sum, rows, columns,
               [=](V& y, std::int64_t at, auto lanes) { y = load(c + at, lanes) + y; });
    if (residual)
      for_sums(sum, rows, columns,
               [=](V& y, std::int64_t at, auto lanes) { y = y + load(residual + at, lanes); });
    if (relu)
      for_sums(sum, rows, columns,
               [](V& y, std::int64_t, auto) { y = activate(Activation::relu, y); });
    for_sums(sum, rows, columns,
             [=](V& y, std::int64_t at, auto lanes) { store(c + at, y, lanes); });
    if (more) activate_rows(epilogue.activation, rows, kRows, c, columns);
  }
}

// Tiles of `height` rows, kRows or fewer.
template <class Product, int kRows, int kVectors, bool kFetches>
inline void tiles_of(std::int64_t height, std::int64_t count, const float* a, const Row* rows,
                     const Run* runs, std::int64_t run_count, const float* b, std::int64_t ldb,
                     float* c, int columns, const Epilogue& epilogue, const float* next,
                     std::int64_t step, std::int64_t fetching) {
  if (height == kRows)
    tiles<Product, kRows, kVectors, kFetches>(count, a, rows, runs, run_count, b, ldb, c, columns,
                                              epilogue, next, step, fetching);
  else if constexpr (kRows > 1)
    tiles_of<Product, kRows - 1, kVectors, kFetches>(height, count, a, rows, runs, run_count, b,
                                                     ldb, c, columns, epilogue, next, step,
                                                     fetching);
}

inline std::int64_t terms_of(const Run* runs, std::int64_t run_count) {
  std::int64_t terms = 0;
  for (std::int64_t i = 0; i < run_count; ++i) terms += runs[i].count;
  return terms;
}

// Any number of rows, in tiles of nearly equal height, which share the fetching of what is ahead.
template <class Product, int kVectors, bool kFetches>
inline void multiply_panel(const float* a, const Row* rows, std::int64_t row_count, const Run* runs,
                           std::int64_t run_count, const float* b, std::int64_t ldb, float* c,
                           int columns, const Epilogue& epilogue, const Ahead& ahead) {
  constexpr int kRows = max_rows(kVectors);
  const std::int64_t count = ceil_div(row_count, kRows);
  if (count == 0) return;
  const std::int64_t height = row_count / count, higher = row_count % count;
  std::int64_t terms = 0, step = 0, fetching = 0;
  if constexpr (kFetches) {
    terms = terms_of(runs, run_count);
    step = smaller(kLineFloats, ceil_div(ahead.each, count));
    fetching = ceil_div(ahead.each, step);
  }
  if (higher > 0)
    tiles_of<Product, kRows, kVectors, kFetches>(height + 1, higher, a, rows, runs, run_count, b,
                                                 ldb, c, columns, epilogue, ahead.from, step,
                                                 fetching);
  tiles_of<Product, kRows, kVectors, kFetches>(
      height, count - higher, a, rows + higher * (height + 1), runs, run_count, b, ldb, c, columns,
      epilogue, kFetches ? ahead.from + higher * step * terms : nullptr, step, fetching - higher);
}

// How many vectors hold `columns` (1 to kPanel) columns: the width of a panel of b.
inline int vectors_of(int columns) {
  return (columns + V::width - 1) / V::width;
}

// f(n), a constant, for the n vectors that hold `columns` columns.
template <class F>
inline void with_vectors(int columns, F&& f) {
  switch (vectors_of(columns)) {
    case 1:
      return f(std::integral_constant<int, 1>());
    case 2:
      return f(std::integral_constant<int, 2>());
#if CONVLET_ISA_LEVEL == 2 || defined(__aarch64__)
    case 3:
      return f(std::integral_constant<int, 3>());
    case 4:
      return f(std::integral_constant<int, 4>());
#endif
  }
}

// All rows times one panel: `columns` <= kPanel, and each row of b readable for whole vectors.
// Only a panel of whole width asks for what is ahead.
template <class Product = Float32>
inline void multiply(const float* a, const Row* rows, std::int64_t row_count, const Run* runs,
                     std::int64_t run_count, const float* b, std::int64_t ldb, float* c,
                     int columns, const Epilogue& epilogue, const Ahead& ahead = {}) {
  with_vectors(columns, [&](auto vectors) {
    constexpr bool kWhole = vectors == kMaxVectors;
    if (kWhole && ahead.each > 0)
      multiply_panel<Product, vectors, kWhole>(a, rows, row_count, runs, run_count, b, ldb, c,
                                               columns, epilogue, ahead);
    else
      multiply_panel<Product, vectors, false>(a, rows, row_count, runs, run_count, b, ldb, c,
                                              columns, epilogue, {});
  });
}

// A matrix of `columns` columns is packed as panels of kPanel columns, the last one narrower (whole
// vectors, zeros beyond the last column); each panel holds its rows one after the other.
struct Panels {
  std::int64_t columns;

  std::int64_t count() const { return ceil_div(columns, kPanel); }
  std::int64_t padded_columns() const { return ceil_div(columns, V::width) * V::width; }
  int columns_of(std::int64_t panel) const {
    return static_cast<int>(smaller(kPanel, columns - panel * kPanel));
  }
  int width_of(std::int64_t panel) const { return vectors_of(columns_of(panel)) * V::width; }
  // Where a panel starts when the matrix has `rows` rows.
  std::int64_t offset_of(std::int64_t panel, std::int64_t rows) const {
    return panel * kPanel * rows;
  }
};

// to[i * width + j] = from[i * stride + j] for j < columns, 0 for the rest of the width.
inline void pack_rows(const float* from, std::int64_t stride, std::int64_t rows, int columns,
                      int width, float* to) {
  if (columns == kPanel) {  // most panels: without a decision for each row
    for (std::int64_t i = 0; i < rows; ++i, from += stride, to += width) {
      CONVLET_UNROLL
      for (int j = 0; j < kPanel; j += V::width) store(to + j, load(from + j));
    }
    return;
  }
  for (std::int64_t i = 0; i < rows; ++i, from += stride, to += width) {
    int j = 0;
    for (; j + V::width <= columns; j += V::width) store(to + j, load(from + j));
    if (j < width) store(to + j, load_first(from + j, columns - j));
  }
}

// The same from a transposed matrix: to[i * width + j] = from[j * stride + i].
inline void pack_transposed(const float* from, std::int64_t stride, std::int64_t rows, int columns,
                            int width, float* to) {
  const std::int64_t whole_rows = rows / kTransposed * kTransposed;
  const int whole_columns = columns / kTransposed * kTransposed;
  for (std::int64_t i = 0; i < whole_rows; i += kTransposed)
    for (int j = 0; j < whole_columns; j += kTransposed)
      transpose(from + j * stride + i, stride, to + i * width + j, width);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (int j = i < whole_rows ? whole_columns : 0; j < columns; ++j)
      to[i * width + j] = from[j * stride + i];
    for (int j = columns; j < width; ++j) to[i * width + j] = 0.0f;
  }
}

// A whole matrix of `rows` rows as panels, and the same from a transposed one (as pack_transposed).
inline void pack_panels(const float* from, std::int64_t stride, std::int64_t rows,
                        const Panels& panels, float* to) {
  for (std::int64_t p = 0; p < panels.count(); ++p)
    pack_rows(from + p * kPanel, stride, rows, panels.columns_of(p), panels.width_of(p),
              to + panels.offset_of(p, rows));
}
inline void pack_panels_transposed(const float* from, std::int64_t stride, std::int64_t rows,
                                   const Panels& panels, float* to) {
  for (std::int64_t p = 0; p < panels.count(); ++p)
    pack_transposed(from + p * kPanel * stride, stride, rows, panels.columns_of(p),
                    panels.width_of(p), to + panels.offset_of(p, rows));
}

// Terms are taken kStretch at a time, so that the part of b's panel in use stays in the first-level
// cache (24 KB at most) while all rows pass by; in between, the sums wait in c. This also keeps the
// rounding error of long sums low. With AVX-512 it is 96, the terms of three pixels of 32 channels.
constexpr std::int64_t kLongestStretch = smaller(384, 24576 / (kPanel * sizeof(float)));
constexpr std::int64_t kStretch = smaller(256, kLongestStretch);

// Lists runs, joining those that continue each other and cutting them at multiples of kStretch.
// With no memory it only counts them.
class RunList {
 public:
  explicit RunList(Run* runs) : runs_(runs) {}

  // The most runs that come of `calls` calls of add with `terms` terms in all.
  static std::int64_t most(std::int64_t calls, std::int64_t terms) {
    return calls + terms / kStretch + 1;
  }

  void add(Run run) {
    while (run.count > 0) {
      const std::int64_t room = kStretch - terms_ % kStretch;
      const std::int64_t part = smaller(run.count, room);
      if (room < kStretch && last_.stride == run.stride && last_.b + last_.count == run.b &&
          last_.offset + last_.count * last_.stride == run.offset) {
        last_.count += part;
      } else {
        last_ = {run.offset, part, run.stride, run.b};
        ++count_;
      }
      if (runs_) runs_[count_ - 1] = last_;
      terms_ += part;
      run.offset += part * run.stride;
      run.b += part;
      run.count -= part;
    }
  }
  std::int64_t count() const { return count_; }

 private:
  Run* runs_;
  Run last_ = {};
  std::int64_t count_ = 0, terms_ = 0;
};

// Calls f(runs, run count, is first, is last) for each stretch of kStretch terms; once, with
// nothing, when there are no terms.
template <class F>
inline void for_each_stretch(const Run* runs, std::int64_t run_count, F&& f) {
  std::int64_t begin = 0;
  do {
    std::int64_t end = begin;
    for (std::int64_t terms = 0; end < run_count && terms < kStretch; ++end)
      terms += runs[end].count;
    f(runs + begin, end - begin, begin == 0, end == run_count);
    begin = end;
  } while (begin < run_count);
}

// c = a b, or c += a b, with b packed whole as panels of `terms` rows; the terms of a row of a are
// `stride` apart. The terms are cut into nearly equal stretches, so that none is a short rest.
// Where b comes from memory, `fetches` asks for what is next in it.
inline void multiply_packed(const float* a, const Row* rows, std::int64_t row_count,
                            std::int64_t terms, std::int64_t stride, const float* b,
                            const Panels& panels, float* c, bool accumulate, bool fetches = false) {
  const std::int64_t stretches = ceil_div(terms, kLongestStretch);
  for (std::int64_t p = 0; p < panels.count(); ++p)
    for (std::int64_t i = 0; i < stretches; ++i) {
      const std::int64_t first = terms * i / stretches, last = terms * (i + 1) / stretches;
      const Run run = {first * stride, last - first, stride, first};
      const float* panel = b + panels.offset_of(p, terms);
      const int width = panels.width_of(p);
      multiply(a, rows, row_count, &run, 1, panel, width, c + p * kPanel, panels.columns_of(p),
               {nullptr, accumulate || i > 0, Activation::none},
               fetches ? Ahead{panel + last * width, width} : Ahead{});
    }
}

// Parts of a workspace, each 64-byte aligned. With no memory it only adds up the size.
class Workspace {
 public:
  explicit Workspace(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(std::int64_t count) {
    char* part = memory_ ? memory_ + bytes_ : nullptr;
    bytes_ += (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return reinterpret_cast<T*>(part);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  char* memory_;
  std::size_t bytes_ = 0;
};

// dw = part 0 + part 1 + ... in this order; part 0 is in dw already, the others follow each other.
inline void add_parts(Context& context, std::int64_t parts, std::int64_t size, const float* others,
                      float* dw) {
  if (parts < 2) return;
  for_elements(context, size, [&](std::int64_t begin, std::int64_t end) {
    for_vectors(begin, end, [&](std::int64_t i, auto lanes) {
      V sum = load(dw + i, lanes);
      for (std::int64_t part = 1; part < parts; ++part)
        sum = sum + load(others + (part - 1) * size + i, lanes);
      store(dw + i, sum, lanes);
    });
  });
}

}  // namespace convlet::CONVLET_ISA
