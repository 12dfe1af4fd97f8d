// Sums, means and extremes over axes, and their gradients (formulas in ops/reduce.h).
//
// Where the last axis is reduced a team of threads takes a result; where it is kept a block takes
// neighbouring results, so that both read along the rows of x. Sums are added in two levels. A long
// reduction to few results is cut into parts by its shape.
#include "cuda/broadcast.cuh"
#include "cuda/team.cuh"

namespace convlet::cuda {
namespace {

// Axes of one kind: the positions along them, counted from 0, and where those lie in x.
struct Walk {
  int axes = 0;
  std::int64_t size[Shape::kMaxRank], step[Shape::kMaxRank];

  void add(std::int64_t axis_size, std::int64_t axis_step) {
    size[axes] = axis_size;
    step[axes++] = axis_step;
  }
  std::int64_t positions() const {
    std::int64_t count = 1;
    for (int axis = 0; axis < axes; ++axis) count *= size[axis];
    return count;
  }
  CONVLET_DEVICE std::int64_t offset(std::int64_t position) const {
    std::int64_t offset = 0;
    for (int axis = axes - 1; axis > 0; --axis)
      offset += take_coordinate(position, size[axis]) * step[axis];
    return axes > 0 ? offset + position * step[0] : 0;
  }
};

// How a reduction is cut. Reading is by quads: along the reduced last axis `unit` values at a time
// (4, or 1 where quads would cross its end), or of `inner` neighbouring results.
struct Cut {
  Walk kept, reduced;  // without a kept last axis
  std::int64_t inner;  // the kept last axis, or 1
  std::int64_t outer;  // positions along the other kept axes
  int unit;
  std::int64_t units;  // positions along the reduced axes
  int lanes;           // of a block along `inner`, four results each
  std::int64_t blocks, parts;
  bool wide;
};

constexpr std::int64_t kMostParts = 512, kPartValues = 16384;

bool last_is_reduced(const ReduceShape& s) {
  return s.reduced[s.rank - 1];
}

// Without the pointer, for a workspace, alignment is unknown: it does not matter for the parts.
Cut cut_of(const ReduceShape& s, const float* x) {
  Cut cut = {};
  const int last = s.rank - 1;
  const bool rows = last_is_reduced(s);
  cut.inner = rows ? 1 : s.size[last];
  cut.wide = wide_rows(s.size[last], x);
  cut.unit = rows && cut.wide ? 4 : 1;
  std::int64_t step[Shape::kMaxRank];
  step[last] = 1;
  for (int axis = last; axis > 0; --axis) step[axis - 1] = step[axis] * s.size[axis];
  for (int axis = 0; axis < last; ++axis)
    (s.reduced[axis] ? cut.reduced : cut.kept).add(s.size[axis], step[axis]);
  if (rows) cut.reduced.add(s.size[last] / cut.unit, cut.unit);
  cut.outer = cut.kept.positions();
  cut.units = cut.reduced.positions();
  cut.lanes = 1;
  while (cut.lanes < 32 && 4 * cut.lanes < cut.inner) cut.lanes *= 2;
  cut.blocks = scalar::ceil_div(quads_of(cut.inner), cut.lanes);
  const std::int64_t items = scalar::larger(1, cut.outer * cut.blocks);
  cut.parts = scalar::smaller(kMostParts / items, s.inputs / items / kPartValues);
  cut.parts = scalar::larger(1, cut.parts);
  return cut;
}

// Values are joined in chunks, and those with a total: a sum's in float64, which costs little so.
constexpr int kChunk = 16;

template <class How>
struct JoinTotals {
  using Total = float;
  CONVLET_DEVICE float operator()(float a, float b) const { return How::join(a, b); }
};
template <>
struct JoinTotals<scalar::Total> {
  using Total = double;
  CONVLET_DEVICE double operator()(double a, double b) const { return a + b; }
};

template <class T>
CONVLET_DEVICE float result_of(T total, float divisor) {
  return static_cast<float>(divisor == 1.0f ? total : total / static_cast<T>(divisor));
}

// The values of one result, or of a part of it. An item of `rows_kernel` is part * results +
// result.
template <class How>
struct ReduceRow {
  Cut cut;
  const float* x;
  float* y;
  float divisor;

