// Which steps of a graph become one, and which values need gradients: decisions, before any
// lowering.
#pragma once
#include <vector>

#include "plan/graph.h"
#include "plan/plan.h"

namespace convlet {

// A loss and the value that its kernel works on: the logits where the output is made of them by a
// softmax or a sigmoid and the loss expects a probability, else the output itself.
struct ResolvedLoss {
  LossSpec spec;
  bool softmax = false;  // softmax_cross_entropy; else `elementwise`
  ElementwiseLossSpec elementwise;
  int output = -1;  // value id of the graph output
  int input = -1;   // value id that the kernel reads
};

// ValueError that names the loss when the graph cannot give it what it needs.
std::vector<ResolvedLoss> resolve_losses(const Graph& graph, const std::vector<LossSpec>& losses);

struct Fusion {
  // By node: whether an output or a loss depends on it. The others are left out: what computes a
  // loss has no place in a forecast.
  std::vector<bool> live;
  // By node: the activation node that becomes its epilogue, or -1.
  std::vector<int> activation_of;
  // By node: true for an activation that is another's epilogue, and for a softmax whose
  // probabilities the loss kernel writes: it has no forward step of its own.
  std::vector<bool> absorbed;
  // By loss: true when its kernel writes the probabilities.
  std::vector<bool> writes_probabilities;
};

Fusion fuse(const Graph& graph, Mode mode, bool enabled, const std::vector<ResolvedLoss>& losses);

// By value: whether a trainable parameter is upstream of it; all false outside train mode.
std::vector<bool> values_needing_gradients(const Graph& graph, Mode mode);

// The activation of a node of op "activation", and its alpha.
Activation activation_of(const Node& node);
float alpha_of(const Node& node);

}  // namespace convlet
