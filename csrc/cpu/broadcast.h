// Elementwise functions of tensors that broadcast together (ops/broadcast.h), and copies with other
// steps than the memory's.
namespace convlet::CONVLET_ISA {

// row(offsets of the operands, offset in y, count) for the runs along the last axis of s.
template <int operands, class F>
inline void for_broadcast_rows(Context& context, const BroadcastShape& s, F row) {
  const int last = s.rank - 1;
  if (last == 0) {
    for_elements(context, s.elements, [&](std::int64_t begin, std::int64_t end) {
      std::int64_t offset[operands];
      for (int k = 0; k < operands; ++k) offset[k] = begin * s.step[k][0];
      row(offset, begin, end - begin);
    });
    return;
  }
  if (s.elements == 0) return;
  const std::int64_t count = s.size[last], rows = s.elements / count;
  parallel_for(context, rows, grain_of(count), [&](std::int64_t begin, std::int64_t end, int) {
    std::int64_t index[Shape::kMaxRank], offset[operands] = {}, rest = begin;
    for (int axis = last - 1; axis >= 0; --axis) {
      index[axis] = rest % s.size[axis];
      rest /= s.size[axis];
      for (int k = 0; k < operands; ++k) offset[k] += index[axis] * s.step[k][axis];
    }
    for (std::int64_t i = begin; i < end; ++i) {
      row(offset, i * count, count);
      for (int axis = last - 1; axis >= 0; --axis) {
        for (int k = 0; k < operands; ++k) offset[k] += s.step[k][axis];
        if (++index[axis] < s.size[axis]) break;
        index[axis] = 0;
        for (int k = 0; k < operands; ++k) offset[k] -= s.size[axis] * s.step[k][axis];
      }
    }
  });
}

// A run of an operand: its values one after the other, or one value repeated. Null is zeros.
class Operand {
 public:
  Operand(const float* p, std::int64_t offset, std::int64_t step)
      : p_(p && step ? p + offset : nullptr), repeated_(broadcast(p && !step ? p[offset] : 0.0f)) {}

  template <class Lanes>
  V operator()(std::int64_t i, Lanes lanes) const {
    return p_ ? load(p_ + i, lanes) : repeated_;
  }

