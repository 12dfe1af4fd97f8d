// What a plan keeps. plan.cpp makes it and binds steps to its memory, run.cpp runs them.
#pragma once
#include <deque>

#include "plan/dataset.h"
#include "plan/place.h"
#include "plan/plan.h"
#include "plan/program.h"

namespace convlet {

// A part of the steps that has run before, and, once it runs again on a device that records, its
// recording. With a data set (its version; 0: none) it begins with taking the batch.
struct Part {
  std::size_t first, end;
  int dataset;
  std::unique_ptr<Recording> recording;
};

// Steps bound to the memory for one number of rows.
struct Bound {
  std::int64_t n;
  std::vector<Run> steps;
  std::vector<Part> parts;
};

// A step whose results nobody has taken yet.
struct Started {
  std::int64_t n = -1;       // rows; -1: there is none
  std::int64_t batches = 0;  // State::batches before it
  std::int64_t number = 0;   // of the step in this plan
};

struct Finished {
  std::int64_t number;
  std::vector<double> results;
};

// No version of a state: an error came between, so that the next run makes everything anew.
constexpr int kNotReady = -1;

struct Plan::Implementation {
  Implementation(const Graph& graph, State& state, const PlanOptions& options);

  const Graph graph;
  State& state;
  Device& device;
  const PlanOptions options;

  // What the program, its placement and its bound steps were made for.
  const Kernels* kernels = nullptr;
  Context* context = nullptr;
  int state_version = kNotReady;
  std::vector<bool> bytes;            // by graph input: whether its batches are kept as bytes
  int checked_dataset = 0;            // its version
  std::int64_t prepared = kNotReady;  // State::changes() that the prepare steps ran for

  Program program;
  std::vector<std::int64_t> workspace;  // bytes, by step
  Placement placement;
  DeviceMemory arena;
  std::vector<void*> addresses;  // by buffer
  std::vector<Bound> bound;
  std::size_t next_to_evict = 0;

  // What changes from step to step, in the device's memory, so that a captured step can be
  // replayed.
  struct Numbers {
    RandomStep random;
    OptimizerStep update;
    std::int64_t first;  // where in a data set's order the batch begins
  };
  DeviceMemory numbers;
  DeviceMemory halt;                  // see Halt
  std::unique_ptr<Upload> upload;     // of batches; null where the device sees the host's memory
  std::unique_ptr<Readback> answers;  // the results of the steps in `started`
  std::deque<Started> started;
  std::deque<Finished> finished;  // steps whose results have come, and nobody has asked for
  Started last;                   // the batch in memory
  bool mixed = false;             // batches of bytes and others have come for the same input

  bool timed = false;
  std::vector<double> seconds;  // by step, while timed

  void make();
  bool refresh();
  bool keep_bytes(const Batch& batch);
  std::vector<std::int64_t> workspace_for(std::int64_t n) const;
  void place_memory();
  Bound* bind(std::int64_t n);
  void take(std::int64_t n, const Batch& batch, const BatchRows& rows);
  void run_steps(Bound& steps, std::size_t first, std::size_t end, const Dataset* data = nullptr);
  void take_and_run(const Bound& steps, std::size_t first, std::size_t end, const Dataset* data);
  void time_steps(const Bound& steps, std::size_t first, std::size_t end);
  void check_rate(double learning_rate) const;
  void check_dataset(const Dataset& data, std::int64_t first, std::int64_t n);
  void write_numbers(double learning_rate, std::int64_t first);
  bool start(const Batch& batch, double learning_rate);
  bool start(const Dataset& data, std::int64_t first, std::int64_t n, double learning_rate);
  void run_batch(Bound& steps, const Dataset* data);
  Halt halt_flag() const;
  std::size_t result_bytes() const;
  std::vector<double> finish_oldest();
  std::vector<double> finish(std::int64_t step);
  bool finish_until(std::int64_t step);
  bool is_undone(const std::vector<double>& results) const;
  void undo(const Started& step);
  bool is_finite(BufferId id);
  std::string first_non_finite();
};

}  // namespace convlet
