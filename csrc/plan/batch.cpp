#include "plan/batch.h"

#include <cstring>
#include <vector>

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
void check_labels_as(std::size_t index, const BatchTarget& target, const Batch& batch) {
  const Integer* data = batch.targets[index].as<Integer>();
  for (std::int64_t i = 0; i < batch.n; ++i) {
    std::int64_t row = batch.indices ? batch.indices[i] : i;
    for (std::int64_t j = 0; j < target.rows; ++j) {
      std::int64_t label = static_cast<std::int64_t>(data[row * target.rows + j]);
      if (label < 0 || label >= target.classes) wrong_label(index, target, row, label);
    }
  }
}

// The rows of one array of a batch, and where they are in what is sent.
struct Piece {
  const char* data;
  std::size_t row, offset;
};

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

void wrong_label(std::size_t index, const BatchTarget& target, std::int64_t row,
                 std::int64_t label) {
  value_error("targets[", index, "] of output '", target.output, "': the label of row ", row,
              " is ", label, ", expected an integer in [0,", target.classes, ")");
}

void check_labels(std::size_t index, const BatchTarget& target, const Batch& batch) {
  switch (batch.targets[index].dtype) {
    case DType::uint8:
      return check_labels_as<std::uint8_t>(index, target, batch);
    case DType::int32:
      return check_labels_as<std::int32_t>(index, target, batch);
    case DType::int64:
      return check_labels_as<std::int64_t>(index, target, batch);
    default:
      break;  // refused by check_batch
  }
}

Batch sent(const Batch& batch, Upload& upload) {
  constexpr std::size_t kAlignment = 256;
  const std::size_t n = static_cast<std::size_t>(batch.n);
  std::vector<Piece> pieces;
  std::size_t bytes = 0;
  auto add = [&](const void* data, std::size_t row) {
    pieces.push_back({static_cast<const char*>(data), row, bytes});
    bytes += (row * n + kAlignment - 1) / kAlignment * kAlignment;
  };
  for (const auto* tensors : {&batch.inputs, &batch.targets})
    for (const Tensor& x : *tensors)
      add(x.data, static_cast<std::size_t>(x.shape.without_front().elements()) * size_of(x.dtype));
  for (const float* weights : batch.weights) add(weights, weights ? sizeof(float) : 0);

  char* host = upload.fill(bytes);
  for (const Piece& piece : pieces) {
    char* to = host + piece.offset;
    if (!batch.indices && piece.row) std::memcpy(to, piece.data, piece.row * n);
    for (std::size_t i = 0; batch.indices && piece.row && i < n; ++i)
      std::memcpy(to + i * piece.row,
                  piece.data + static_cast<std::size_t>(batch.indices[i]) * piece.row, piece.row);
  }
  const char* memory = upload.send();

  Batch there = batch;
  there.indices = nullptr;
  auto piece = pieces.begin();
  for (auto* tensors : {&there.inputs, &there.targets})
    for (Tensor& x : *tensors) x.data = const_cast<char*>(memory) + (piece++)->offset;
  for (const float*& weights : there.weights) {
    if (weights) weights = reinterpret_cast<const float*>(memory + piece->offset);
    ++piece;
  }
  return there;
}

}  // namespace convlet
