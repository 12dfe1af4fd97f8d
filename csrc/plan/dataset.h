// Dataset: samples in a device's memory, and the order in which steps take them. A step needs no
// more of the host than where in that order its batch begins.
#pragma once
#include <vector>

#include "plan/plan.h"
#include "plan/program.h"

namespace convlet {

class Dataset {
 public:
  // Copies the n samples, in their own dtypes, without weights. Error when memory lacks.
  Dataset(Device& device, const Batch& samples);

  // The rows of an epoch, one batch after the other: at most n. ValueError for one outside [0, n).
  void set_order(const std::int64_t* rows, std::int64_t count);
  // The weights (n) of the samples in a loss; null: 1.
  void set_weights(std::size_t loss, const float* weights);

  Device& device() const { return device_; }
  const Batch& samples() const { return samples_; }  // in the device's memory
  const std::int64_t* order() const { return reinterpret_cast<const std::int64_t*>(order_.data()); }
  std::int64_t ordered() const { return ordered_; }
  // Another number whenever an address becomes another, unique in the process.
  int version() const { return version_; }

  // ValueError that gives the row and the value of a label outside [0, classes).
  void check_labels(std::size_t index, const BatchTarget& target) const;

 private:
  struct Label {
    std::int64_t value, row;
  };
  struct Labels {
    Label lowest, highest;
  };

  template <class T>
  static Labels range_of(const Tensor& labels);
  void copy(Tensor& x);

  Device& device_;
  Batch samples_;
  std::vector<DeviceMemory> memory_, weights_;
  std::vector<Labels> labels_;  // by target; 0 where it is not of integers
  DeviceMemory order_;
  std::int64_t ordered_ = 0;
  int version_;
};

}  // namespace convlet