  CONVLET_DEVICE void operator()(const Team& team, std::int64_t item, std::int64_t count) const {
    std::int64_t part = item;
    const std::int64_t result = take_coordinate(part, cut.outer);
    const float* from = x + cut.kept.offset(result);
    const std::int64_t begin = cut.units * part / cut.parts;
    const std::int64_t end = count > 0 ? cut.units * (part + 1) / cut.parts : begin;
    const JoinTotals<How> join;
    typename JoinTotals<How>::Total total = How::start();
    for (std::int64_t i = begin + team.rank(); i < end; i += kChunk * team.size()) {
      Quad chunk = quad_of(How::start());
      for (int j = 0; j < kChunk && i + j * team.size() < end; ++j) {
        const float* p = from + cut.reduced.offset(i + j * team.size());
        const Quad q = load_quad(p, cut.unit, cut.wide, How::start());
        for (int k = 0; k < 4; ++k) chunk[k] = How::join(chunk[k], q[k]);
      }
      total = join(total, join(join(chunk[0], chunk[1]), join(chunk[2], chunk[3])));
    }
    total = team.all(total, join);
    if (count > 0 && team.rank() == 0) y[item] = result_of(total, divisor);
  }
};

// Which results a thread of a block of kept columns works for, and which of their rows it takes.
struct ColumnPlace {
  std::int64_t part, position, column;
  int lane, row, rows;
};
CONVLET_DEVICE ColumnPlace column_place(const Cut& cut, std::int64_t item) {
  ColumnPlace at;
  at.lane = static_cast<int>(threadIdx.x) % cut.lanes;
  at.row = static_cast<int>(threadIdx.x) / cut.lanes;
  at.rows = kThreads / cut.lanes;
  at.column = 4 * (take_coordinate(item, cut.blocks) * cut.lanes + at.lane);
  at.position = take_coordinate(item, cut.outer);
  at.part = item;
  return at;
}

// The values of all rows of a block joined; right in row 0.
template <class T, class Join>
CONVLET_DEVICE void join_rows(const ColumnPlace& at, int lanes, T (&value)[4], Join join) {
  CONVLET_SHARED(T, of_thread, [4][kThreads]);
  for (int k = 0; k < 4; ++k) of_thread[k][threadIdx.x] = value[k];
  __syncthreads();
  for (int apart = at.rows / 2; apart > 0; apart /= 2) {
    if (at.row < apart)
      for (int k = 0; k < 4; ++k) {
        value[k] = join(value[k], of_thread[k][threadIdx.x + apart * lanes]);
        of_thread[k][threadIdx.x] = value[k];
      }
    __syncthreads();
  }
}

// An item is a block of columns of one position in one part.
template <class How>
__global__ void __launch_bounds__(kThreads, 1)
    reduce_columns_kernel(std::int64_t items, Cut cut, const float* x, float* y, bool wide,
                          float divisor) {
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const ColumnPlace at = column_place(cut, item);
    const std::int64_t left = cut.inner - at.column;
    const float* from = x + cut.kept.offset(at.position) + at.column;
    const std::int64_t begin = cut.units * at.part / cut.parts;
    const std::int64_t end = left > 0 ? cut.units * (at.part + 1) / cut.parts : begin;
    const JoinTotals<How> join;
    typename JoinTotals<How>::Total total[4];
    for (int k = 0; k < 4; ++k) total[k] = How::start();
    for (std::int64_t i = begin + at.row; i < end; i += kChunk * at.rows) {
      Quad chunk = quad_of(How::start());
      for (int j = 0; j < kChunk && i + j * at.rows < end; ++j) {
        const Quad q = load_quad(from + cut.reduced.offset(i + j * at.rows), left, cut.wide);
        for (int k = 0; k < 4; ++k) chunk[k] = How::join(chunk[k], q[k]);
      }
      for (int k = 0; k < 4; ++k) total[k] = join(total[k], chunk[k]);
    }
    join_rows(at, cut.lanes, total, join);
    if (at.row == 0 && left > 0) {
      Quad result;
      for (int k = 0; k < 4; ++k) result[k] = result_of(total[k], divisor);
      store_quad(y + (at.part * cut.outer + at.position) * cut.inner + at.column, result, left,
                 wide);
    }
  }
}

// y[i] = partial[0,i], ..., partial[parts-1,i] joined. An item is a result.
template <class How>
struct JoinParts {
  std::int64_t results, parts;
  const float* partial;
  float* y;
  float divisor;
  CONVLET_DEVICE void operator()(const Team& team, std::int64_t i, std::int64_t count) const {
    const JoinTotals<How> join;
    typename JoinTotals<How>::Total total = How::start();
    for (std::int64_t part = team.rank(); part < count; part += team.size())
      total = join(total, partial[part * results + i]);
    total = team.all(total, join);
    if (count > 0 && team.rank() == 0) y[i] = result_of(total, divisor);
  }
};

template <class How>
void reduce_with(Context& context, const ReduceShape& s, float divisor, const float* x, float* y,
                 float* partial) {
  const Cut cut = cut_of(s, x);
  const bool whole = cut.parts == 1;
  float* out = whole ? y : partial;
  const float by = whole ? divisor : 1.0f;
  if (last_is_reduced(s)) {
    const std::int64_t items = cut.parts * cut.outer;
    launch_rows(context, items, cut.unit * scalar::larger(1, cut.units / cut.parts),
                ReduceRow<How>{cut, x, out, by});
  } else {
    const std::int64_t items = cut.parts * cut.outer * cut.blocks;
    launch(context, reduce_columns_kernel<How>, blocks_for(context, items, 1, 16), kThreads, 0,
           items, cut, x, out, wide_rows(cut.inner, out), by);
  }
  if (!whole)
    launch_rows(context, s.outputs, cut.parts,
                JoinParts<How>{s.outputs, cut.parts, partial, y, divisor});
}

// dx of a sum or a mean: dy repeated.
struct Share {
  float number;
  CONVLET_DEVICE float operator()(const float (&dy)[1]) const { return dy[0] / number; }
};

void repeat(Context& context, const ReduceShape& s, float number, const float* dy, float* dx) {
  BroadcastShape b = {};
  b.elements = s.inputs;
  b.rank = s.rank;
  std::int64_t step = 1;
  for (int axis = s.rank - 1; axis >= 0; --axis) {
    b.size[axis] = s.size[axis];
    b.step[0][axis] = s.reduced[axis] ? 0 : step;
    if (!s.reduced[axis]) step *= s.size[axis];
  }
  broadcast_transform(context, b, {dy}, dx, Share{number});
}

// 1 where an element of x is (one of) the extreme(s) y.
CONVLET_DEVICE Quad hits_of(const Quad& x, const Quad& y, std::int64_t left) {
  Quad hit;
  for (int k = 0; k < 4; ++k) hit[k] = k < left && scalar::is_extreme(x[k], y[k]) ? 1.0f : 0.0f;
  return hit;
}

// dx of an extreme: its elements are counted first, then share dy.
struct ExtremeRowGradient {
  Cut cut;
  const float *dy, *x, *y;
  float* dx;
  CONVLET_DEVICE void operator()(const Team& team, std::int64_t result, std::int64_t count) const {
    const std::int64_t offset = cut.kept.offset(result), end = count > 0 ? cut.units : 0;
    const Quad extreme = quad_of(y[result]);
    float number = 0.0f;
    for (std::int64_t i = team.rank(); i < end; i += team.size()) {
      const float* p = x + offset + cut.reduced.offset(i);
      const Quad hit = hits_of(load_quad(p, cut.unit, cut.wide), extreme, cut.unit);
      for (int k = 0; k < 4; ++k) number += hit[k];
    }
    const float share = dy[result] / team.sum(number);
    for (std::int64_t i = team.rank(); i < end; i += team.size()) {
      const std::int64_t at = offset + cut.reduced.offset(i);
      Quad hit = hits_of(load_quad(x + at, cut.unit, cut.wide), extreme, cut.unit);
      for (int k = 0; k < 4; ++k) hit[k] = hit[k] > 0.0f ? share : 0.0f;
      store_quad(dx + at, hit, cut.unit, cut.wide);
    }
  }
};

__global__ void __launch_bounds__(kThreads)
    extreme_columns_gradient_kernel(std::int64_t items, Cut cut, const float* dy, const float* x,
                                    const float* y, float* dx, bool wide) {
  CONVLET_SHARED(float4, shares, [32]);
  for (std::int64_t item = blockIdx.x; item < items; item += gridDim.x) {
    const ColumnPlace at = column_place(cut, item);
    const std::int64_t left = cut.inner - at.column, end = left > 0 ? cut.units : 0;
    const std::int64_t offset = cut.kept.offset(at.position) + at.column;
    const std::int64_t result = at.position * cut.inner + at.column;
    const Quad extreme = load_quad(y + result, left, wide);
    Quad number = quad_of(0.0f);
    for (std::int64_t i = at.row; i < end; i += at.rows) {
      const Quad q = load_quad(x + offset + cut.reduced.offset(i), left, wide);
      const Quad hit = hits_of(q, extreme, left);
      for (int k = 0; k < 4; ++k) number[k] += hit[k];
    }
    join_rows(at, cut.lanes, number.value, Sum());
    if (at.row == 0) {
      const Quad g = load_quad(dy + result, left, wide);
      shares[at.lane] =
          make_float4(g[0] / number[0], g[1] / number[1], g[2] / number[2], g[3] / number[3]);
    }
    __syncthreads();
    const float4 all = shares[at.lane];
    const Quad share = {{all.x, all.y, all.z, all.w}};
    for (std::int64_t i = at.row; i < end; i += at.rows) {
      const std::int64_t to = offset + cut.reduced.offset(i);
      Quad hit = hits_of(load_quad(x + to, left, wide), extreme, left);
      for (int k = 0; k < 4; ++k) hit[k] = hit[k] > 0.0f ? share[k] : 0.0f;
      store_quad(dx + to, hit, left, wide);
    }
    __syncthreads();  // the shares are used again
  }
}

void extreme_backward(Context& context, const ReduceShape& s, const float* dy, const float* x,
                      const float* y, float* dx) {
  Cut cut = cut_of(s, x);
  if (last_is_reduced(s)) {
    if (!aligned_16(dx)) cut = cut_of(s, dx);  // one alignment serves both
    launch_rows(context, cut.outer, cut.unit * cut.units, ExtremeRowGradient{cut, dy, x, y, dx});
    return;
  }
  const bool wide =
      cut.wide && wide_rows(cut.inner, dy) && wide_rows(cut.inner, y) && wide_rows(cut.inner, dx);
  const std::int64_t items = cut.outer * cut.blocks;
  launch(context, extreme_columns_gradient_kernel, blocks_for(context, items, 1, 16), kThreads, 0,
         items, cut, dy, x, y, dx, wide);
}

}  // namespace

