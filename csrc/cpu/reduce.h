// Sums, means and extremes over axes, and their gradients (formulas in ops/reduce.h).
//
// Sums are added in two levels, 64 values at a time and then those sums, so that long ones lose
// little. A long reduction to few results is cut into parts by its shape, never by the threads.
namespace convlet::CONVLET_ISA {

// The axes of a ReduceShape apart: all but the last, which is contiguous, by kind.
struct ReduceAxes {
  int kept = 0, reduced = 0;
  std::int64_t kept_size[Shape::kMaxRank], kept_step[Shape::kMaxRank];
  std::int64_t reduced_size[Shape::kMaxRank], reduced_step[Shape::kMaxRank];
  std::int64_t inner;  // the last axis
  bool inner_reduced;
  std::int64_t outer;          // positions along the kept axes
  std::int64_t block, blocks;  // into which a last axis that is kept is cut
  std::int64_t cut, parts;     // the size of the axis that is cut into parts

  explicit ReduceAxes(const ReduceShape& s) {
    const int last = s.rank - 1;
    inner = s.size[last];
    inner_reduced = s.reduced[last];
    outer = 1;
    std::int64_t step[Shape::kMaxRank];
    step[last] = 1;
    for (int axis = last; axis > 0; --axis) step[axis - 1] = step[axis] * s.size[axis];
    for (int axis = 0; axis < last; ++axis) {
      (s.reduced[axis] ? reduced_size[reduced] : kept_size[kept]) = s.size[axis];
      (s.reduced[axis] ? reduced_step[reduced++] : kept_step[kept++]) = step[axis];
      if (!s.reduced[axis]) outer *= s.size[axis];
    }
    const bool only_inner = reduced == 0;
    if (only_inner) {
      reduced_size[0] = 1;
      reduced_step[0] = 0;
      reduced = 1;
    }
    // Wide where there are enough of them: rows are read in longer pieces then.
    const bool wide = outer * ceil_div(inner, kWideBlock) >= kEnoughBlocks;
    block = inner_reduced ? 1 : wide ? kWideBlock : kBlock;
    blocks = inner_reduced ? 1 : ceil_div(inner, block);
    cut = only_inner && inner_reduced ? inner : reduced_size[0];
    cuts_inner = only_inner && inner_reduced;
    parts = 1;
    if (outer * blocks < kEnoughBlocks)
      parts = larger(1, smaller(smaller(kReductionParts, cut), s.inputs / kGrainElements));
  }

  static constexpr std::int64_t kBlock = 64, kWideBlock = 512, kEnoughBlocks = 16;
  bool cuts_inner;

  std::int64_t results() const { return inner_reduced ? outer : outer * inner; }
  // Where the values of a position along the kept axes begin.
  std::int64_t offset_of(std::int64_t position) const {
    std::int64_t offset = 0;
    for (int axis = kept - 1; axis >= 0; --axis) {
      offset += position % kept_size[axis] * kept_step[axis];
      position /= kept_size[axis];
    }
    return offset;
  }

