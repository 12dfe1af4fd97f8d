// softmax and log_softmax over the last axis. A softmax whose probabilities a loss writes has no
// step here.
#include "plan/lowering.h"

namespace convlet {
namespace {

RowsShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  return check_softmax(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n));
}

Shape infer(const Graph& graph, const Node& node) {
  if (graph.shape(node.inputs[0]).rank() == 0)
    value_error(node.name, ": ", node.op, " expected samples with at least one axis, got shape ()");
  shape_of(graph, node, 1);
  return graph.shape(node.inputs[0]);
}

using Forward = void (*Kernels::*)(Context&, const RowsShape&, const float*, float*);
using Backward = void (*Kernels::*)(Context&, const RowsShape&, const float*, const float*, float*);

void add_forward(Builder& builder, const Node& node, const char* name, Forward kernel) {
  BufferId x = builder.value(node.inputs[0]), y = builder.new_output(node);
  Step& step = builder.step(name, node.name);
  step.reads = {x};
  step.writes = {y};
  step.reuses = {{y, x}};
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [run = at.kernels.*kernel, shape = shape_of(graph, node, at.n), x_data = at[x],
            y_data = at[y]](Context& context) { run(context, shape, x_data, y_data); };
  };
}

void add_backward(Builder& builder, const Node& node, const char* name, Backward kernel) {
  BufferId dy = builder.gradient(node.output), y = builder.value(node.output);
  BufferId dx = builder.new_like(node.inputs[0]);
  Step& step = builder.step(name, node.name);
  step.reads = {dy, y};
  step.writes = {dx};
  step.reuses = {{dx, dy}};
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [run = at.kernels.*kernel, shape = shape_of(graph, node, at.n), dy_data = at[dy],
            y_data = at[y],
            dx_data = at[dx]](Context& context) { run(context, shape, dy_data, y_data, dx_data); };
  };
  builder.add_gradient(node.inputs[0], dx);
}

void softmax_forward(Builder& builder, const Node& node) {
  add_forward(builder, node, "softmax", &Kernels::softmax);
}
void softmax_backward(Builder& builder, const Node& node) {
  add_backward(builder, node, "softmax_backward", &Kernels::softmax_backward);
}
void log_softmax_forward(Builder& builder, const Node& node) {
  add_forward(builder, node, "log_softmax", &Kernels::log_softmax);
}
void log_softmax_backward(Builder& builder, const Node& node) {
  add_backward(builder, node, "log_softmax_backward", &Kernels::log_softmax_backward);
}

}  // namespace

extern const Lowering kSoftmax, kLogSoftmax;
const Lowering kSoftmax{"softmax", 1, 1, 0, 0, {}, false, infer, softmax_forward, softmax_backward};
const Lowering kLogSoftmax{"log_softmax",       1, 1, 0, 0, {}, false, infer, log_softmax_forward,
                           log_softmax_backward};

}  // namespace convlet
