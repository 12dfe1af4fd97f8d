// concatenate along one axis of the samples. Seen as matrices of the axes before it times the rest,
// each input is a group of columns of the output.
#include "plan/lowering.h"

namespace convlet {
namespace {

int axis_of(const Graph& graph, const Node& node) {
  int rank = graph.shape(node.inputs[0]).rank();
  std::int64_t axis = node.attributes.integer("axis", -1);
  if (axis < -rank || axis >= rank)
    value_error(node.name, ": concatenate expected an axis of samples ",
                graph.shape(node.inputs[0]), ", got ", axis);
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

Shape infer(const Graph& graph, const Node& node) {
  int axis = axis_of(graph, node);
  Shape y = graph.shape(node.inputs[0]);
  for (std::size_t i = 1; i < node.inputs.size(); ++i) {
    Shape x = graph.shape(node.inputs[i]);
    bool fits = x.rank() == y.rank();
    for (int a = 0; fits && a < y.rank(); ++a) fits = a == axis || x[a] == y[a];
    if (!fits)
      value_error(node.name, ": concatenate expected inputs that differ in axis ", axis,
                  " only, got ", graph.shape(node.inputs[0]), " and ", x);
    y[axis] += x[axis];
  }
  return y;
}

struct Columns {
  std::int64_t rows = 1;            // per sample
  std::int64_t width = 1;           // of the output
  std::vector<std::int64_t> count;  // of each input
};

Columns columns_of(const Graph& graph, const Node& node) {
  int axis = axis_of(graph, node);
  Columns columns;
  const Shape& y = graph.shape(node.output);
  for (int a = 0; a < axis; ++a) columns.rows *= y[a];
  columns.width = y.elements() / columns.rows;
  for (int input : node.inputs)
    columns.count.push_back(graph.shape(input).elements() / columns.rows);
  return columns;
}

void forward(Builder& builder, const Node& node) {
  Columns columns = columns_of(builder.graph, node);
  BufferId y = builder.new_output(node);
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    BufferId x = builder.value(node.inputs[i]);
    Step& step = builder.step("copy_to_columns", node.name);
    step.reads = {x};
    step.writes = {y};
    step.bind = [=, rows = columns.rows, count = columns.count[i],
                 width = columns.width](const Binding& at) -> Run {
      return [=, kernel = at.kernels.copy_to_columns, n = at.n * rows, x_data = at[x],
              y_data = at[y]](Context& context) {
        kernel(context, n, count, x_data, width, offset, y_data);
      };
    };
    offset += columns.count[i];
  }
}

void backward(Builder& builder, const Node& node) {
  Columns columns = columns_of(builder.graph, node);
  BufferId dy = builder.gradient(node.output);
  std::int64_t offset = 0;
  for (std::size_t i = 0; i < node.inputs.size(); ++i) {
    int input = node.inputs[i];
    if (builder.needs_gradient(input)) {
      BufferId dx = builder.new_like(input);
      Step& step = builder.step("copy_from_columns", node.name);
      step.reads = {dy};
      step.writes = {dx};
      step.bind = [=, rows = columns.rows, count = columns.count[i],
                   width = columns.width](const Binding& at) -> Run {
        return [=, kernel = at.kernels.copy_from_columns, n = at.n * rows, dy_data = at[dy],
                dx_data = at[dx]](Context& context) {
          kernel(context, n, count, dy_data, width, offset, dx_data);
        };
      };
      builder.add_gradient(input, dx);
    }
    offset += columns.count[i];
  }
}

}  // namespace

extern const Lowering kConcatenate;
const Lowering kConcatenate{"concatenate", 1,     kAnyNumber, 0,       0,
                            {"axis"},      false, infer,      forward, backward};

}  // namespace convlet
