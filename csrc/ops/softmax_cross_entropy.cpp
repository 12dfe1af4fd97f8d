#include "ops/softmax_cross_entropy.h"

#include <cmath>
#include <limits>

namespace convlet {
namespace {

template <class Label>
void copy_labels(const char* op, const Tensor& labels, std::int64_t classes,
                 const std::int64_t* ignore_index, std::int32_t* out) {
  const Label* label = labels.as<const Label>();
  const std::int64_t count = labels.shape.elements();
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t value = label[i];
    if (ignore_index && value == *ignore_index)
      out[i] = -1;
    else if (value >= 0 && value < classes)
      out[i] = static_cast<std::int32_t>(value);
    else
      value_error(op, ": expected labels in [0,", classes, ") for ", classes,
                  " classes, got labels[", i, "]=", value);
  }
}

}  // namespace

void check_focal_gamma(const char* op, float gamma) {
  if (!(gamma >= 0 && std::isfinite(gamma)))
    value_error(op, ": expected focal_gamma >= 0, got ", gamma);
}

SoftmaxCrossEntropyShape check_softmax_cross_entropy(const char* op, const Shape& logits,
                                                     const Tensor& labels, float label_smoothing,
                                                     const std::int64_t* ignore_index) {
  if (logits.rank() != 2 || logits[0] < 0 || logits[1] < 1)
    value_error(op, ": expected logits (N,C) with N >= 0 and C >= 1, got logits of shape ", logits);
  if (logits[1] > std::numeric_limits<std::int32_t>::max())
    value_error(op, ": expected logits (N,C) with C below 2^31, got logits of shape ", logits);
  const bool integers = labels.shape.rank() == 1;
  if (labels.shape != (integers ? Shape{logits[0]} : logits))
    value_error(op, ": expected labels of shape (", logits[0], ",) for integers or ", logits,
                " for probabilities to match logits (N,C)=", logits, ", got labels of shape ",
                labels.shape);
  const DType dtype = labels.dtype;
  if (integers && (dtype == DType::float32 || dtype == DType::float64))
    type_error(op, ": expected labels (N,) of dtype uint8, int32 or int64, got ", name_of(dtype));
  if (!integers && dtype != DType::float32)
    type_error(op, ": expected labels (N,C) of dtype float32, got ", name_of(dtype));
  if (!(label_smoothing >= 0.0f && label_smoothing <= 1.0f))
    value_error(op, ": expected label_smoothing in [0,1], got ", label_smoothing);
  return {logits[0],
          logits[1],
          integers,
          label_smoothing,
          ignore_index != nullptr,
          ignore_index ? *ignore_index : 0};
}

void check_labels(const char* op, const Tensor& labels, std::int64_t classes,
                  const std::int64_t* ignore_index, std::int32_t* out) {
  switch (labels.dtype) {
    case DType::uint8:
      return copy_labels<std::uint8_t>(op, labels, classes, ignore_index, out);
    case DType::int32:
      return copy_labels<std::int32_t>(op, labels, classes, ignore_index, out);
    case DType::int64:
      return copy_labels<std::int64_t>(op, labels, classes, ignore_index, out);
    case DType::float32:
    case DType::float64:
      type_error(op, ": expected labels of dtype uint8, int32 or int64, got ",
                 name_of(labels.dtype));
  }
}

}  // namespace convlet
