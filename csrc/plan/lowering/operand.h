// What the ops that broadcast have in common: their inputs in a batch, and where gradients go.
//
// The value of a `parameter` node is the same for every sample. These ops read it where it lies, as
// a batch of one that is repeated, and sum its gradient over the batch on the way.
#pragma once
#include "plan/lowering.h"

namespace convlet {

// Whether an op reads parameters where they lie, so that their node need not repeat them.
bool reads_parameters_in_place(const std::string& op);

struct Operand {
  int value;
  int parameter;  // id, or -1
  BufferId buffer;
  Shape sample;

  // With a batch of n in front and 1s so that the sample has `rank` axes.
  Shape shape(std::int64_t n, int rank) const;
};

Operand operand_of(const Builder& builder, int value);
std::vector<Operand> operands_of(const Builder& builder, const Node& node);
bool needs_gradient(const Builder& builder, const Operand& operand);

// The operands seen in a batch of n samples of shape `y`.
BroadcastShape broadcast_of(const std::vector<Operand>& operands, const Shape& y, std::int64_t n);

// The shape that the samples of the node's inputs give together; Error that begins with its name.
Shape infer_broadcast(const Graph& graph, const Node& node);

// A new buffer with function(a, b), of samples of shape `y`.
BufferId add_binary(Builder& builder, const Node& node, BinaryFunction function, const Operand& a,
                    const Operand& b, const Shape& y);

// Adds `share`, a gradient in samples of shape `y`, to that of the operand, summed over the axes
// along which the operand is repeated.
void add_operand_gradient(Builder& builder, const Node& node, const Operand& operand,
                          BufferId share, const Shape& y);

// A step that reduces `from` to `to`; shape_of(n) is its shape for n rows.
void add_reduce(Builder& builder, const std::string& layer, ReduceFunction function, BufferId from,
                BufferId to, std::function<ReduceShape(std::int64_t)> shape_of);

}  // namespace convlet
