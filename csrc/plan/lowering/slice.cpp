// slice: `size` positions of one axis of the samples, from `begin` on. Seen as images of rows
// before the axis, pixels along it and the rest as channels, it is a crop, and its gradient the
// padding.
#include "plan/lowering.h"

namespace convlet {
namespace {

struct Cut {
  std::int64_t rows = 1, channels = 1;  // before the axis (per sample), and after it
  std::int64_t begin, size, end;        // end: what follows the slice
};

Cut cut_of(const Graph& graph, const Node& node) {
  const Shape& x = graph.shape(node.inputs[0]);
  const std::int64_t axis = node.attributes.integer("axis", 0);
  if (axis < 0 || axis >= x.rank())
    value_error(node.name, ": slice expected an axis of samples ", x, ", got ", axis);
  Cut cut;
  cut.begin = node.attributes.integer("begin", 0);
  cut.size = node.attributes.integer("size", x[static_cast<int>(axis)] - cut.begin);
  cut.end = x[static_cast<int>(axis)] - cut.begin - cut.size;
  if (cut.begin < 0 || cut.size < 1 || cut.size > x[static_cast<int>(axis)] || cut.end < 0)
    value_error(node.name, ": slice expected begin >= 0, size >= 1 and begin + size <= ",
                x[static_cast<int>(axis)], " along axis ", axis, " of samples ", x, ", got begin ",
                cut.begin, " and size ", cut.size);
  for (int a = 0; a < x.rank(); ++a)
    if (a != axis) (a < axis ? cut.rows : cut.channels) *= x[a];
  return cut;
}

Shape infer(const Graph& graph, const Node& node) {
  Shape y = graph.shape(node.inputs[0]);
  const std::int64_t size = cut_of(graph, node).size;
  y[static_cast<int>(node.attributes.integer("axis", 0))] = size;
  return y;
}

using Kernel = void (*Kernels::*)(Context&, const Shape&, std::int64_t, std::int64_t, std::int64_t,
                                  std::int64_t, const float*, float*);

void add_step(Builder& builder, const Node& node, const char* name, Kernel kernel, BufferId from,
              BufferId to) {
  Step& step = builder.step(name, node.name);
  step.reads = {from};
  step.writes = {to};
  step.bind = [=, cut = cut_of(builder.graph, node)](const Binding& at) -> Run {
    return [=, run = at.kernels.*kernel, small = Shape{at.n, cut.rows, cut.size, cut.channels},
            from_data = at[from], to_data = at[to]](Context& context) {
      run(context, small, 0, 0, cut.begin, cut.end, from_data, to_data);
    };
  };
}

void forward(Builder& builder, const Node& node) {
  add_step(builder, node, "crop2d", &Kernels::crop2d, builder.value(node.inputs[0]),
           builder.new_output(node));
}

void backward(Builder& builder, const Node& node) {
  const BufferId dx = builder.new_like(node.inputs[0]);
  add_step(builder, node, "pad2d", &Kernels::pad2d, builder.gradient(node.output), dx);
  builder.add_gradient(node.inputs[0], dx);
}

}  // namespace

extern const Lowering kSlice;
const Lowering kSlice{"slice", 1,     1,       0,       0, {"axis", "begin", "size"},
                      false,   infer, forward, backward};

}  // namespace convlet
