// State: the memory of a graph that outlasts a step, shared by all its plans. Parameters, gradients
// and each slot of optimizer state are flat buffers of one layout: the trainable parameters first,
// in groups that are updated alike, each parameter aligned to 64 bytes, then the others. Within a
// group the order is the graph's. Threads that share a state take
// turns: whoever gives it to several (csrc/bind) holds a lock around every use of it and of its
// plans.
#pragma once
#include <vector>

#include "core/device.h"
#include "ops/optimizer.h"
#include "plan/graph.h"

namespace convlet {

// How the parameters are updated.
struct UpdateRule {
  OptimizerSpec optimizer;
  // The limit of each gradient's norm, and of the norm of all; 0 is none. At most one of the two
  // and optimizer.clip_value may be set.
  float clip_norm = 0, global_clip_norm = 0;
  std::int64_t accumulation_steps = 1;  // batches whose mean gradient makes one update
  bool average = false;                 // whether a running average of the parameters is kept
  float average_momentum = 0.99f;
};

// Trainable parameters with one factor of the learning rate and all or none with weight decay.
// Their memory is contiguous and begins at the first of them.
struct UpdateGroup {
  float rate_scale;
  bool weight_decay;
  std::vector<int> parameters;
  std::int64_t elements;  // with the alignment gaps
};

class State {
 public:
  State(Device& device, const Graph& graph);

  Device& device() const { return device_; }
  std::int64_t trainable_elements() const { return trainable_; }  // with the alignment gaps
  std::int64_t elements() const { return total_; }
  const std::vector<UpdateGroup>& groups() const { return groups_; }

  // ValueError unless this state was made for a graph with the same parameters.
  void check_fits(const Graph& graph) const;

  float* parameter(int id) const;
  float* gradient(int id) const;        // null unless trainable and the gradients are allocated
  float* slot(int slot, int id) const;  // null unless trainable and there is such a slot
  // The slots: those of the optimizer, then one for the running average and one for the sum of the
  // gradients since the last update, where the rule has them (else -1).
  int slots() const;
  int average_slot() const;
  int gradient_sum_slot() const;
  const char* slot_name(int slot) const;
  // Copies out of and into this memory.
  void get(const float* device_data, float* out, std::int64_t count) const;
  void set(float* device_data, const float* values, std::int64_t count);

  void allocate_gradients();
  // Chooses how to update, and zeroes all slots and the count of batches.
  void set_update(const UpdateRule& rule);
  bool has_update() const { return has_update_; }
  const UpdateRule& update() const { return rule_; }

  std::int64_t batches = 0;  // how many have been trained on
  // How many updates have been applied; adam's t - 1.
  std::int64_t updates() const { return batches / rule_.accumulation_steps; }

  // Grows with every change of memory or optimizer: a plan that has seen another version binds
  // again.
  int version() const { return version_; }

  // Grows with every change of values in this memory: what was made of the parameters is out of
  // date when it has another number.
  std::int64_t changes() const { return changes_; }
  void note_change() { ++changes_; }

 private:
  void place(int id);

  Device& device_;
  std::vector<Shape> shapes_;
  std::vector<std::int64_t> offsets_;
  std::int64_t trainable_ = 0, total_ = 0;
  std::vector<UpdateGroup> groups_;
  bool has_update_ = false;
  UpdateRule rule_;
  DeviceMemory parameters_, gradients_, slots_;
  int version_ = 0;
  std::int64_t changes_ = 0;
};

}  // namespace convlet
