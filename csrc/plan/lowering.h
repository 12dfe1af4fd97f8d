// The table of ops: how each is checked, run and differentiated inside a plan. An op is one file in
// lowering/ and one row of the table in lowering/table.cpp.
#pragma once
#include <string>
#include <vector>

#include "plan/builder.h"
#include "plan/graph.h"

namespace convlet {

constexpr int kAnyNumber = 1 << 30;

struct Lowering {
  const char* op;
  // The least and most inputs and parameters that a node may have.
  int min_inputs, max_inputs;
  int min_parameters, max_parameters;
  std::vector<const char*> attributes;  // that a node may have
  bool fuses_activation;                // takes the attribute "activation"; its kernel can apply it

  // The shape of a sample of the output; Error that begins with the node's name when node does not
  // fit.
  Shape (*infer)(const Graph&, const Node&);
  // Adds the steps that compute the node's output, or makes it a view of an input.
  void (*forward)(Builder&, const Node&);
  // Adds the steps that turn the gradient of the output into those of inputs and parameters that
  // need one.
  void (*backward)(Builder&, const Node&);
};

// ValueError that begins with `name` and lists the ops that there are.
const Lowering& lowering_of(const std::string& name, const std::string& op);

// ValueError unless the node has as many inputs and parameters as the op takes, and no other
// attributes.
void check_signature(const Lowering& lowering, const Node& node);

// ValueError unless a sample of input 0 has `rank` axes, written in the message as `axes`.
void check_rank(const Graph& graph, const Node& node, int rank, const char* axes);

// Adds a step of one input, with `elements` per sample, whose output may take its memory:
// run(context, kernels, elements of the batch, x, y).
template <class RunElements>
void add_elementwise(Builder& builder, const char* kernel, const std::string& layer,
                     std::int64_t elements, BufferId x, BufferId y, RunElements run) {
  Step& step = builder.step(kernel, layer);
  step.reads = {x};
  step.writes = {y};
  step.reuses = {{y, x}};
  step.bind = [=](const Binding& at) -> Run {
    return [=, &kernels = at.kernels, count = at.n * elements, x_data = at[x],
            y_data = at[y]](Context& context) { run(context, kernels, count, x_data, y_data); };
  };
}

// Memory for the targets and sample weights of all losses, which the batch fills.
void make_targets(Builder& builder, const std::vector<ResolvedLoss>& losses);
// The steps that belong to no node (lowering/loss.cpp, lowering/update.cpp). lower_losses also
// starts the gradients of the values that the losses read.
void lower_losses(Builder& builder, const std::vector<ResolvedLoss>& losses, const Fusion& fusion);
void lower_metrics(Builder& builder, const std::vector<ResolvedLoss>& losses,
                   const std::vector<MetricSpec>& metrics);
void lower_penalties(Builder& builder);
// What the step answers, and whether it may change anything.
void lower_results(Builder& builder, const std::vector<ResolvedLoss>& losses);
// After the backward of every node: gradients that no loss reaches, what is added up over the
// batches of one update, and what nodes keep of every batch.
void lower_gradients(Builder& builder, State& state);
// The update: regularizers' gradients, clipping, the optimizer and the running average.
void lower_update(Builder& builder, State& state);

}  // namespace convlet
