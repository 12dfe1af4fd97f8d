// attention and the recurrent layers.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bind/arrays.h"
#include "bind/bind.h"

namespace convlet::bind {

namespace {

// What a forward kept for the backward; nothing for None.
std::optional<Input> kept_input(Call& op, const char* name, const py::object& value,
                                const char* layout, const Shape& shape) {
  if (value.is_none()) return std::nullopt;
  Input input = float_input(op, name, value, layout);
  expect_shape(op, name, layout, shape, input.shape());
  return input;
}

// The dropout of attention's probabilities; rate 0 is none.
struct AttentionDropout {
  float rate;
  const RandomStep* random;
  std::uint64_t stream;
};

AttentionDropout attention_dropout(Call& op, double rate, std::uint64_t seed, std::uint64_t step,
                                   std::uint64_t stream) {
  if (!(rate >= 0 && rate < 1)) value_error(op, ": expected rate in [0,1), got ", rate);
  const RandomStep numbers{seed, step};
  return {static_cast<float>(rate), rate > 0 ? op.upload(&numbers, 1) : nullptr, stream};
}

// y; or (y, lse), what the backward needs of the forward.
py::object attention(const py::object& q_value, const py::object& k_value,
                     const py::object& v_value, std::int64_t heads, std::optional<double> scale,
                     bool causal, double rate, std::uint64_t seed, std::uint64_t step,
                     std::uint64_t stream, const py::object& out, bool keep) {
  Call op("attention");
  Input q = float_input(op, "q", q_value, "(N,T,H*D)");
  Input k = float_input(op, "k", k_value, "(N,S,H*D)");
  Input v = float_input(op, "v", v_value, "(N,S,H*E)");
  AttentionShape shape =
      check_attention(op, q.shape(), k.shape(), v.shape(), {heads, scale, causal});
  AttentionDropout drop = attention_dropout(op, rate, seed, step, stream);
  Output y = float_output(op, out, shape.y(), {&q, &k, &v});
  std::optional<Output> lse;
  if (keep) lse = float_output(op, py::none(), shape.lse(), {});

  op.run([&](const Kernels& kernels,
             int threads) { return kernels.attention_workspace(shape, Pass::forward, threads); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.attention(context, shape, drop.rate, drop.random, drop.stream, q.f32(), k.f32(),
                             v.f32(), y.data, lse ? lse->data : nullptr, workspace.data());
         });
  return lse ? py::object(py::make_tuple(y.array, lse->array)) : y.array;
}

// (dq, dk, dv); without y and lse the forward runs again for them.
py::tuple attention_backward(const py::object& dy_value, const py::object& q_value,
                             const py::object& k_value, const py::object& v_value,
                             std::int64_t heads, std::optional<double> scale, bool causal,
                             double rate, std::uint64_t seed, std::uint64_t step,
                             std::uint64_t stream, const py::object& y_value,
                             const py::object& lse_value) {
  Call op("attention_backward");
  Input dy = float_input(op, "dy", dy_value, "(N,T,H*E)");
  Input q = float_input(op, "q", q_value, "(N,T,H*D)");
  Input k = float_input(op, "k", k_value, "(N,S,H*D)");
  Input v = float_input(op, "v", v_value, "(N,S,H*E)");
  AttentionShape shape =
      check_attention(op, q.shape(), k.shape(), v.shape(), {heads, scale, causal});
  expect_shape(op, "dy", "(N,T,H*E)", shape.y(), dy.shape());
  const std::optional<Input> kept_y = kept_input(op, "y", y_value, "(N,T,H*E)", shape.y());
  const std::optional<Input> kept_lse = kept_input(op, "lse", lse_value, "(N,H,T)", shape.lse());
  const bool again = !kept_y || !kept_lse;
  AttentionDropout drop = attention_dropout(op, rate, seed, step, stream);
  Output dq = float_output(op, py::none(), shape.q(), {});
  Output dk = float_output(op, py::none(), shape.k(), {});
  Output dv = float_output(op, py::none(), shape.v(), {});
  const std::int64_t y_size = again ? shape.y().elements() : 0;
  const std::int64_t lse_size = again ? shape.lse().elements() : 0;

  op.run(
      [&](const Kernels& kernels, int threads) {
        return Workspace::padded<float>(y_size) + Workspace::padded<float>(lse_size) +
               std::max(kernels.attention_workspace(shape, Pass::forward, threads),
                        kernels.attention_workspace(shape, Pass::backward_input, threads));
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        float *y = workspace.take<float>(y_size), *lse = workspace.take<float>(lse_size);
        char* rest = workspace.take<char>(0);
        if (again)
          kernels.attention(context, shape, drop.rate, drop.random, drop.stream, q.f32(), k.f32(),
                            v.f32(), y, lse, rest);
        kernels.attention_backward(context, shape, drop.rate, drop.random, drop.stream, dy.f32(),
                                   q.f32(), k.f32(), v.f32(), again ? y : kept_y->f32(),
                                   again ? lse : kept_lse->f32(), dq.data, dk.data, dv.data, rest);
      });
  return py::make_tuple(dq.array, dk.array, dv.array);
}

// The inputs of a recurrent layer, checked.
struct RecurrentInputs {
  Input x, kernel, recurrent_kernel;
  std::optional<Input> bias;
  RecurrentShape shape;

