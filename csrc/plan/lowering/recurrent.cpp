// simple_rnn, lstm and gru inside a plan: see ops/recurrent.h for the formulas and for the kernels
// that a layer is made of. Where a gradient is needed the forward keeps the gates and h[t-1] of
// every step.
#include <algorithm>

#include "plan/lowering.h"

namespace convlet {
namespace {

constexpr std::int64_t kFloat = sizeof(float);

RecurrentShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  RecurrentOptions options;
  options.return_sequences = node.attributes.boolean("return_sequences", false);
  options.go_backwards = node.attributes.boolean("go_backwards", false);
  options.aligned = node.attributes.boolean("aligned", false);
  const bool has_bias = node.parameters.size() > 2;
  return check_recurrent(
      node.name.c_str(), cell_named(node.op), graph.shape(node.inputs[0]).with_front(n),
      graph.parameter_shape(node.parameters[0]), graph.parameter_shape(node.parameters[1]),
      has_bias ? &graph.parameter_shape(node.parameters[2]) : nullptr, options);
}

Shape infer(const Graph& graph, const Node& node) {
  check_rank(graph, node, 2, "(T,I)");
  return shape_of(graph, node, 1).y().without_front();
}

// The workspace of a dense kernel on the layer's shape `dense`.
auto dense_workspace(const Builder& builder, const Node& node,
                     DenseShape (RecurrentShape::*dense)() const, Pass pass) {
  return [=, &graph = builder.graph, &node](const Kernels& kernels, std::int64_t n, int threads) {
    return kernels.dense_workspace((shape_of(graph, node, n).*dense)(), pass, threads);
  };
}

auto walk_workspace(const Builder& builder, const Node& node, Pass pass) {
  return [=, &graph = builder.graph, &node](const Kernels& kernels, std::int64_t n, int threads) {
    return kernels.recurrent_workspace(shape_of(graph, node, n), pass, threads);
  };
}

BufferId add_projection(Builder& builder, const Node& node, const RecurrentShape& sample) {
  const BufferId x = builder.value(node.inputs[0]), w = builder.parameter(node.parameters[0]);
  const BufferId bias = node.parameters.size() > 2 ? builder.parameter(node.parameters[2]) : kNone;
  const BufferId projected = builder.new_buffer(sample.projected().elements() * kFloat);
  Step& step = builder.step("dense", node.name);
  step.reads = {x, w, bias};
  step.writes = {projected};
  step.workspace = dense_workspace(builder, node, &RecurrentShape::projection, Pass::forward);
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [kernel = at.kernels.dense, shape = shape_of(graph, node, at.n).projection(),
            x_data = at[x], w_data = at[w], bias_data = at[bias], y_data = at[projected],
            workspace = at.workspace](Context& context) {
      kernel(context, shape, x_data, w_data, bias_data, Activation::none, y_data, workspace);
    };
  };
  return projected;
}

void forward(Builder& builder, const Node& node) {
  const RecurrentShape sample = shape_of(builder.graph, node, 1);
  const BufferId projected = add_projection(builder, node, sample);
  const BufferId r = builder.parameter(node.parameters[1]), y = builder.new_output(node);
  const BufferId bias = node.parameters.size() > 2 && sample.cell == Cell::gru
                            ? builder.parameter(node.parameters[2])
                            : kNone;
  BufferId kept = kNone, previous = kNone;
  if (builder.needs_gradient(node.output)) {
    kept = builder.new_buffer(sample.kept().elements() * kFloat);
    previous = builder.new_buffer(sample.previous().elements() * kFloat);
    builder.saved(node) = {kept, previous};
  }
  Step& step = builder.step("recurrent", node.name);
  step.reads = {projected, r, bias};
  step.writes = {y, kept, previous};
  step.workspace = walk_workspace(builder, node, Pass::forward);
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    const RecurrentShape shape = shape_of(graph, node, at.n);
    const float* second_bias = bias == kNone ? nullptr : at[bias] + shape.kernel().back();
    return [=, kernel = at.kernels.recurrent, projected_data = at[projected], r_data = at[r],
            kept_data = at[kept], previous_data = at[previous], y_data = at[y],
            workspace = at.workspace](Context& context) {
      kernel(context, shape, projected_data, r_data, second_bias, kept_data, previous_data, y_data,
             workspace);
    };
  };
}

// The gradients of a and m; one buffer where they are the same.
struct GateGradients {
  BufferId a, m;
};

