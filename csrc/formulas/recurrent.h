// One step of a recurrent cell, and its gradient (ops/recurrent.h), on vectors of units.
namespace convlet::CONVLET_ISA {

// What the backward needs of a step (RecurrentShape::kept_values), and the new h. Of an lstm, c is
// the last value kept.
template <Cell cell>
struct CellResult {
  V kept[kept_values_of(cell)];
  V h;
};

// From a and m of all gates, m with its bias, and h and c of the step before.
template <Cell cell>
CONVLET_HOST_DEVICE inline CellResult<cell> cell_step(const V (&a)[gates_of(cell)],
                                                      const V (&m)[gates_of(cell)], V h, V c) {
  if constexpr (cell == Cell::simple_rnn) {
    const V next = tanh(a[0] + m[0]);
    return {{next}, next};
  } else if constexpr (cell == Cell::lstm) {
    const V i = sigmoid(a[0] + m[0]), f = sigmoid(a[1] + m[1]);
    const V g = tanh(a[2] + m[2]), o = sigmoid(a[3] + m[3]);
    const V next = fma(f, c, i * g);
    return {{i, f, g, o, next}, o * tanh(next)};
  } else {
    const V z = sigmoid(a[0] + m[0]), r = sigmoid(a[1] + m[1]);
    const V g = tanh(fma(r, m[2], a[2]));
    return {{z, r, g, m[2]}, fma(z, h - g, g)};
  }
}

// The gradients of a and of m, and what goes on to the step before: dh without the share that goes
// through m, and dc. dm and dh are gru's; for the others dm is da and that share of dh is none.
template <Cell cell>
struct CellGradients {
  V da[gates_of(cell)], dm[gates_of(cell)];
  V dh, dc;
};

// From dh with dy, dc of the later steps, what the step kept, and h and c of the step before.
template <Cell cell>
CONVLET_HOST_DEVICE inline CellGradients<cell> cell_step_backward(
    const V (&kept)[kept_values_of(cell)], V h, V c, V dh, V dc) {
  const V one = broadcast(1.0f);
  if constexpr (cell == Cell::simple_rnn) {
    const V da = dh * (one - kept[0] * kept[0]);
    return {{da}, {da}, zero(), zero()};
  } else if constexpr (cell == Cell::lstm) {
    const V i = kept[0], f = kept[1], g = kept[2], o = kept[3], squashed = tanh(kept[4]);
    const V all = fma(dh * o, one - squashed * squashed, dc);
    const V di = all * g * i * (one - i), df = all * c * f * (one - f);
    const V dg = all * i * (one - g * g), d_o = dh * squashed * o * (one - o);
    return {{di, df, dg, d_o}, {di, df, dg, d_o}, zero(), all * f};
  } else {
    const V z = kept[0], r = kept[1], g = kept[2], m = kept[3];
    const V dz = dh * (h - g) * z * (one - z);
    const V dg = dh * (one - z) * (one - g * g);
    const V dr = dg * m * r * (one - r);
    return {{dz, dr, dg}, {dz, dr, dg * r}, dh * z, zero()};
  }
}

}  // namespace convlet::CONVLET_ISA
