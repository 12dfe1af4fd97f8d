// Which steps of a graph become one, and which values need gradients: decisions, before any
// lowering.
#pragma once
#include <vector>

#include "ops/kernels.h"
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

// All but the last are by node.
struct Fusion {
  // Whether an output or a loss depends on the node. The others are left out: what computes a loss
  // has no place in a forecast.
  std::vector<bool> live;
  // The value that the node's step writes: its own output, or that of the last node fused into it.
  std::vector<int> writes;
  // The value whose gradient the node's backward turns into others. It is not the node's own output
  // where the backward includes that of what is fused (batch_norm, conv2d_pool).
  std::vector<int> gradient_of;
  // The activation node that becomes the node's epilogue, or -1.
  std::vector<int> activation_of;
  // The value that a batch_norm or conv2d adds before its activation, or -1.
  std::vector<int> residual_of;
  // The max_pool2d node that a conv2d's kernel goes on with (conv2d_pool), or -1.
  std::vector<int> pool_of;
  // The batch_norm node that is folded into the weights of a conv2d or dense, or -1.
  std::vector<int> folded_into;
  // The graph input that a conv2d's kernel reads as bytes, or -1; and the scale and batch_norm
  // nodes between the two, which that kernel applies, or -1.
  std::vector<int> bytes_of;
  std::vector<int> scale_of;
  std::vector<int> normalization_of;
  // True for what is fused into another node, and for a softmax whose probabilities the loss kernel
  // writes: it has no forward step of its own.
  std::vector<bool> absorbed;
  // True where the backward is part of another node's too.
  std::vector<bool> absorbed_backward;
  // By loss: true when its kernel writes the probabilities.
  std::vector<bool> writes_probabilities;
  // By graph input: whether it could be read as bytes.
  std::vector<bool> takes_bytes;
};

// What `kernels` has no kernel for is not fused. bytes, by graph input: whether batches bring bytes
// for it.
Fusion fuse(const Graph& graph, const PlanOptions& options, const Kernels& kernels,
            const std::vector<ResolvedLoss>& losses, const std::vector<bool>& bytes);

// By value: whether a trainable parameter is upstream of it; all false outside train mode.
std::vector<bool> values_needing_gradients(const Graph& graph, Mode mode);

// The activation of a node of op "activation", and its alpha.
Activation activation_of(const Node& node);
float alpha_of(const Node& node);

// What a node of op "scale" does: factor * x + offset.
struct LinearScale {
  float factor = 1.0f, offset = 0.0f;
};
LinearScale linear_scale_of(const Node& node);

}  // namespace convlet
