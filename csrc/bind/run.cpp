#include "bind/run.h"

namespace convlet::bind {

namespace {

constexpr std::size_t kKept = std::size_t{64} << 20;

thread_local DeviceMemory memory;

}  // namespace

Workspace::Workspace(Device& device, std::size_t bytes) {
  if (memory.bytes() >= bytes) return;
  memory = DeviceMemory();  // the old block goes before the new one comes
  memory = DeviceMemory(device, bytes);
}

Workspace::~Workspace() {
  if (memory.bytes() > kKept) memory = DeviceMemory();
}

void* Workspace::data() const {
  return memory.data();
}

}  // namespace convlet::bind