  // f(offset, count, step) for the runs along the last of the reduced axes, of which the first is
  // taken from `begin` to `end`.
  template <class F>
  void for_runs(std::int64_t begin, std::int64_t end, F f) const {
    const int last = reduced - 1;
    if (last == 0) return f(begin * reduced_step[0], end - begin, reduced_step[0]);
    std::int64_t index[Shape::kMaxRank] = {}, offset = begin * reduced_step[0];
    for (int axis = 0; axis < reduced; ++axis)
      if (reduced_size[axis] == 0) return;
    for (index[0] = begin; index[0] < end;) {
      f(offset, reduced_size[last], reduced_step[last]);
      for (int axis = last - 1; axis >= 0; --axis) {
        offset += reduced_step[axis];
        if (++index[axis] < reduced_size[axis] || axis == 0) break;
        index[axis] = 0;
        offset -= reduced_size[axis] * reduced_step[axis];
      }
    }
  }
};

// Across the lanes of a vector.
inline float join_lanes(Total, V a) {
  return sum_of_lanes(a);
}
template <class How>
inline float join_lanes(How, V a) {
  float lane[V::width];
  store(lane, a);
  V best = broadcast(lane[0]);
  for (int i = 1; i < V::width; ++i) best = How::join(best, broadcast(lane[i]));
  store(lane, best);
  return lane[0];
}

constexpr std::int64_t kReduceChunk = 64;

// The results of columns [0, columns) of rows that lie `step` apart, one vector of columns each.
template <class How, int kVectors, class Lanes>
inline void reduce_columns(const ReduceAxes& axes, std::int64_t begin, std::int64_t end,
                           const float* x, float* y, Lanes lanes) {
  V total[kVectors];
  for (int j = 0; j < kVectors; ++j) total[j] = How::start();
  axes.for_runs(begin, end, [&](std::int64_t offset, std::int64_t count, std::int64_t step) {
    for (std::int64_t first = 0; first < count; first += kReduceChunk) {
      const std::int64_t last = smaller(count, first + kReduceChunk);
      V part[kVectors];
      for (int j = 0; j < kVectors; ++j) part[j] = How::start();
      for (std::int64_t i = first; i < last; ++i)
        for (int j = 0; j < kVectors; ++j)
          part[j] = How::join(part[j], load(x + offset + i * step + j * V::width, lanes));
      for (int j = 0; j < kVectors; ++j) total[j] = How::join(total[j], part[j]);
    }
  });
  for (int j = 0; j < kVectors; ++j) store(y + j * V::width, total[j], lanes);
}

// The same sums for more columns, row by row, as the rows lie in memory: y holds the totals.
template <class How>
inline void reduce_wide_columns(const ReduceAxes& axes, std::int64_t begin, std::int64_t end,
                                std::int64_t columns, const float* x, float* y) {
  constexpr int kRows = 4;
  float part[ReduceAxes::kWideBlock];
  for_vectors(0, columns, [=](std::int64_t c, auto lanes) { store(y + c, How::start(), lanes); });
  axes.for_runs(begin, end, [&](std::int64_t offset, std::int64_t count, std::int64_t step) {
    auto join = [&](std::int64_t row, auto rows, bool first, bool last) {
      constexpr int kCount = rows;
      const float* from = x + offset + row * step;
      for_vectors(0, columns, [=, &part](std::int64_t c, auto lanes) {
        V sum = first ? How::start() : load(part + c, lanes);
        CONVLET_UNROLL
        for (int i = 0; i < kCount; ++i) sum = How::join(sum, load(from + i * step + c, lanes));
        if (last)
          store(y + c, How::join(load(y + c, lanes), sum), lanes);
        else
          store(part + c, sum, lanes);
      });
    };
    for (std::int64_t first = 0; first < count; first += kReduceChunk) {
      const std::int64_t last = smaller(count, first + kReduceChunk);
      std::int64_t row = first;
      for (; row + kRows <= last; row += kRows)
        join(row, std::integral_constant<int, kRows>(), row == first, row + kRows == last);
      for (; row < last; ++row)
        join(row, std::integral_constant<int, 1>(), row == first, row + 1 == last);
    }
  });
}

template <class How>
inline void reduce_block(const ReduceAxes& axes, std::int64_t begin, std::int64_t end,
                         std::int64_t columns, const float* x, float* y) {
  if (columns > ReduceAxes::kBlock)
    return reduce_wide_columns<How>(axes, begin, end, columns, x, y);
  constexpr int kVectors = 4;
  std::int64_t c = 0;
  for (; c + kVectors * V::width <= columns; c += kVectors * V::width)
    reduce_columns<How, kVectors>(axes, begin, end, x + c, y + c, All());
  for_vectors(c, columns, [&](std::int64_t i, auto lanes) {
    reduce_columns<How, 1>(axes, begin, end, x + i, y + i, lanes);
  });
}

// Values [0, n), joined into the lanes of a vector.
template <class How>
inline V reduce_run(const float* x, std::int64_t n) {
  constexpr int kVectors = 4;
  constexpr std::int64_t kStep = kVectors * V::width, kChunk = kReduceChunk * kStep;
  V total = How::start();
  std::int64_t i = 0;
  while (i + kStep <= n) {
    const std::int64_t last = smaller(n, i + kChunk);
    V part[kVectors];
    for (int j = 0; j < kVectors; ++j) part[j] = How::start();
    for (; i + kStep <= last; i += kStep)
      for (int j = 0; j < kVectors; ++j) part[j] = How::join(part[j], load(x + i + j * V::width));
    total = How::join(total, How::join(How::join(part[0], part[1]), How::join(part[2], part[3])));
  }
  for_vectors(i, n, [&](std::int64_t k, auto lanes) {
    total = How::join(total, keep(load(x + k, lanes), How::start(), lanes));
  });
  return total;
}

template <class How>
inline float reduce_rows(const ReduceAxes& axes, std::int64_t begin, std::int64_t end,
                         const float* x) {
  if (axes.cuts_inner) return join_lanes(How(), reduce_run<How>(x + begin, end - begin));
  V total = How::start();
  axes.for_runs(begin, end, [&](std::int64_t offset, std::int64_t count, std::int64_t step) {
    for (std::int64_t i = 0; i < count; ++i)
      total = How::join(total, reduce_run<How>(x + offset + i * step, axes.inner));
  });
  return join_lanes(How(), total);
}

// y = the parts, joined in pairs, in pairs of pairs, ..., and divided by `divisor`.
template <class How>
inline void finish_reduction(Context& context, std::int64_t n, std::int64_t parts,
                             const float* partial, float divisor, float* y) {
  for_elements(context, n, [=](std::int64_t begin, std::int64_t end) {
    for_vectors(begin, end, [=](std::int64_t i, auto lanes) {
      V total[kReductionParts];
      for (std::int64_t part = 0; part < parts; ++part)
        total[part] = load(partial + part * n + i, lanes);
      for (std::int64_t apart = 1; apart < parts; apart *= 2)
        for (std::int64_t part = 0; part + apart < parts; part += 2 * apart)
          total[part] = How::join(total[part], total[part + apart]);
      store(y + i, divisor == 1.0f ? total[0] : total[0] / broadcast(divisor), lanes);
    });
  });
}

template <class How>
inline void reduce_with(Context& context, const ReduceShape& s, float divisor, const float* x,
                        float* y, float* partial) {
  const ReduceAxes axes(s);
  const std::int64_t results = axes.results(), items = axes.outer * axes.blocks;
  float* out = axes.parts > 1 ? partial : y;
  parallel_for(context, axes.parts * items, grain_of(s.inputs / larger(1, axes.parts * items)),
               [&](std::int64_t from, std::int64_t to, int) {
                 for (std::int64_t i = from; i < to; ++i) {
                   const std::int64_t part = i / items, position = i % items / axes.blocks;
                   const std::int64_t column = i % axes.blocks * axes.block;
                   const std::int64_t begin = axes.cut * part / axes.parts;
                   const std::int64_t end = axes.cut * (part + 1) / axes.parts;
                   const float* first =
                       x + axes.offset_of(position) + (axes.inner_reduced ? 0 : column);
                   float* result = out + part * results;
                   if (axes.inner_reduced)
                     result[position] = reduce_rows<How>(axes, begin, end, first);
                   else
                     reduce_block<How>(axes, begin, end, smaller(axes.block, axes.inner - column),
                                       first, result + position * axes.inner + column);
                 }
               });
  if (axes.parts > 1 || divisor != 1.0f)
    finish_reduction<How>(context, results, axes.parts, out, divisor, y);
}

inline std::size_t reduce_workspace(const ReduceShape& s) {
  const ReduceAxes axes(s);
  return axes.parts > 1 ? static_cast<std::size_t>(axes.parts * s.outputs) * sizeof(float) : 0;
}

inline void reduce(Context& context, const ReduceShape& s, ReduceFunction function, const float* x,
                   float* y, void* workspace) {
  if (s.outputs == 0) return;
  float* partial = static_cast<float*>(workspace);
  switch (function) {
    case ReduceFunction::sum:
      return reduce_with<Total>(context, s, 1.0f, x, y, partial);
    case ReduceFunction::mean:
      return reduce_with<Total>(context, s, static_cast<float>(s.count), x, y, partial);
    case ReduceFunction::max:
      return reduce_with<Largest>(context, s, 1.0f, x, y, partial);
    case ReduceFunction::min:
      return reduce_with<Smallest>(context, s, 1.0f, x, y, partial);
  }
}

// One block of results: the share of each of their elements, then all elements.
inline void reduce_block_backward(const ReduceAxes& axes, const ReduceShape& s,
                                  ReduceFunction function, std::int64_t columns, const float* dy,
                                  const float* x, const float* y, float* dx) {
  const bool extreme = function == ReduceFunction::max || function == ReduceFunction::min;
  auto for_rows = [&](auto f) {
    axes.for_runs(0, axes.reduced_size[0],
                  [&](std::int64_t offset, std::int64_t count, std::int64_t step) {
                    for (std::int64_t i = 0; i < count; ++i) f(offset + i * step);
                  });
  };
  float share[ReduceAxes::kWideBlock];
  for_vectors(0, columns, [&](std::int64_t c, auto lanes) {
    V number = broadcast(function == ReduceFunction::mean ? static_cast<float>(s.count) : 1.0f);
    if (extreme) {
      number = zero();
      for_rows([&](std::int64_t offset) {
        const Mask hit = is_extreme(load(x + offset + c, lanes), load(y + c, lanes));
        number = number + select(hit, broadcast(1.0f), zero());
      });
    }
    store(share + c, load(dy + c, lanes) / number, lanes);
  });
  for_rows([&](std::int64_t offset) {
    for_vectors(0, columns, [&](std::int64_t c, auto lanes) {
      V value = load(share + c, lanes);
      if (extreme) {
        const Mask hit = is_extreme(load(x + offset + c, lanes), load(y + c, lanes));
        value = select(hit, value, zero());
      }
      store(dx + offset + c, value, lanes);
    });
  });
}

// The same for one result whose elements lie along the last axis too.
inline void reduce_rows_backward(const ReduceAxes& axes, const ReduceShape& s,
                                 ReduceFunction function, float dy, const float* x, float y,
                                 float* dx) {
  const bool extreme = function == ReduceFunction::max || function == ReduceFunction::min;
  auto for_all = [&](auto f) {
    axes.for_runs(
        0, axes.reduced_size[0], [&](std::int64_t offset, std::int64_t count, std::int64_t step) {
          for (std::int64_t i = 0; i < count; ++i)
            for_vectors(0, axes.inner,
                        [&](std::int64_t k, auto lanes) { f(offset + i * step + k, lanes); });
        });
  };
  float number = function == ReduceFunction::mean ? static_cast<float>(s.count) : 1.0f;
  if (extreme) {
    V hits = zero();
    for_all([&](std::int64_t at, auto lanes) {
      const V hit = select(is_extreme(load(x + at, lanes), broadcast(y)), broadcast(1.0f), zero());
      hits = hits + keep(hit, zero(), lanes);
    });
    number = sum_of_lanes(hits);
  }
  const V share = broadcast(dy / number);
  for_all([&](std::int64_t at, auto lanes) {
    V value = share;
    if (extreme) value = select(is_extreme(load(x + at, lanes), broadcast(y)), share, zero());
    store(dx + at, value, lanes);
  });
}

inline void reduce_backward(Context& context, const ReduceShape& s, ReduceFunction function,
                            const float* dy, const float* x, const float* y, float* dx) {
  if (s.inputs == 0) return;
  const ReduceAxes axes(s);
  const bool extreme = function == ReduceFunction::max || function == ReduceFunction::min;
  const std::int64_t items = axes.outer * axes.blocks;
  parallel_for(
      context, items, grain_of(s.inputs / items), [&](std::int64_t from, std::int64_t to, int) {
        for (std::int64_t i = from; i < to; ++i) {
          const std::int64_t position = i / axes.blocks, offset = axes.offset_of(position);
          const float* values = extreme ? x + offset : nullptr;
          if (axes.inner_reduced) {
            reduce_rows_backward(axes, s, function, dy[position], values,
                                 extreme ? y[position] : 0.0f, dx + offset);
            continue;
          }
          const std::int64_t column = i % axes.blocks * axes.block;
          const std::int64_t result = position * axes.inner + column;
          reduce_block_backward(axes, s, function, smaller(axes.block, axes.inner - column),
                                dy + result, extreme ? values + column : nullptr,
                                extreme ? y + result : nullptr, dx + offset + column);
        }
      });
}

}  // namespace convlet::CONVLET_ISA
