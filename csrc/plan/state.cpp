#include "plan/state.h"

#include <cmath>

namespace convlet {
namespace {

constexpr std::int64_t kAlignment = 64 / sizeof(float);

DeviceMemory zeros(Device& device, std::int64_t floats) {
  std::size_t bytes = static_cast<std::size_t>(checked_multiply(floats, sizeof(float), "state"));
  DeviceMemory memory(device, bytes);
  if (bytes) device.clear(memory.data(), bytes);
  return memory;
}

float* floats(const DeviceMemory& memory) {
  return reinterpret_cast<float*>(memory.data());
}

}  // namespace

State::State(Device& device, const Graph& graph) : device_(device) {
  const auto& parameters = graph.parameters();
  offsets_.resize(parameters.size());
  for (bool trainable : {true, false}) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      if (parameters[i].trainable != trainable) continue;
      offsets_[i] = total_;
      total_ += (parameters[i].shape.elements() + kAlignment - 1) / kAlignment * kAlignment;
      checked_multiply(total_, sizeof(float), "state");
    }
    if (trainable) trainable_ = total_;
  }
  for (const Parameter& parameter : parameters) shapes_.push_back(parameter.shape);
  parameters_ = zeros(device, total_);
}

void State::check_fits(const Graph& graph) const {
  const auto& parameters = graph.parameters();
  if (parameters.size() != shapes_.size())
    value_error("plan: the graph has ", parameters.size(), " parameters, its state was made for ",
                shapes_.size());
  for (std::size_t i = 0; i < shapes_.size(); ++i) {
    if (parameters[i].shape != shapes_[i])
      value_error("plan: parameter '", parameters[i].name, "' has shape ", parameters[i].shape,
                  ", the state was made for ", shapes_[i]);
    if (parameters[i].trainable != (offsets_[i] < trainable_))
      value_error("plan: parameter '", parameters[i].name, "' is ",
                  parameters[i].trainable ? "trainable" : "frozen",
                  " in the graph but not in its state");
  }
}

float* State::parameter(int id) const {
  return floats(parameters_) + offsets_[id];
}

float* State::gradient(int id) const {
  return gradients_.data() && offsets_[id] < trainable_ ? floats(gradients_) + offsets_[id]
                                                        : nullptr;
}

float* State::slot(int slot, int id) const {
  if (slot < 0 || slot >= slots() || offsets_[id] >= trainable_) return nullptr;
  return floats(slots_) + slot * trainable_ + offsets_[id];
}

void State::get(const float* device_data, float* out, std::int64_t count) const {
  device_.read(device_data, out, static_cast<std::size_t>(count) * sizeof(float));
}

void State::set(float* device_data, const float* values, std::int64_t count) const {
  device_.write(device_data, values, static_cast<std::size_t>(count) * sizeof(float));
}

void State::allocate_gradients() {
  if (gradients_.data() || trainable_ == 0) return;
  gradients_ = zeros(device_, trainable_);
  ++version_;
}

void State::set_optimizer(const OptimizerSpec& spec, float clip_norm, float global_clip_norm) {
  check_optimizer(spec);
  for (float clip : {clip_norm, global_clip_norm})
    if (!(clip >= 0) || std::isinf(clip))
      value_error("optimizer: expected a clip norm of at least 0 (0 for none), got ", clip);
  if (clip_norm > 0 && global_clip_norm > 0)
    value_error("optimizer: expected at most one of clip_norm and global_clip_norm, got ",
                clip_norm, " and ", global_clip_norm);
  allocate_gradients();
  slots_ = zeros(device_, checked_multiply(trainable_, optimizer_slots(spec), "optimizer state"));
  spec_ = spec;
  clip_norm_ = clip_norm;
  global_clip_norm_ = global_clip_norm;
  has_optimizer_ = true;
  updates = 0;
  ++version_;
}

}  // namespace convlet
