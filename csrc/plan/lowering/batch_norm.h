// A batch_norm that is part of the layer before it, folded into its weights, or of the layer after
// it.
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

// Whether all that a batch_norm node does is to normalise, by statistics that it is given.
bool only_normalises(const Node& norm, Mode mode);

// The statistics that it is given.
struct GivenStatistics {
  BufferId mean = kNone, variance = kNone;
  float epsilon = 0.0f;
};
GivenStatistics given_statistics(const Builder& builder, const Node& norm);

}  // namespace convlet
