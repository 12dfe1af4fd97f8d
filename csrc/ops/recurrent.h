// simple_rnn, lstm, gru: layers that walk along the time steps of x with a state h, h = 0 at the
// start. With a[t] = x[t] W + b (for all gates side by side) and m[t] = h[t-1] R:
//   simple_rnn  h = tanh(a + m)                                              (Elman 1990)
//   lstm        i, f, o = sigmoid(a + m) of their gates, g = tanh(a + m);    (Hochreiter and
//   Schmidhuber
//               c = f * c[t-1] + i * g;  h = o * tanh(c)                      1997; Gers et al.
//               2000)
//   gru         z, r = sigmoid(a + m) of their gates, g = tanh(a + r * m);   (Cho et al. 2014, with
//   the
//               h = z * h[t-1] + (1 - z) * g;  m has a bias of its own        reset after the
//               product)
// x (N,T,I)   W (I,G*U)   R (U,G*U)   b (G*U,), of gru (2,3U): that of a, then that of m.
// Gates lie in Keras' order: lstm i, f, g, o; gru z, r, g. y is (N,T,U), the h of every step in the
// order of the steps, or (N,U), that of the last one. In reverse, the first step is the last of x.
//
// A layer is three kernels: dense makes `projected` = a for all steps at once; recurrent makes y
// from it and, for training, keeps h[t-1] (`previous`) and the values of the gates (`kept`) of
// every step of x; recurrent_backward turns them into the gradients of a and of m. Those of W, R, b
// and x are then one dense backward each, over all steps.
#pragma once
#include <string>

#include "core/host_device.h"
#include "ops/dense.h"

namespace convlet {

enum class Cell { simple_rnn, lstm, gru };

CONVLET_HOST_DEVICE constexpr int gates_of(Cell cell) {
  return cell == Cell::lstm ? 4 : cell == Cell::gru ? 3 : 1;
}
// Values per unit that the backward needs: h; i, f, g, o and c; z, r, g and the m of g.
CONVLET_HOST_DEVICE constexpr int kept_values_of(Cell cell) {
  return cell == Cell::lstm ? 5 : cell == Cell::gru ? 4 : 1;
}

// ValueError that lists the names otherwise.
Cell cell_named(const std::string& name);
const char* name_of(Cell cell);

struct RecurrentOptions {
  bool return_sequences = false;
  bool go_backwards = false;
  bool aligned = false;
};

struct RecurrentShape {
  Cell cell;
  std::int64_t N, T, I, U;
  bool sequences, reverse, aligned;

  std::int64_t gates() const { return gates_of(cell); }
  std::int64_t kept_values() const { return kept_values_of(cell); }

  Shape x() const { return {N, T, I}; }
  Shape kernel() const { return {I, gates() * U}; }
  Shape recurrent_kernel() const { return {U, gates() * U}; }
  Shape bias() const { return cell == Cell::gru ? Shape{2, 3 * U} : Shape{gates() * U}; }
  Shape y() const { return sequences ? Shape{N, T, U} : Shape{N, U}; }
  Shape projected() const { return {N, T, gates() * U}; }
  Shape kept() const { return {N, T, kept_values() * U}; }
  Shape previous() const { return {N, T, U}; }

  // x W and h[t-1] R as dense layers over all steps.
  DenseShape projection() const { return {N * T, I, gates() * U}; }
  DenseShape recurrence() const { return {N * T, U, gates() * U}; }
};

// ValueError named `op` unless all fit together; bias may be null.
RecurrentShape check_recurrent(const char* op, Cell cell, const Shape& x, const Shape& kernel,
                               const Shape& recurrent_kernel, const Shape* bias,
                               const RecurrentOptions& options);

}  // namespace convlet
