#include "plan/batch.h"

namespace convlet {
namespace {

template <class Items>
void check_number(const char* what, const Items& items, std::size_t expected) {
  if (items.size() != expected)
    value_error("plan: expected ", expected, " ", what, ", got ", items.size());
}

std::int64_t rows_of(const Tensor& data) {
  return data.shape.rank() ? data.shape[0] : 0;
}

// name() as in "input 'image'"; made for errors only.
template <class Name>
void check_data(const Name& name, const Tensor& data, const Shape& sample, std::int64_t rows) {
  if (data.shape.rank() == 0 || data.shape.without_front() != sample)
    value_error(name(), ": expected samples of shape ", sample, ", got an array of shape ",
                data.shape);
  if (rows_of(data) != rows)
    value_error(name(), ": expected ", rows, " rows as in the first input, got ", rows_of(data));
}

void check_target(std::size_t index, const BatchTarget& target, const Tensor& data,
                  std::int64_t rows) {
  auto name = [&] { return concat("targets[", index, "] of output '", target.output, "'"); };
  if (!target.integer_labels) {
    check_data(name, data, target.shape, rows);
    return;
  }
  if (data.dtype == DType::float32 || data.dtype == DType::float64)
    type_error(name(), ": expected integer labels (uint8, int32 or int64), got ",
               name_of(data.dtype));
  Shape column = target.shape;
  if (column.rank() < Shape::kMaxRank) column.push_back(1);
  bool is_column = data.shape.rank() > 0 && data.shape.without_front() == column;
  check_data(name, data, is_column ? column : target.shape, rows);
}

void check_indices(const Batch& batch, std::int64_t rows) {
  if (!batch.indices) {
    if (rows < batch.n) value_error("plan: expected at least ", batch.n, " rows, got ", rows);
    return;
  }
  for (std::int64_t i = 0; i < batch.n; ++i)
    if (batch.indices[i] < 0 || batch.indices[i] >= rows)
      value_error("plan: indices[", i, "] is ", batch.indices[i], ", expected a row of [0,", rows,
                  ")");
}

template <class Integer>
void read_labels_as(std::size_t index, const BatchTarget& target, const Batch& batch,
                    std::vector<std::int32_t>& labels) {
  const Integer* data = batch.targets[index].as<Integer>();
  std::int32_t* out = labels.data();
  for (std::int64_t i = 0; i < batch.n; ++i) {
    std::int64_t row = batch.indices ? batch.indices[i] : i;
    for (std::int64_t j = 0; j < target.rows; ++j) {
      std::int64_t label = static_cast<std::int64_t>(data[row * target.rows + j]);
      if (label < 0 || label >= target.classes)
        value_error("targets[", index, "] of output '", target.output, "': the label of row ", row,
                    " is ", label, ", expected an integer in [0,", target.classes, ")");
      *out++ = static_cast<std::int32_t>(label);
    }
  }
}

}  // namespace

void check_batch(const Graph& graph, const Program& program, std::int64_t largest,
                 const Batch& batch) {
  check_number("inputs", batch.inputs, graph.inputs().size());
  check_number("targets", batch.targets, program.targets.size());
  if (!batch.weights.empty()) check_number("sample weights", batch.weights, program.targets.size());
  if (batch.n < 0 || batch.n > largest)
    value_error("plan: expected a batch of at most ", largest, " rows, got ", batch.n);
  if (batch.n == 0 && !program.targets.empty())
    value_error("plan: a loss needs at least one row, got an empty batch");
  // A graph without inputs has no rows to compare with.
  std::int64_t rows = batch.inputs.empty() ? batch.n : rows_of(batch.inputs[0]);
  for (std::size_t i = 0; i < batch.inputs.size(); ++i) {
    const Value& value = graph.values()[graph.inputs()[i]];
    check_data([&] { return concat("input '", value.name, "'"); }, batch.inputs[i], value.shape,
               rows);
  }
  for (std::size_t i = 0; i < batch.targets.size(); ++i)
    check_target(i, program.targets[i], batch.targets[i], rows);
  check_indices(batch, rows);
}

void read_labels(std::size_t index, const BatchTarget& target, const Batch& batch,
                 std::vector<std::int32_t>& labels) {
  switch (batch.targets[index].dtype) {
    case DType::uint8:
      return read_labels_as<std::uint8_t>(index, target, batch, labels);
    case DType::int32:
      return read_labels_as<std::int32_t>(index, target, batch, labels);
    case DType::int64:
      return read_labels_as<std::int64_t>(index, target, batch, labels);
    default:
      break;  // refused by check_batch
  }
}

void read_scale(std::size_t index, const BatchTarget& target, const Batch& batch,
                std::vector<float>& scale) {
  const float* weights = batch.weights.empty() ? nullptr : batch.weights[index];
  const double share = 1.0 / (static_cast<double>(batch.n) * static_cast<double>(target.rows));
  float* out = scale.data();
  for (std::int64_t i = 0; i < batch.n; ++i) {
    std::int64_t row = batch.indices ? batch.indices[i] : i;
    float value = static_cast<float>(weights ? weights[row] * share : share);
    for (std::int64_t j = 0; j < target.rows; ++j) *out++ = value;
  }
}

}  // namespace convlet
