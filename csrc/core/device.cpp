#include "core/device.h"

#include <cstring>
#include <list>
#include <vector>

#include "core/error.h"

namespace convlet {
namespace {

class HostReadback final : public Readback {
 public:
  void send(const void* memory, std::size_t bytes) override {
    if (free_.empty()) free_.emplace_back();
    free_.front().resize(bytes);
    if (bytes) std::memcpy(free_.front().data(), memory, bytes);
    sent_.splice(sent_.end(), free_, free_.begin());
  }
  void take(void* host) override {
    const std::vector<char>& oldest = sent_.front();
    if (!oldest.empty()) std::memcpy(host, oldest.data(), oldest.size());
    free_.splice(free_.begin(), sent_, sent_.begin());
  }

 private:
  std::list<std::vector<char>> free_, sent_;
};

}  // namespace

std::unique_ptr<Readback> Device::readback() {
  return std::make_unique<HostReadback>();
}

const char* name_of(Precision precision) {
  constexpr const char* names[] = {"float32", "tf32", "bfloat16"};
  return names[static_cast<int>(precision)];
}

Precision precision_named(const char* what, const std::string& name) {
  for (Precision precision : {Precision::float32, Precision::tf32, Precision::bfloat16})
    if (name == name_of(precision)) return precision;
  value_error(what, ": expected precision \"float32\", \"tf32\" or \"bfloat16\", got \"", name,
              '"');
}

}  // namespace convlet