  const float* first_bias() const { return bias ? bias->f32() : nullptr; }
  // The bias of h[t-1] R.
  const float* second_bias() const {
    return bias && shape.cell == Cell::gru ? bias->f32() + shape.kernel().back() : nullptr;
  }
};

RecurrentInputs recurrent_inputs(Call& op, Cell cell, const py::object& x_value,
                                 const py::object& kernel, const py::object& recurrent_kernel,
                                 const py::object& bias, bool sequences, bool reverse) {
  const std::string gates = cell == Cell::lstm ? "4*U" : cell == Cell::gru ? "3*U" : "U";
  RecurrentInputs in = {
      float_input(op, "x", x_value, "(N,T,I)"),
      float_input(op, "kernel", kernel, ("(I," + gates + ")").c_str()),
      float_input(op, "recurrent_kernel", recurrent_kernel, ("(U," + gates + ")").c_str()),
      std::nullopt,
      {}};
  if (!bias.is_none())
    in.bias =
        float_input(op, "bias", bias, cell == Cell::gru ? "(2,3*U)" : ("(" + gates + ",)").c_str());
  in.shape = check_recurrent(op, cell, in.x.shape(), in.kernel.shape(), in.recurrent_kernel.shape(),
                             in.bias ? &in.bias->shape() : nullptr, {sequences, reverse, false});
  return in;
}

// y; or (y, gates, previous), what the backward needs of the forward besides.
py::object recurrent(const std::string& name, const py::object& x, const py::object& kernel,
                     const py::object& recurrent_kernel, const py::object& bias, bool sequences,
                     bool reverse, const py::object& out, bool keep) {
  const Cell cell = cell_named(name);
  Call op(name_of(cell));
  const RecurrentInputs in =
      recurrent_inputs(op, cell, x, kernel, recurrent_kernel, bias, sequences, reverse);
  const RecurrentShape& s = in.shape;
  Output y = float_output(op, out, s.y(),
                          {&in.x, &in.kernel, &in.recurrent_kernel, in.bias ? &*in.bias : &in.x});
  std::optional<Output> gates, previous;
  if (keep) {
    gates = float_output(op, py::none(), s.kept(), {});
    previous = float_output(op, py::none(), s.previous(), {});
  }
  const std::int64_t projected_size = s.projected().elements();

  op.run(
      [&](const Kernels& kernels, int threads) {
        return Workspace::padded<float>(projected_size) +
               std::max(kernels.dense_workspace(s.projection(), Pass::forward, threads),
                        kernels.recurrent_workspace(s, Pass::forward, threads));
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        float* projected = workspace.take<float>(projected_size);
        void* rest = workspace.take<char>(0);
        kernels.dense(context, s.projection(), in.x.f32(), in.kernel.f32(), in.first_bias(),
                      Activation::none, projected, rest);
        kernels.recurrent(context, s, projected, in.recurrent_kernel.f32(), in.second_bias(),
                          gates ? gates->data : nullptr, previous ? previous->data : nullptr,
                          y.data, rest);
      });
  if (!keep) return y.array;
  return py::make_tuple(y.array, gates->array, previous->array);
}

// The workspace that any step of the backward needs.
std::size_t recurrent_backward_workspace(const Kernels& kernels, const RecurrentShape& s,
                                         int threads) {
  const DenseShape projection = s.projection(), recurrence = s.recurrence();
  return std::max({kernels.dense_workspace(projection, Pass::forward, threads),
                   kernels.recurrent_workspace(s, Pass::forward, threads),
                   kernels.recurrent_workspace(s, Pass::backward_input, threads),
                   kernels.dense_workspace(projection, Pass::backward_weight, threads),
                   kernels.dense_workspace(recurrence, Pass::backward_weight, threads),
                   kernels.dense_workspace(projection, Pass::backward_input, threads),
                   kernels.bias_gradient_workspace({projection.N, projection.O})});
}

// (dx, dkernel, drecurrent_kernel, dbias or None); without what the forward kept it runs again.
py::tuple recurrent_backward(const std::string& name, const py::object& dy_value,
                             const py::object& x, const py::object& kernel,
                             const py::object& recurrent_kernel, const py::object& bias,
                             bool sequences, bool reverse, const py::object& gates_value,
                             const py::object& previous_value) {
  const Cell cell = cell_named(name);
  const std::string op_name = name + "_backward";
  Call op(op_name.c_str());
  const char* layout = sequences ? "(N,T,U)" : "(N,U)";
  Input dy = float_input(op, "dy", dy_value, layout);
  const RecurrentInputs in =
      recurrent_inputs(op, cell, x, kernel, recurrent_kernel, bias, sequences, reverse);
  const RecurrentShape& s = in.shape;
  expect_shape(op, "dy", layout, s.y(), dy.shape());
  const std::string units = cell == Cell::lstm ? "5*U" : cell == Cell::gru ? "4*U" : "U";
  const std::optional<Input> kept_gates =
      kept_input(op, "gates", gates_value, ("(N,T," + units + ")").c_str(), s.kept());
  const std::optional<Input> kept_previous =
      kept_input(op, "previous", previous_value, "(N,T,U)", s.previous());
  const bool again = !kept_gates || !kept_previous;
  Output dx = float_output(op, py::none(), s.x(), {});
  Output dw = float_output(op, py::none(), s.kernel(), {});
  Output dr = float_output(op, py::none(), s.recurrent_kernel(), {});
  Output db = float_output(op, py::none(), s.bias(), {});
  const std::int64_t gates_size = s.projected().elements();
  const std::int64_t y_size = again ? s.y().elements() : 0;
  const std::int64_t kept_size = again ? s.kept().elements() : 0;
  const std::int64_t previous_size = again ? s.previous().elements() : 0;

  op.run(
      [&](const Kernels& kernels, int threads) {
        return Workspace::padded<float>(y_size) + 2 * Workspace::padded<float>(gates_size) +
               Workspace::padded<float>(kept_size) + Workspace::padded<float>(previous_size) +
               recurrent_backward_workspace(kernels, s, threads);
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        float* y = workspace.take<float>(y_size);
        float *a = workspace.take<float>(gates_size), *m = workspace.take<float>(gates_size);
        float* new_gates = workspace.take<float>(kept_size);
        float* new_previous = workspace.take<float>(previous_size);
        void* rest = workspace.take<char>(0);
        if (again) {
          kernels.dense(context, s.projection(), in.x.f32(), in.kernel.f32(), in.first_bias(),
                        Activation::none, a, rest);
          kernels.recurrent(context, s, a, in.recurrent_kernel.f32(), in.second_bias(), new_gates,
                            new_previous, y, rest);
        }
        const float* previous = again ? new_previous : kept_previous->f32();
        // The gradients of a and m take their place.
        kernels.recurrent_backward(context, s, dy.f32(), again ? new_gates : kept_gates->f32(),
                                   previous, in.recurrent_kernel.f32(), a, m, rest);
        const float* dm = s.cell == Cell::gru ? m : a;
        const RowsShape rows = {s.projection().N, s.projection().O};
        kernels.dense_backward_weight(context, s.projection(), a, in.x.f32(), dw.data, rest);
        kernels.dense_backward_weight(context, s.recurrence(), dm, previous, dr.data, rest);
        kernels.bias_gradient(context, rows, a, db.data, rest);
        if (s.cell == Cell::gru) kernels.bias_gradient(context, rows, dm, db.data + rows.C, rest);
        kernels.dense_backward_input(context, s.projection(), a, in.kernel.f32(), dx.data, rest);
      });
  return py::make_tuple(dx.array, dw.array, dr.array,
                        in.bias ? py::object(db.array) : py::object(py::none()));
}

}  // namespace

void bind_sequence(py::module_& module) {
  using py::arg;
  module.def("attention", attention, arg("q"), arg("k"), arg("v"), arg("heads"), arg("scale"),
             arg("causal"), arg("rate"), arg("seed"), arg("step"), arg("stream"), arg("out"),
             arg("keep") = false);
  module.def("attention_backward", attention_backward, arg("dy"), arg("q"), arg("k"), arg("v"),
             arg("heads"), arg("scale"), arg("causal"), arg("rate"), arg("seed"), arg("step"),
             arg("stream"), arg("y") = py::none(), arg("lse") = py::none());
  module.def("recurrent", recurrent, arg("cell"), arg("x"), arg("kernel"), arg("recurrent_kernel"),
             arg("bias"), arg("return_sequences"), arg("go_backwards"), arg("out"),
             arg("keep") = false);
  module.def("recurrent_backward", recurrent_backward, arg("cell"), arg("dy"), arg("x"),
             arg("kernel"), arg("recurrent_kernel"), arg("bias"), arg("return_sequences"),
             arg("go_backwards"), arg("gates") = py::none(), arg("previous") = py::none());
}

}  // namespace convlet::bind