 private:
  const float* p_;
  V repeated_;
};

// y = f(a, b) for a function of vectors.
template <class F>
inline void broadcast_transform(Context& context, const BroadcastShape& s, const float* a,
                                const float* b, float* y, F f) {
  const int last = s.rank - 1;
  for_broadcast_rows<2>(
      context, s, [=, &s](const std::int64_t* offset, std::int64_t to, std::int64_t count) {
        const Operand u(a, offset[0], s.step[0][last]), v(b, offset[1], s.step[1][last]);
        for_vectors(0, count, [&](std::int64_t i, auto lanes) {
          store(y + to + i, f(u(i, lanes), v(i, lanes)), lanes);
        });
      });
}

inline void binary(Context& context, const BroadcastShape& s, BinaryFunction function,
                   const float* a, const float* b, float* y) {
  with_value<BinaryFunction, kLastBinaryFunction>(function, [&](auto constant) {
    broadcast_transform(context, s, a, b, y,
                        [](V u, V v) { return apply(decltype(constant)::value, u, v); });
  });
}

inline void binary_backward(Context& context, const BroadcastShape& s, BinaryFunction function,
                            int side, const float* dy, const float* a, const float* b, float* d) {
  const int last = s.rank - 1;
  with_value<BinaryFunction, kLastBinaryFunction>(function, [&](auto constant) {
    for_broadcast_rows<2>(
        context, s, [=, &s](const std::int64_t* offset, std::int64_t to, std::int64_t count) {
          const Operand u(a, offset[0], s.step[0][last]), v(b, offset[1], s.step[1][last]);
          for_vectors(0, count, [&](std::int64_t i, auto lanes) {
            const V g = load(dy + to + i, lanes);
            const V share =
                binary_gradient(decltype(constant)::value, side, g, u(i, lanes), v(i, lanes));
            store(d + to + i, share, lanes);
          });
        });
  });
}

inline void where(Context& context, const BroadcastShape& s, const float* condition, const float* a,
                  const float* b, float* y) {
  const int last = s.rank - 1;
  for_broadcast_rows<3>(
      context, s, [=, &s](const std::int64_t* offset, std::int64_t to, std::int64_t count) {
        const Operand c(condition, offset[0], s.step[0][last]), u(a, offset[1], s.step[1][last]),
            v(b, offset[2], s.step[2][last]);
        for_vectors(0, count, [&](std::int64_t i, auto lanes) {
          store(y + to + i, select(c(i, lanes) == zero(), v(i, lanes), u(i, lanes)), lanes);
        });
      });
}

// The `index`-th of the positions along all axes of s but two, in x and in y.
struct Place {
  std::int64_t x, y;
};
inline Place place_of(const BroadcastShape& s, const std::int64_t* y_step, int skipped,
                      std::int64_t index) {
  Place place = {0, 0};
  for (int axis = s.rank - 2; axis >= 0; --axis) {
    if (axis == skipped) continue;
    const std::int64_t i = index % s.size[axis];
    index /= s.size[axis];
    place.x += i * s.step[0][axis];
    place.y += i * y_step[axis];
  }
  return place;
}

// Transposes the last axis of y with the axis along which x is contiguous, in square blocks.
inline void copy_transposed(Context& context, const BroadcastShape& s, int contiguous,
                            const float* x, float* y) {
  std::int64_t y_step[Shape::kMaxRank];
  y_step[s.rank - 1] = 1;
  for (int axis = s.rank - 1; axis > 0; --axis) y_step[axis - 1] = y_step[axis] * s.size[axis];
  const std::int64_t rows = s.size[contiguous], columns = s.size[s.rank - 1];
  const std::int64_t from_step = s.step[0][s.rank - 1], to_step = y_step[contiguous];
  const std::int64_t blocks = (rows + kTransposed - 1) / kTransposed;
  const std::int64_t outer = s.elements / (rows * columns);
  parallel_for(context, outer * blocks, grain_of(kTransposed * columns),
               [&](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t item = begin; item < end; ++item) {
                   const Place place = place_of(s, y_step, contiguous, item / blocks);
                   const std::int64_t first = item % blocks * kTransposed;
                   const float* from = x + place.x + first;
                   float* to = y + place.y + first * to_step;
                   std::int64_t j = 0;
                   if (first + kTransposed <= rows)
                     for (; j + kTransposed <= columns; j += kTransposed)
                       transpose(from + j * from_step, from_step, to + j, to_step);
                   for (; j < columns; ++j)
                     for (std::int64_t i = 0; i < rows - first && i < kTransposed; ++i)
                       to[i * to_step + j] = from[j * from_step + i];
                 }
               });
}

inline void strided_copy(Context& context, const BroadcastShape& s, const float* x, float* y) {
  if (s.elements == 0) return;
  const std::int64_t step = s.step[0][s.rank - 1];
  for (int axis = 0; step > 1 && axis < s.rank - 1; ++axis)
    if (s.step[0][axis] == 1) return copy_transposed(context, s, axis, x, y);
  for_broadcast_rows<1>(context, s,
                        [=](const std::int64_t* offset, std::int64_t to, std::int64_t count) {
                          const float* from = x + offset[0];
                          if (step == 1) return copy(y + to, from, count);
                          for (std::int64_t i = 0; i < count; ++i) y[to + i] = from[i * step];
                        });
}

// Row n is 1 at position x[n], elsewhere 0; 0 everywhere when x[n] is no class.
inline void one_hot(Context& context, std::int64_t rows, std::int64_t classes, const float* x,
                    float* y) {
  parallel_for(context, rows, grain_of(classes), [&](std::int64_t begin, std::int64_t end, int) {
    clear(y + begin * classes, (end - begin) * classes);
    for (std::int64_t n = begin; n < end; ++n) {
      if (!(x[n] >= 0.0f && x[n] < static_cast<float>(classes))) continue;
      const std::int64_t label = static_cast<std::int64_t>(x[n]);
      if (static_cast<float>(label) == x[n]) y[n * classes + label] = 1.0f;
    }
  });
}

}  // namespace convlet::CONVLET_ISA
