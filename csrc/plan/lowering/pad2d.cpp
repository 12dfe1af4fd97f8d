// pad2d: zeros around an image; its gradient is the crop.
#include "plan/lowering.h"

namespace convlet {
namespace {

Shape infer(const Graph& graph, const Node& node) {
  check_rank(graph, node, 3, "(H,W,C)");
  Shape y = graph.shape(node.inputs[0]);
  auto pad = node.attributes.integers("pad", 4);
  for (std::int64_t size : pad)
    if (size < 0 || size > kMaxBytes)
      value_error(node.name, ": pad2d expected sizes of at least 0, got ", size, " in 'pad'");
  y[0] += pad[0] + pad[1];
  y[1] += pad[2] + pad[3];
  return y;
}

// pad2d and crop2d take the shape of the smaller tensor and both pointers, source first.
using Kernel = void (*Kernels::*)(Context&, const Shape&, std::int64_t, std::int64_t, std::int64_t,
                                  std::int64_t, const float*, float*);

void add_step(Builder& builder, const Node& node, const char* name, Kernel kernel, BufferId from,
              BufferId to) {
  auto pad = node.attributes.integers("pad", 4);
  Step& step = builder.step(name, node.name);
  step.reads = {from};
  step.writes = {to};
  step.bind = [=, sample = builder.graph.shape(node.inputs[0])](const Binding& at) -> Run {
    return [=, run = at.kernels.*kernel, x = sample.with_front(at.n), from_data = at[from],
            to_data = at[to]](Context& context) {
      run(context, x, pad[0], pad[1], pad[2], pad[3], from_data, to_data);
    };
  };
}

void forward(Builder& builder, const Node& node) {
  add_step(builder, node, "pad2d", &Kernels::pad2d, builder.value(node.inputs[0]),
           builder.new_output(node));
}

void backward(Builder& builder, const Node& node) {
  BufferId dx = builder.new_like(node.inputs[0]);
  add_step(builder, node, "crop2d", &Kernels::crop2d, builder.gradient(node.output), dx);
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kPad2d;
const Lowering kPad2d{"pad2d", 1, 1, 0, 0, {"pad"}, false, infer, forward, backward};

}  // namespace convlet
