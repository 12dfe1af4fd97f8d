#include "ops/recurrent.h"

namespace convlet {
namespace {

constexpr Cell kCells[] = {Cell::simple_rnn, Cell::lstm, Cell::gru};

}  // namespace

const char* name_of(Cell cell) {
  switch (cell) {
    case Cell::simple_rnn:
      return "simple_rnn";
    case Cell::lstm:
      return "lstm";
    case Cell::gru:
      return "gru";
  }
  return "?";
}

Cell cell_named(const std::string& name) {
  for (Cell cell : kCells)
    if (name == name_of(cell)) return cell;
  value_error("recurrent: expected cell 'simple_rnn', 'lstm' or 'gru', got '", name, "'");
}

RecurrentShape check_recurrent(const char* op, Cell cell, const Shape& x, const Shape& kernel,
                               const Shape& recurrent_kernel, const Shape* bias,
                               const RecurrentOptions& options) {
  if (x.rank() != 3) value_error(op, ": expected x of 3 axes (N,T,I), got x of shape ", x);
  if (x[0] < 0 || x[1] < 1 || x[2] < 1)
    value_error(op, ": expected x (N,T,I) with N >= 0, T >= 1 and I >= 1, got x of shape ", x);
  RecurrentShape s;
  s.cell = cell;
  s.N = x[0];
  s.T = x[1];
  s.I = x[2];
  s.sequences = options.return_sequences;
  s.reverse = options.go_backwards;
  s.aligned = options.aligned;
  s.U = 1;
  const std::int64_t gates = s.gates();
  const std::string layout = gates == 1 ? "U" : concat(gates, "*U");
  if (kernel.rank() != 2 || kernel[1] < 1 || kernel[1] % gates != 0)
    value_error(op, ": expected kernel (I,", layout, ") with U >= 1, got kernel of shape ", kernel);
  s.U = kernel[1] / gates;
  if (kernel[0] != s.I)
    value_error(op, ": expected kernel (I,", layout, ") with I=", s.I, " to match x (N,T,I)=", x,
                ", got kernel ", kernel);
  if (recurrent_kernel != s.recurrent_kernel())
    value_error(op, ": expected recurrent_kernel (U,", layout, ") of shape ", s.recurrent_kernel(),
                " to match kernel ", kernel, ", got recurrent_kernel of shape ", recurrent_kernel);
  if (bias && *bias != s.bias())
    value_error(op, ": expected bias ", cell == Cell::gru ? "(2,3*U)" : concat('(', layout, ",)"),
                " of shape ", s.bias(), ", got bias of shape ", *bias);
  const std::string what = concat(op, ": x ", x, " and kernel ", kernel);
  for (const Shape& shape : {s.x(), s.kernel(), s.recurrent_kernel(), s.kept(), s.projected()})
    checked_multiply(shape.elements(what.c_str()), sizeof(float), what.c_str());
  return s;
}

}  // namespace convlet
