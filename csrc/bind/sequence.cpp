// attention.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/run.h"

namespace convlet::bind {

namespace {

// The dropout of attention's probabilities; rate 0 is none.
struct AttentionDropout {
  float rate;
  RandomStep random;
  std::uint64_t stream;
};

AttentionDropout attention_dropout(const char* op, double rate, std::uint64_t seed,
                                   std::uint64_t step, std::uint64_t stream) {
  if (!(rate >= 0 && rate < 1)) value_error(op, ": expected rate in [0,1), got ", rate);
  return {static_cast<float>(rate), {seed, step}, stream};
}

py::array attention(const py::object& q_value, const py::object& k_value, const py::object& v_value,
                    std::int64_t heads, std::optional<double> scale, bool causal, double rate,
                    std::uint64_t seed, std::uint64_t step, std::uint64_t stream,
                    const py::object& out) {
  const char* op = "attention";
  Input q = float_input(op, "q", q_value, "(N,T,H*D)");
  Input k = float_input(op, "k", k_value, "(N,S,H*D)");
  Input v = float_input(op, "v", v_value, "(N,S,H*E)");
  AttentionShape shape =
      check_attention(op, q.shape(), k.shape(), v.shape(), {heads, scale, causal});
  AttentionDropout drop = attention_dropout(op, rate, seed, step, stream);
  Output y = float_output(op, out, shape.y(), {&q, &k, &v});

  run([&](const Kernels& kernels,
          int threads) { return kernels.attention_workspace(shape, Pass::forward, threads); },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        kernels.attention(context, shape, drop.rate, &drop.random, drop.stream, q.f32(), k.f32(),
                          v.f32(), y.data, nullptr, workspace.data());
      });
  return y.array;
}

// (dq, dk, dv); the forward runs again for what the backward needs of it.
py::tuple attention_backward(const py::object& dy_value, const py::object& q_value,
                             const py::object& k_value, const py::object& v_value,
                             std::int64_t heads, std::optional<double> scale, bool causal,
                             double rate, std::uint64_t seed, std::uint64_t step,
                             std::uint64_t stream) {
  const char* op = "attention_backward";
  Input dy = float_input(op, "dy", dy_value, "(N,T,H*E)");
  Input q = float_input(op, "q", q_value, "(N,T,H*D)");
  Input k = float_input(op, "k", k_value, "(N,S,H*D)");
  Input v = float_input(op, "v", v_value, "(N,S,H*E)");
  AttentionShape shape =
      check_attention(op, q.shape(), k.shape(), v.shape(), {heads, scale, causal});
  expect_shape(op, "dy", "(N,T,H*E)", shape.y(), dy.shape());
  AttentionDropout drop = attention_dropout(op, rate, seed, step, stream);
  Output dq = float_output(op, py::none(), shape.q(), {});
  Output dk = float_output(op, py::none(), shape.k(), {});
  Output dv = float_output(op, py::none(), shape.v(), {});
  const std::int64_t y_size = shape.y().elements(), lse_size = shape.lse().elements();

  run(
      [&](const Kernels& kernels, int threads) {
        return Workspace::padded<float>(y_size) + Workspace::padded<float>(lse_size) +
               std::max(kernels.attention_workspace(shape, Pass::forward, threads),
                        kernels.attention_workspace(shape, Pass::backward_input, threads));
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        float *y = workspace.take<float>(y_size), *lse = workspace.take<float>(lse_size);
        char* rest = workspace.take<char>(0);
        kernels.attention(context, shape, drop.rate, &drop.random, drop.stream, q.f32(), k.f32(),
                          v.f32(), y, lse, rest);
        kernels.attention_backward(context, shape, drop.rate, &drop.random, drop.stream, dy.f32(),
                                   q.f32(), k.f32(), v.f32(), y, lse, dq.data, dk.data, dv.data,
                                   rest);
      });
  return py::make_tuple(dq.array, dk.array, dv.array);
}

}  // namespace

void bind_sequence(py::module_& module) {
  using py::arg;
  module.def("attention", attention, arg("q"), arg("k"), arg("v"), arg("heads"), arg("scale"),
             arg("causal"), arg("rate"), arg("seed"), arg("step"), arg("stream"), arg("out"));
  module.def("attention_backward", attention_backward, arg("dy"), arg("q"), arg("k"), arg("v"),
             arg("heads"), arg("scale"), arg("causal"), arg("rate"), arg("seed"), arg("step"),
             arg("stream"));
}

}  // namespace convlet::bind