GateGradients add_walk_back(Builder& builder, const Node& node) {
  const RecurrentShape sample = shape_of(builder.graph, node, 1);
  const BufferId dy = builder.gradient(node.output), r = builder.parameter(node.parameters[1]);
  const BufferId kept = builder.saved(node)[0], previous = builder.saved(node)[1];
  const BufferId da = builder.new_buffer(sample.projected().elements() * kFloat);
  const BufferId dm =
      sample.cell == Cell::gru ? builder.new_buffer(sample.projected().elements() * kFloat) : da;
  Step& step = builder.step("recurrent_backward", node.name);
  step.reads = {dy, kept, previous, r};
  step.writes = {da};
  if (dm != da) step.writes.push_back(dm);
  step.workspace = walk_workspace(builder, node, Pass::backward_input);
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [kernel = at.kernels.recurrent_backward, shape = shape_of(graph, node, at.n),
            dy_data = at[dy], kept_data = at[kept], previous_data = at[previous], r_data = at[r],
            da_data = at[da], dm_data = at[dm], workspace = at.workspace](Context& context) {
      kernel(context, shape, dy_data, kept_data, previous_data, r_data, da_data, dm_data,
             workspace);
    };
  };
  return {da, dm};
}

void add_weight_gradient(Builder& builder, const Node& node, int parameter,
                         DenseShape (RecurrentShape::*dense)() const, BufferId x, BufferId dy) {
  builder.add_parameter_gradient(node.parameters[parameter], [&](BufferId dw) {
    Step& step = builder.step("dense_backward_weight", node.name);
    step.reads = {dy, x};
    step.writes = {dw};
    step.workspace = dense_workspace(builder, node, dense, Pass::backward_weight);
    step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
      return [kernel = at.kernels.dense_backward_weight,
              shape = (shape_of(graph, node, at.n).*dense)(), dy_data = at[dy], x_data = at[x],
              dw_data = at[dw], workspace = at.workspace](Context& context) {
        kernel(context, shape, dy_data, x_data, dw_data, workspace);
      };
    };
  });
}

// Both biases of a gru are one parameter.
void add_bias_gradient(Builder& builder, const Node& node, GateGradients gates) {
  builder.add_parameter_gradient(node.parameters[2], [&](BufferId db) {
    auto rows_of = [&graph = builder.graph, &node](std::int64_t n) {
      const DenseShape dense = shape_of(graph, node, n).projection();
      return RowsShape{dense.N, dense.O};
    };
    Step& step = builder.step("bias_gradient", node.name);
    step.reads = {gates.a};
    if (gates.m != gates.a) step.reads.push_back(gates.m);
    step.writes = {db};
    step.workspace = [=](const Kernels& kernels, std::int64_t n, int) {
      return kernels.bias_gradient_workspace(rows_of(n));
    };
    step.bind = [=](const Binding& at) -> Run {
      const float* dm = gates.m == gates.a ? nullptr : at[gates.m];
      return [=, kernel = at.kernels.bias_gradient, rows = rows_of(at.n), da = at[gates.a],
              db_data = at[db], workspace = at.workspace](Context& context) {
        kernel(context, rows, da, db_data, workspace);
        if (dm) kernel(context, rows, dm, db_data + rows.C, workspace);
      };
    };
  });
}

void add_input_gradient(Builder& builder, const Node& node, BufferId da) {
  const BufferId w = builder.parameter(node.parameters[0]);
  const BufferId dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step("dense_backward_input", node.name);
  step.reads = {da, w};
  step.writes = {dx};
  step.workspace =
      dense_workspace(builder, node, &RecurrentShape::projection, Pass::backward_input);
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [kernel = at.kernels.dense_backward_input,
            shape = shape_of(graph, node, at.n).projection(), da_data = at[da], w_data = at[w],
            dx_data = at[dx], workspace = at.workspace](Context& context) {
      kernel(context, shape, da_data, w_data, dx_data, workspace);
    };
  };
  builder.add_gradient(node.inputs[0], dx);
}

void backward(Builder& builder, const Node& node) {
  const GateGradients gates = add_walk_back(builder, node);
  const BufferId x = builder.value(node.inputs[0]), previous = builder.saved(node)[1];
  if (builder.needs_parameter_gradient(node.parameters[0]))
    add_weight_gradient(builder, node, 0, &RecurrentShape::projection, x, gates.a);
  if (builder.needs_parameter_gradient(node.parameters[1]))
    add_weight_gradient(builder, node, 1, &RecurrentShape::recurrence, previous, gates.m);
  if (node.parameters.size() > 2 && builder.needs_parameter_gradient(node.parameters[2]))
    add_bias_gradient(builder, node, gates);
  if (builder.needs_gradient(node.inputs[0])) add_input_gradient(builder, node, gates.a);
}

Lowering recurrent_lowering(const char* op) {
  return {op,    1,     1,       2,       3, {"return_sequences", "go_backwards", "aligned"},
          false, infer, forward, backward};
}

}  // namespace

extern const Lowering kSimpleRnn, kLstm, kGru;
const Lowering kSimpleRnn = recurrent_lowering("simple_rnn");
const Lowering kLstm = recurrent_lowering("lstm");
const Lowering kGru = recurrent_lowering("gru");

}  // namespace convlet
