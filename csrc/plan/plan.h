// Plan: a graph compiled for a largest batch on one device. See plan/README.md for the stages.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/device.h"
#include "ops/kernels.h"
#include "plan/graph.h"
#include "plan/state.h"

namespace convlet {

enum class Mode { predict, test, train };

struct LossSpec {
  // "softmax_cross_entropy" | "sigmoid_cross_entropy" | "binary_cross_entropy" |
  // "mean_squared_error" | "value"
  std::string kind;
  int output = 0;               // index into Graph::outputs
  bool integer_labels = false;  // softmax_cross_entropy only
  // When false the output is a probability. For softmax_cross_entropy it must then be made by a
  // softmax, for binary_cross_entropy it may be made by a sigmoid; the loss is computed on the
  // logits under it.
  bool from_logits = false;
  float label_smoothing = 0.0f;
  float weight = 1.0f;
  // Cross-entropies in their focal form: its gamma (0: not focal), and the factors of the terms of
  // right and wrong answers; of softmax_cross_entropy only the first.
  float focal_gamma = 0.0f, positive_weight = 1.0f, negative_weight = 1.0f;
  bool skip_missing = false;  // a float target that is NaN counts for nothing; not for softmax
  // "value" only: the value of the graph that is the loss, of any shape: its mean over the elements
  // of a sample is the sample's loss; and the target (Graph::add_target) that the batch fills.
  int value = -1, target = -1;
};

struct MetricSpec {
  AccuracyKind kind;
  int output = 0;
};

struct PlanOptions {
  Mode mode = Mode::predict;
  std::int64_t batch = 1;  // the largest N that run() may be given
  std::vector<LossSpec> losses;
  std::vector<MetricSpec> metrics;
  bool fuse = true;
  // Whether to use Winograd's convolution (Kernels::conv2d_winograd), in training also for the
  // gradient of the input.
  bool winograd = false;
  std::uint64_t seed = 0;                    // of dropout
  Precision precision = Precision::float32;  // of the kernels, see core/device.h
};

// One batch. Data may be larger than the batch: `indices` (null: 0..n-1) picks its rows.
struct Batch {
  std::int64_t n = 0;
  const std::int64_t* indices = nullptr;
  std::vector<Tensor> inputs;         // one per graph input: (M, sample...) of any DType
  std::vector<Tensor> targets;        // one per loss: (M,) or (M,1) integers, or (M, sample...)
  std::vector<const float*> weights;  // none, or one per loss: (M,) or null
};

class Dataset;  // plan/dataset.h

struct PlanMemory {
  std::int64_t parameters, gradients, optimizer;  // bytes of the state that this mode uses
  std::int64_t activations, workspace;  // bytes of the arena: without workspace, added by it
  std::int64_t live_set;  // the most bytes of activations alive at one step: their lower bound
};

struct StepInfo {
  std::string name;    // "prepare", "forward", "loss", "metric", "backward", "update"
  std::string kernel;  // "conv2d_backward_input"
  std::string layer;
  double seconds;  // the least that one run of it has taken since time_steps(); 0 without
};

// One piece of the arena and the steps between which it is in use (-1: before the first).
struct BlockInfo {
  std::int64_t offset, bytes;
  int first, last;
};

// The state must outlive the plan; the graph is copied.
class Plan {
 public:
  // Error when the graph, the state and the options do not fit together, or the state's device
  // lacks the precision.
  Plan(const Graph& graph, State& state, const PlanOptions& options);
  ~Plan();

  // Forward (all modes), losses and metrics (test, train), backward and, when it is due, update
  // (train) of one batch. A GPU may still be at it when this returns, but the batch's memory is
  // free. ValueError when the batch does not fit, before any kernel runs. Returns a number for
  // finish().
  std::int64_t start(const Batch& batch, double learning_rate);
  // The same of the n samples that begin at place `first` of the data set's order.
  std::int64_t start(const Dataset& data, std::int64_t first, std::int64_t n, double learning_rate);
  // Once for every step of a train or test plan: the total loss (with regularizers), the losses,
  // the metrics, means over the batch. When the total of a train step is not finite, neither
  // parameters nor optimizer state nor State::batches have changed. Those that were started after
  // it are void: their results are empty.
  std::vector<double> finish(std::int64_t step);
  // start() and finish() of one step; empty for predict.
  std::vector<double> run(const Batch& batch, double learning_rate);
  // The rows of the batch in memory, which output() copies: the one that was started last or, after
  // a step whose total was not finite, that step's; 0 before the first.
  std::int64_t rows() const;
  // Copies graph output i of that batch to `out` (rows() * elements floats).
  void output(int i, float* out) const;
  // Sends all outputs of that batch, to be taken while later ones run.
  void send_outputs(Readback& to) const;
  // Finishes all, runs the forward of the last batch that is not void again, and names the first
  // thing in it that is not finite: "input 'image'", "parameter 'conv2d/kernel'", "layer 'conv2d'",
  // "targets of output 'dense'", "sample weights of output 'dense'", "loss of output 'dense'"; ""
  // when all are finite.
  std::string first_non_finite();

  // From here on every step is timed, for steps(): on a device that runs steps later than it is
  // asked to, only until it has been asked.
  void time_steps();

  PlanMemory memory() const;
  std::vector<StepInfo> steps() const;
  std::vector<BlockInfo> blocks() const;

 private:
  struct Implementation;
  std::unique_ptr<Implementation> implementation_;
};

}  // namespace convlet
