#include "bind/run.h"

#include <atomic>
#include <optional>
#include <vector>

namespace convlet::bind {

namespace {

constexpr std::size_t kKept = std::size_t{64} << 20;

thread_local DeviceMemory kept;

thread_local Device* chosen = nullptr;
thread_local std::optional<std::uintptr_t> chosen_stream;

struct CopyBack {
  std::weak_ptr<void> memory;
  void* host;
  std::size_t bytes;
};
thread_local std::vector<CopyBack> pending;

std::atomic<Precision> precision_of_ops{Precision::float32};

}  // namespace

Device& op_device() {
  return chosen ? *chosen : cpu_device();
}

Context& op_context() {
  return chosen_stream ? op_device().context_of_stream(*chosen_stream) : op_device().context();
}

void set_op_device(Device& device, std::optional<std::uintptr_t> stream) {
  chosen = &device;
  chosen_stream = stream;
}

std::shared_ptr<void> visible_memory(std::size_t bytes) {
  Device& device = op_device();
  if (&device == &cpu_device()) return nullptr;
  return {device.allocate_visible(bytes),
          [&device, bytes](void* memory) { device.release(memory, bytes); }};
}

std::shared_ptr<void> staged(const void* host, std::size_t bytes) {
  if (op_device().sees(host)) return nullptr;
  std::shared_ptr<void> memory = visible_memory(bytes);
  if (memory) op_device().write(memory.get(), host, bytes);
  return memory;
}

void copy_back(const std::shared_ptr<void>& memory, void* host, std::size_t bytes) {
  pending.push_back({memory, host, bytes});
}

void finish_copies() {
  for (const CopyBack& copy : pending)
    if (std::shared_ptr<void> memory = copy.memory.lock())
      std::memcpy(copy.host, memory.get(), copy.bytes);
  pending.clear();
}

Precision op_precision() {
  return precision_of_ops;
}

void set_op_precision(Precision precision) {
  precision_of_ops = precision;
}

Workspace::Workspace(Device& device, std::size_t bytes) {
  if (&device != &cpu_device()) {
    visible_ = {device.allocate_visible(bytes),
                [&device, bytes](void* memory) { device.release(memory, bytes); }};
    return;
  }
  if (kept.bytes() >= bytes) return;
  kept = DeviceMemory();  // the old block goes before the new one comes
  kept = DeviceMemory(device, bytes);
}

Workspace::~Workspace() {
  if (kept.bytes() > kKept) kept = DeviceMemory();
}

void* Workspace::data() const {
  return visible_ ? visible_.get() : kept.data();
}

}  // namespace convlet::bind
