// dense inside a plan: see ops/dense.h for the formula. It works on the last axis of a sample of
// any rank.
#include "plan/lowering/linear.h"

namespace convlet {
namespace {

struct Dense {
  static constexpr const char* op = "dense";
  static constexpr const char* backward_input_name = "dense_backward_input";
  static constexpr const char* backward_weight_name = "dense_backward_weight";
  static constexpr auto workspace = &Kernels::dense_workspace;
  static constexpr auto forward = &Kernels::dense;
  static constexpr auto backward_input = &Kernels::dense_backward_input;
  static constexpr auto backward_weight = &Kernels::dense_backward_weight;

  static DenseShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
    const Shape& sample = graph.shape(node.inputs[0]);
    Shape x{n * (sample.elements() / sample.back()), sample.back()};
    return check_dense(node.name.c_str(), x, graph.parameter_shape(node.parameters[0]));
  }
  static RowsShape bias_rows(const DenseShape& s) { return {s.N, s.O}; }
};

Shape infer(const Graph& graph, const Node& node) {
  Shape y = graph.shape(node.inputs[0]);
  if (y.rank() == 0)
    value_error(node.name, ": dense expected samples with at least one axis, got shape ()");
  DenseShape shape = Dense::shape_of(graph, node, 1);
  bias_of(graph, node, shape.O);
  y[y.rank() - 1] = shape.O;
  return y;
}

}  // namespace

extern const Lowering kDense;
const Lowering kDense{
    "dense", 1, 1, 1, 2, {}, true, infer, linear_forward<Dense>, linear_backward<Dense>};

}  // namespace convlet
