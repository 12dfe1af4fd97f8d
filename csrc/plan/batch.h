// The host side of a batch: its checks, and the labels and weights as the kernels want them.
#pragma once
#include <vector>

#include "plan/graph.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace convlet {

// Every check of a batch that looks at shapes, dtypes and indices, not at values.
void check_batch(const Graph& graph, const Program& program, std::int64_t largest,
                 const Batch& batch);

// The n * rows labels of a target as int32. ValueError that gives the row and the value of the
// first one outside [0, classes).
void read_labels(std::size_t index, const BatchTarget& target, const Batch& batch,
                 std::vector<std::int32_t>& labels);

// The weight of each row of a target's loss kernel divided by n * rows.
void read_scale(std::size_t index, const BatchTarget& target, const Batch& batch,
                std::vector<float>& scale);

}  // namespace convlet
