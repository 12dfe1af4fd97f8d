#include "plan/state.h"

#include <algorithm>
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

std::int64_t aligned(std::int64_t elements) {
  return (elements + kAlignment - 1) / kAlignment * kAlignment;
}

// The trainable parameters by what their update depends on, in the order in which they are met.
std::vector<UpdateGroup> grouped(const std::vector<Parameter>& parameters) {
  std::vector<UpdateGroup> groups;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    if (!p.trainable) continue;
    auto group = std::find_if(groups.begin(), groups.end(), [&](const UpdateGroup& g) {
      return g.rate_scale == p.rate_scale && g.weight_decay == p.weight_decay;
    });
    if (group == groups.end()) group = groups.insert(group, {p.rate_scale, p.weight_decay, {}, 0});
    group->parameters.push_back(static_cast<int>(i));
    group->elements += aligned(p.shape.elements());
  }
  return groups;
}

void check_rule(const UpdateRule& rule) {
  check_optimizer(rule.optimizer);
  const float value = rule.optimizer.clip_value;
  for (float clip : {rule.clip_norm, rule.global_clip_norm})
    if (!(clip >= 0) || std::isinf(clip))
      value_error("optimizer: expected a clip norm of at least 0 (0 for none), got ", clip);
  if ((rule.clip_norm > 0) + (rule.global_clip_norm > 0) + (value > 0) > 1)
    value_error("optimizer: expected at most one of clip_norm, global_clip_norm and clip_value,",
                " got ", rule.clip_norm, ", ", rule.global_clip_norm, " and ", value);
  if (rule.accumulation_steps < 1)
    value_error("optimizer: expected accumulation_steps >= 1, got ", rule.accumulation_steps);
  if (!(rule.average_momentum >= 0 && rule.average_momentum <= 1))
    value_error("optimizer: expected average_momentum in [0,1], got ", rule.average_momentum);
}

}  // namespace

State::State(Device& device, const Graph& graph) : device_(device) {
  const auto& parameters = graph.parameters();
  for (const Parameter& parameter : parameters) shapes_.push_back(parameter.shape);
  offsets_.resize(parameters.size());
  groups_ = grouped(parameters);
  for (const UpdateGroup& group : groups_)
    for (int id : group.parameters) place(id);
  trainable_ = total_;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (!parameters[i].trainable) place(static_cast<int>(i));
  parameters_ = zeros(device, total_);
}

void State::place(int id) {
  offsets_[id] = total_;
  total_ += aligned(shapes_[id].elements());
  checked_multiply(total_, sizeof(float), "state");
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

int State::slots() const {
  return has_update_
             ? optimizer_slots(rule_.optimizer) + rule_.average + (rule_.accumulation_steps > 1)
             : 0;
}

int State::average_slot() const {
  return has_update_ && rule_.average ? optimizer_slots(rule_.optimizer) : -1;
}

int State::gradient_sum_slot() const {
  return has_update_ && rule_.accumulation_steps > 1 ? slots() - 1 : -1;
}

const char* State::slot_name(int slot) const {
  if (slot == average_slot()) return "average";
  if (slot == gradient_sum_slot()) return "gradient_sum";
  return optimizer_slot_name(rule_.optimizer, slot);
}

void State::get(const float* device_data, float* out, std::int64_t count) const {
  device_.read(device_data, out, static_cast<std::size_t>(count) * sizeof(float));
}

void State::set(float* device_data, const float* values, std::int64_t count) {
  note_change();
  device_.write(device_data, values, static_cast<std::size_t>(count) * sizeof(float));
}

void State::allocate_gradients() {
  if (gradients_.data() || trainable_ == 0) return;
  gradients_ = zeros(device_, trainable_);
  ++version_;
}

void State::set_update(const UpdateRule& rule) {
  check_rule(rule);
  allocate_gradients();
  rule_ = rule;
  has_update_ = true;
  slots_ = zeros(device_, checked_multiply(trainable_, slots(), "optimizer state"));
  batches = 0;
  ++version_;
}

}  // namespace convlet
