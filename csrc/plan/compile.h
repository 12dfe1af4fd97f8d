// From a graph to a program: losses resolved, fusions chosen, every op lowered.
#pragma once
#include "plan/graph.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace convlet {

// The program keeps references to the graph and the state. bytes, by graph input: whether batches
// bring bytes for it.
Program compile(const Graph& graph, State& state, const PlanOptions& options,
                const std::vector<bool>& bytes);

}  // namespace convlet
