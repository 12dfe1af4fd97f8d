#include "plan/lowering/operand.h"

namespace convlet {

bool reads_parameters_in_place(const std::string& op) {
  return op == "add" || op == "multiply" || op == "binary" || op == "where";
}

Shape Operand::shape(std::int64_t n, int rank) const {
  Shape batch{parameter < 0 ? n : 1};
  for (int axis = sample.rank(); axis < rank; ++axis) batch.push_back(1);
  for (std::int64_t size : sample) batch.push_back(size);
  return batch;
}

Operand operand_of(const Builder& builder, int value) {
  const Graph& graph = builder.graph;
  const int producer = graph.values()[value].producer;
  if (producer >= 0 && graph.nodes()[producer].op == "parameter") {
    const int id = graph.nodes()[producer].parameters[0];
    return {value, id, builder.parameter(id), graph.shape(value)};
  }
  return {value, -1, builder.value(value), graph.shape(value)};
}

std::vector<Operand> operands_of(const Builder& builder, const Node& node) {
  std::vector<Operand> operands;
  for (int input : node.inputs) operands.push_back(operand_of(builder, input));
  return operands;
}

bool needs_gradient(const Builder& builder, const Operand& operand) {
  return operand.parameter < 0 ? builder.needs_gradient(operand.value)
                               : builder.needs_parameter_gradient(operand.parameter);
}

BroadcastShape broadcast_of(const std::vector<Operand>& operands, const Shape& y, std::int64_t n) {
  std::vector<Shape> shapes;
  for (const Operand& operand : operands) shapes.push_back(operand.shape(n, y.rank()));
  return broadcast_to(y.with_front(n), shapes);
}

Shape infer_broadcast(const Graph& graph, const Node& node) {
  std::vector<Shape> shapes;
  for (int input : node.inputs) shapes.push_back(graph.shape(input));
  return broadcast_shape((node.name + ": " + node.op).c_str(), shapes);
}

BufferId add_binary(Builder& builder, const Node& node, BinaryFunction function, const Operand& a,
                    const Operand& b, const Shape& y) {
  BufferId out = builder.new_buffer(y.elements() * std::int64_t{sizeof(float)});
  Step& step = builder.step("binary", node.name);
  step.reads = {a.buffer, b.buffer};
  step.writes = {out};
  step.reuses = {{out, a.buffer}, {out, b.buffer}};
  step.bind = [=](const Binding& at) -> Run {
    return [=, kernel = at.kernels.binary, shape = broadcast_of({a, b}, y, at.n),
            a_data = at[a.buffer], b_data = at[b.buffer], out_data = at[out]](Context& context) {
      kernel(context, shape, function, a_data, b_data, out_data);
    };
  };
  return out;
}

void add_reduce(Builder& builder, const std::string& layer, ReduceFunction function, BufferId from,
                BufferId to, std::function<ReduceShape(std::int64_t)> shape_of) {
  Step& step = builder.step("reduce", layer);
  step.reads = {from};
  step.writes = {to};
  step.workspace = [=](const Kernels& kernels, std::int64_t n, int) {
    return kernels.reduce_workspace(shape_of(n));
  };
  step.bind = [=](const Binding& at) -> Run {
    return [=, kernel = at.kernels.reduce, shape = shape_of(at.n), from_data = at[from],
            to_data = at[to], workspace = at.workspace](Context& context) {
      kernel(context, shape, function, from_data, to_data, workspace);
    };
  };
}

void add_operand_gradient(Builder& builder, const Node& node, const Operand& operand,
                          BufferId share, const Shape& y) {
  auto shape_of = [=](std::int64_t n) {
    return reduction_to(y.with_front(n), operand.shape(n, y.rank()));
  };
  if (operand.parameter >= 0) {
    builder.add_parameter_gradient(operand.parameter, [&](BufferId gradient) {
      add_reduce(builder, node.name, ReduceFunction::sum, share, gradient, shape_of);
    });
    return;
  }
  if (operand.sample.elements() != y.elements()) {
    BufferId sum = builder.new_like(operand.value);
    add_reduce(builder, node.name, ReduceFunction::sum, share, sum, shape_of);
    share = sum;
  }
  builder.add_gradient(operand.value, share);
}

}  // namespace convlet
