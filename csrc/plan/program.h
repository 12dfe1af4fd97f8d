// Program: what the lowering of a graph makes. Buffers of memory that has no address yet, and the
// steps that read and write them, in the order in which they run.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "ops/kernels.h"

namespace convlet {

using BufferId = int;
constexpr BufferId kNone = -1;

struct Buffer {
  enum class Kind {
    arena,      // placed by the planner
    parameter,  // the state's memory of parameter `parameter`
    gradient,   // the state's gradient of parameter `parameter`
  };
  Kind kind = Kind::arena;
  int parameter = -1;
  std::int64_t sample_bytes = 0;  // per row of the batch
  std::int64_t fixed_bytes = 0;
  bool floats = true;   // whether it holds float32 values and nothing else
  bool before = false;  // filled before the first step
  bool kept = false;    // read after the last step

  std::int64_t bytes(std::int64_t n) const {
    return checked_multiply(sample_bytes, n, "plan") + fixed_bytes;
  }
};

// What a step may use when it is bound to memory and a number of rows.
struct Binding {
  std::int64_t n;
  const Kernels& kernels;
  const std::vector<void*>& addresses;  // by buffer
  void* workspace;
  const RandomStep* random;
  const OptimizerStep* update;
  std::int32_t* halt;  // null where nothing is trained

  // The memory of a buffer; null for kNone.
  float* operator[](BufferId id) const { return at<float>(id); }
  template <class T>
  T* at(BufferId id) const {
    return id == kNone ? nullptr : static_cast<T*>(addresses[static_cast<std::size_t>(id)]);
  }
};

using Run = std::function<void(Context&)>;

struct Step {
  const char* phase;   // "prepare", "forward", "loss", "metric", "backward", "update"
  const char* kernel;  // its member of Kernels, or "clear"
  std::string layer;
  std::vector<BufferId> reads, writes;
  // `write` may take the memory of `read` when this step is the last use of it.
  struct Reuse {
    BufferId write, read;
  };
  std::vector<Reuse> reuses;
  std::function<std::size_t(const Kernels&, std::int64_t n, int threads)> workspace;
  std::function<Run(const Binding&)> bind;
};

// Where the targets of a loss and its samples' weights go.
struct BatchTarget {
  std::string output;  // the name of the graph output it belongs to
  Shape shape;         // of the output, per sample; integer labels lack its last axis
  bool integer_labels = false;
  std::int64_t classes = 0;   // of integer labels
  bool skip_missing = false;  // NaN is a missing value
  std::int64_t rows = 1;      // rows of the loss kernel per sample
  BufferId data = kNone;      // int32 labels or float32 values
  BufferId scale = kNone;     // one float32 per row of the loss kernel: its weight / (n * rows)
};

struct Program {
  std::vector<Buffer> buffers;
  std::vector<Step> steps;
  // Steps [0, prepare_steps) depend on the parameters alone: they run when those have changed.
  std::size_t prepare_steps = 0;
  std::size_t forward_steps = 0;     // steps [0, forward_steps) end with the losses and metrics
  std::size_t result_steps = 0;      // steps [0, result_steps) end with the results
  std::size_t batch_steps = 0;       // steps [0, batch_steps) run for every batch, the rest when an
                                     // update is due
  std::vector<BufferId> inputs;      // by graph input
  std::vector<bool> takes_bytes;     // by graph input: whether it could be bytes, or is
  std::vector<BufferId> outputs;     // by graph output
  std::vector<BatchTarget> targets;  // by loss
  // What the reductions of losses, metrics and penalties leave, one after the other, and the
  // results that step_results makes of them (Kernels).
  ResultCounts counts{};
  BufferId values = kNone, results = kNone;
  std::vector<std::int64_t> metric_rows;  // a metric is the mean over so many rows per sample
  std::vector<float> loss_weights;        // for the memory loss_weights_data
  BufferId loss_weights_data = kNone;
  BufferId probe = kNone;  // one int64: the answer of first_non_finite
};

}  // namespace convlet
