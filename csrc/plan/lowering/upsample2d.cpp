// upsample2d inside a plan: see ops/upsample2d.h for the formula.
#include "plan/lowering.h"

namespace convlet {
namespace {

Upsample2dShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  check_rank(graph, node, 3, "(H,W,C)");
  const auto size = node.attributes.integers("size", 2);
  const std::string name = node.attributes.text("interpolation", "nearest");
  return check_upsample2d(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n), size[0],
                          size[1], interpolation_named(node.name.c_str(), name));
}

Shape infer(const Graph& graph, const Node& node) {
  return shape_of(graph, node, 1).y().without_front();
}

using Kernel = void (*Kernels::*)(Context&, const Upsample2dShape&, const float*, float*);

void add_step(Builder& builder, const Node& node, const char* name, Kernel kernel, BufferId from,
              BufferId to) {
  Step& step = builder.step(name, node.name);
  step.reads = {from};
  step.writes = {to};
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [run = at.kernels.*kernel, shape = shape_of(graph, node, at.n), from_data = at[from],
            to_data = at[to]](Context& context) { run(context, shape, from_data, to_data); };
  };
}

void forward(Builder& builder, const Node& node) {
  add_step(builder, node, "upsample2d", &Kernels::upsample2d, builder.value(node.inputs[0]),
           builder.new_output(node));
}

void backward(Builder& builder, const Node& node) {
  const BufferId dx = builder.new_like(node.inputs[0]);
  add_step(builder, node, "upsample2d_backward", &Kernels::upsample2d_backward,
           builder.gradient(node.output), dx);
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kUpsample2d;
const Lowering kUpsample2d{"upsample2d", 1,     1,       0,       0, {"size", "interpolation"},
                           false,        infer, forward, backward};

}  // namespace convlet
