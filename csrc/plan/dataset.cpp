#include "plan/dataset.h"

#include <atomic>

#include "plan/batch.h"

namespace convlet {
namespace {

int next_version() {
  static std::atomic<int> last{0};
  return ++last;
}

}  // namespace

Dataset::Dataset(Device& device, const Batch& samples)
    : device_(device),
      samples_(samples),
      weights_(samples.targets.size()),
      order_(device, static_cast<std::size_t>(samples.n) * sizeof(std::int64_t)),
      version_(next_version()) {
  for (const Tensor& target : samples.targets) {
    switch (target.dtype) {
      case DType::uint8:
        labels_.push_back(range_of<std::uint8_t>(target));
        break;
      case DType::int32:
        labels_.push_back(range_of<std::int32_t>(target));
        break;
      case DType::int64:
        labels_.push_back(range_of<std::int64_t>(target));
        break;
      default:
        labels_.push_back({});
    }
  }
  samples_.indices = nullptr;
  samples_.weights.assign(samples.targets.size(), nullptr);
  for (auto* tensors : {&samples_.inputs, &samples_.targets})
    for (Tensor& x : *tensors) copy(x);
}

void Dataset::copy(Tensor& x) {
  const std::size_t bytes = static_cast<std::size_t>(x.shape.elements()) * size_of(x.dtype);
  memory_.emplace_back(device_, bytes);
  device_.write(memory_.back().data(), x.data, bytes);
  x.data = memory_.back().data();
}

template <class T>
Dataset::Labels Dataset::range_of(const Tensor& labels) {
  const std::int64_t count = labels.shape.elements();
  if (count == 0) return {};
  const T* data = labels.as<T>();
  std::int64_t lowest = 0, highest = 0;
  for (std::int64_t i = 1; i < count; ++i) {
    if (data[i] < data[lowest]) lowest = i;
    if (data[i] > data[highest]) highest = i;
  }
  const std::int64_t row = labels.shape.without_front().elements();
  return {{static_cast<std::int64_t>(data[lowest]), lowest / row},
          {static_cast<std::int64_t>(data[highest]), highest / row}};
}

void Dataset::check_labels(std::size_t index, const BatchTarget& target) const {
  for (const Label& label : {labels_[index].lowest, labels_[index].highest})
    if (label.value < 0 || label.value >= target.classes)
      wrong_label(index, target, label.row, label.value);
}

void Dataset::set_order(const std::int64_t* rows, std::int64_t count) {
  if (count > samples_.n)
    value_error("dataset: expected an order of at most ", samples_.n, " rows, got ", count);
  for (std::int64_t i = 0; i < count; ++i)
    if (rows[i] < 0 || rows[i] >= samples_.n)
      value_error("dataset: order[", i, "] is ", rows[i], ", expected a row of [0,", samples_.n,
                  ")");
  device_.write(order_.data(), rows, static_cast<std::size_t>(count) * sizeof(std::int64_t));
  ordered_ = count;
}

void Dataset::set_weights(std::size_t loss, const float* weights) {
  DeviceMemory& memory = weights_[loss];
  const std::size_t bytes = static_cast<std::size_t>(samples_.n) * sizeof(float);
  if (weights && !memory.data()) memory = DeviceMemory(device_, bytes);
  if (weights) device_.write(memory.data(), weights, bytes);
  const float* now = weights ? reinterpret_cast<const float*>(memory.data()) : nullptr;
  if (now != samples_.weights[loss]) version_ = next_version();
  samples_.weights[loss] = now;
}

}  // namespace convlet
