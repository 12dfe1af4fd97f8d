// A batch_norm that is folded into the layer before it.
#pragma once
#include "plan/lowering.h"

namespace convlet {

struct FoldedWeights {
  BufferId weight, bias;
};

// Adds the step that makes the weights and the bias which let a conv2d or dense node compute what
// the batch_norm node would make of its output. It runs when parameters have changed. Unless kept,
// the weights last for the prepare steps only.
FoldedWeights fold_batch_norm(Builder& builder, const Node& linear, const Node& norm, bool kept);

}  // namespace convlet