std::size_t reduce_workspace(const ReduceShape& s) {
  const Cut cut = cut_of(s, nullptr);
  return cut.parts > 1 ? static_cast<std::size_t>(cut.parts * s.outputs) * sizeof(float) : 0;
}

void reduce(Context& context, const ReduceShape& s, ReduceFunction function, const float* x,
            float* y, void* workspace) {
  if (s.outputs == 0) return;
  float* partial = static_cast<float*>(workspace);
  switch (function) {
    case ReduceFunction::sum:
      return reduce_with<scalar::Total>(context, s, 1.0f, x, y, partial);
    case ReduceFunction::mean:
      return reduce_with<scalar::Total>(context, s, static_cast<float>(s.count), x, y, partial);
    case ReduceFunction::max:
      return reduce_with<scalar::Largest>(context, s, 1.0f, x, y, partial);
    case ReduceFunction::min:
      return reduce_with<scalar::Smallest>(context, s, 1.0f, x, y, partial);
  }
}

void reduce_backward(Context& context, const ReduceShape& s, ReduceFunction function,
                     const float* dy, const float* x, const float* y, float* dx) {
  if (s.inputs == 0) return;
  if (function == ReduceFunction::sum) return repeat(context, s, 1.0f, dy, dx);
  if (function == ReduceFunction::mean)
    return repeat(context, s, static_cast<float>(s.count), dy, dx);
  extreme_backward(context, s, dy, x, y, dx);
}

}  // namespace convlet::cuda
