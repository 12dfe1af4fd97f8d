// Convolutions and poolings of a graph as shapes, and the two fused (lowering/conv2d_pool.cpp).
#pragma once
#include <optional>

#include "plan/lowering.h"

namespace convlet {

// By the ops' own checks, for n rows of the batch.
Conv2dShape conv2d_shape(const Graph& graph, const Node& node, std::int64_t n);
Pool2dShape pool2d_shape(const Graph& graph, const Node& node, std::int64_t n);

// A conv2d, and the pooling after it unless that is null, for n rows.
struct PooledConv2dShape {
  Conv2dShape conv;
  std::optional<Pool2dShape> pool;

  PooledConv2dShape(const Graph& graph, const Node& node, const Node* pool_node, std::int64_t n);
  const Pool2dShape* pooling() const { return pool ? &*pool : nullptr; }
};

// Adds the steps of a conv2d, maybe with a pooling, with weights laid out for it; false where the
// device has no such way for it, or none for training.
bool prepared_conv2d_forward(Builder& builder, const Node& node);
// The same for the gradient of its input, without a pooling.
bool winograd_backward_input(Builder& builder, const Node& node);

// The steps of a conv2d whose images are bytes (Builder::bytes_of); false for another. choice is
// the forward's, or kNone without a pooling.
bool conv2d_bytes_forward(Builder& builder, const Node& node);
bool conv2d_bytes_backward_weight(Builder& builder, const Node& node, BufferId dy, BufferId choice);

// The steps of a conv2d with a pooling (Builder::pool_of).
void conv2d_pool_forward(Builder& builder, const Node& node);
void conv2d_pool_backward(Builder& builder, const Node& node);

}  // namespace convlet
