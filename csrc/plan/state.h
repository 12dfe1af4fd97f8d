// State: the memory of a graph that outlasts a step, shared by all its plans. Parameters, gradients
// and each slot of optimizer state are flat buffers of one layout: the trainable parameters first,
// in the graph's order, each aligned to 64 bytes, then the others. Threads that share a state take
// turns: whoever gives it to several (csrc/bind) holds a lock around every use of it and of its
// plans.
#pragma once
#include <vector>

#include "core/device.h"
#include "ops/optimizer.h"
#include "plan/graph.h"

namespace convlet {

class State {
 public:
  State(Device& device, const Graph& graph);

  Device& device() const { return device_; }
  std::int64_t trainable_elements() const { return trainable_; }  // with the alignment gaps
  std::int64_t elements() const { return total_; }
  int slots() const { return has_optimizer_ ? optimizer_slots(spec_) : 0; }

  // ValueError unless this state was made for a graph with the same parameters.
  void check_fits(const Graph& graph) const;

  float* parameter(int id) const;
  float* gradient(int id) const;        // null unless trainable and the gradients are allocated
  float* slot(int slot, int id) const;  // null unless trainable and there is such a slot
  // Copies out of and into this memory.
  void get(const float* device_data, float* out, std::int64_t count) const;
  void set(float* device_data, const float* values, std::int64_t count) const;

  void allocate_gradients();
  // Chooses the optimizer and zeroes its slots and the count of updates. A clip of 0 is none; at
  // most one of the two may be set.
  void set_optimizer(const OptimizerSpec& spec, float clip_norm, float global_clip_norm);
  bool has_optimizer() const { return has_optimizer_; }
  const OptimizerSpec& optimizer() const { return spec_; }
  float clip_norm() const { return clip_norm_; }
  float global_clip_norm() const { return global_clip_norm_; }

  std::int64_t updates = 0;  // how many updates have been applied; adam's t - 1

  // Grows with every change of memory or optimizer: a plan that has seen another version binds
  // again.
  int version() const { return version_; }

 private:
  Device& device_;
  std::vector<Shape> shapes_;
  std::vector<std::int64_t> offsets_;
  std::int64_t trainable_ = 0, total_ = 0;
  bool has_optimizer_ = false;
  OptimizerSpec spec_;
  float clip_norm_ = 0, global_clip_norm_ = 0;
  DeviceMemory parameters_, gradients_, slots_;
  int version_ = 0;
};

}  // namespace convlet
