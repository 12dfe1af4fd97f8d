// The host side of a batch: its checks, and its way to a device.
#pragma once
#include "plan/graph.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace convlet {

// Every check of a batch that looks at shapes, dtypes and indices, not at values.
void check_batch(const Graph& graph, const Program& program, std::int64_t largest,
                 const Batch& batch);

[[noreturn]] void wrong_label(std::size_t index, const BatchTarget& target, std::int64_t row,
                              std::int64_t label);

// ValueError that gives the row and the value of the first label of a batch, of a target with
// integer labels, that is outside [0, classes).
void check_labels(std::size_t index, const BatchTarget& target, const Batch& batch);

// Sends the batch's rows, in their own dtypes. Returns them in the device's memory, without
// indices.
Batch sent(const Batch& batch, Upload& upload);

}  // namespace convlet
