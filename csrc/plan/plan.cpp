#include "plan/plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "plan/batch.h"
#include "plan/compile.h"
#include "plan/padding.h"
#include "plan/place.h"
#include "plan/program.h"

namespace convlet {
namespace {

// A part of the steps that has run before, and, once it runs again on a device that records, its
// recording.
struct Part {
  std::size_t first, end;
  std::unique_ptr<Recording> recording;
};

// Steps bound to the memory for one number of rows.
struct Bound {
  std::int64_t n;
  std::vector<Run> steps;
  std::vector<Part> parts;
};

// Bound step lists that are kept: the full batch, the last partial ones of training and validation
// data, and some for callers whose batches vary.
constexpr std::size_t kMostBound = 8;

// No version of a state: an error came between, so that the next run makes everything anew.
constexpr int kNotReady = -1;

}  // namespace

struct Plan::Implementation {
  Implementation(const Graph& graph, State& state, const PlanOptions& options)
      : graph(options.fuse ? with_merged_padding(graph) : graph),
        state(state),
        device(state.device()),
        options(options) {
    make();
  }

  const Graph graph;
  State& state;
  Device& device;
  const PlanOptions options;

  // What the program, its placement and its bound steps were made for.
  const Kernels* kernels = nullptr;
  Context* context = nullptr;
  int state_version = kNotReady;
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
  };
  DeviceMemory numbers;
  // Rows of the batch on their way to a device that does not see the host's memory, as they came.
  std::vector<char> packed;
  DeviceMemory raw;

  bool timed = false;
  std::vector<double> seconds;  // by step, while timed

  std::int64_t last_n = -1;                       // rows of the last batch, -1 when there is none
  std::vector<std::vector<std::int32_t>> labels;  // by target
  std::vector<std::vector<float>> scales;

  void make();
  void refresh();
  bool measure_workspace(std::int64_t n);
  void place_memory();
  Bound& bind(std::int64_t n);
  void load(const Batch& batch);
  void run_steps(Bound& steps, std::size_t first, std::size_t end);
  void time_steps(const Bound& steps, std::size_t first, std::size_t end);
  void load_rows(const Batch& batch, const Tensor& data, const Shape& sample, float* to);
  void write_numbers(double learning_rate);
  std::vector<double> run(const Batch& batch, double learning_rate);
  double read_double(BufferId id) const;
  void read_results(const std::vector<Result>& results, std::vector<double>& out) const;
  double total(const std::vector<double>& losses) const;
  bool is_finite(BufferId id);
  std::string first_non_finite();
};

void Plan::Implementation::make() {
  state_version = kNotReady;
  last_n = -1;
  program = compile(graph, state, options);
  kernels = &device.kernels(options.precision);
  context = &device.context();
  numbers = DeviceMemory(device, sizeof(Numbers));
  labels.assign(program.targets.size(), {});
  scales.assign(program.targets.size(), {});
  for (std::size_t i = 0; i < program.targets.size(); ++i) {
    std::size_t rows =
        static_cast<std::size_t>(checked_multiply(options.batch, program.targets[i].rows, "plan"));
    if (program.targets[i].integer_labels) labels[i].resize(rows);
    scales[i].resize(rows);
  }
  workspace.assign(program.steps.size(), 0);
  seconds.assign(program.steps.size(), 0.0);
  measure_workspace(options.batch);
  place_memory();
}

// Makes everything anew when the threads, the instruction set or the optimizer have changed.
void Plan::Implementation::refresh() {
  if (context != &device.context() || kernels != &device.kernels(options.precision) ||
      state_version != state.version())
    make();
}

bool Plan::Implementation::measure_workspace(std::int64_t n) {
  bool grown = false;
  for (std::size_t s = 0; s < program.steps.size(); ++s) {
    if (!program.steps[s].workspace) continue;
    auto bytes =
        static_cast<std::int64_t>(program.steps[s].workspace(*kernels, n, context->threads()));
    if (bytes <= workspace[s]) continue;
    workspace[s] = bytes;
    grown = true;
  }
  return grown;
}

void Plan::Implementation::place_memory() {
  state_version = kNotReady;
  prepared = kNotReady;
  last_n = -1;
  bound.clear();
  placement = place(program, options.batch, workspace);
  std::size_t bytes = static_cast<std::size_t>(placement.arena_bytes);
  if (bytes > arena.bytes()) {
    arena = DeviceMemory();
    arena = DeviceMemory(device, bytes);
  }
  addresses.assign(program.buffers.size(), nullptr);
  for (std::size_t id = 0; id < program.buffers.size(); ++id) {
    const Buffer& buffer = program.buffers[id];
    int block = placement.block_of_buffer[id];
    switch (buffer.kind) {
      case Buffer::Kind::arena:
        if (block >= 0) addresses[id] = arena.data() + placement.blocks[block].offset;
        break;
      case Buffer::Kind::parameter:
        addresses[id] = state.parameter(buffer.parameter);
        break;
      case Buffer::Kind::gradient:
        addresses[id] = state.gradient(buffer.parameter);
        break;
    }
  }
  state_version = state.version();
}

Bound& Plan::Implementation::bind(std::int64_t n) {
  for (Bound& b : bound)
    if (b.n == n) return b;
  if (measure_workspace(n)) place_memory();  // a kernel may cut fewer rows into more parts
  Bound fresh{n, {}, {}};
  for (std::size_t s = 0; s < program.steps.size(); ++s) {
    int block = placement.workspace_of_step[s];
    void* space = block < 0 ? nullptr : arena.data() + placement.blocks[block].offset;
    Numbers* at = reinterpret_cast<Numbers*>(numbers.data());
    fresh.steps.push_back(
        program.steps[s].bind({n, *kernels, addresses, space, &at->random, &at->update}));
  }
  if (bound.size() < kMostBound) {
    bound.push_back(std::move(fresh));
    return bound.back();
  }
  Bound& place = bound[next_to_evict++ % kMostBound];
  place = std::move(fresh);
  return place;
}

// All that can be refused is refused before the first kernel runs.
void Plan::Implementation::load(const Batch& batch) {
  for (std::size_t i = 0; i < program.targets.size(); ++i) {
    if (program.targets[i].integer_labels) read_labels(i, program.targets[i], batch, labels[i]);
    read_scale(i, program.targets[i], batch, scales[i]);
  }
  auto load_to = [&](const Tensor& data, const Shape& sample, BufferId to) {
    load_rows(batch, data, sample, static_cast<float*>(addresses[to]));
  };
  for (std::size_t i = 0; i < program.inputs.size(); ++i)
    load_to(batch.inputs[i], graph.shape(graph.inputs()[i]), program.inputs[i]);
  for (std::size_t i = 0; i < program.targets.size(); ++i) {
    const BatchTarget& target = program.targets[i];
    std::size_t rows = static_cast<std::size_t>(batch.n * target.rows);
    device.write(addresses[target.scale], scales[i].data(), rows * sizeof(float));
    if (target.integer_labels) {
      device.write(addresses[target.data], labels[i].data(), rows * sizeof(std::int32_t));
    } else {
      load_to(batch.targets[i], target.shape, target.data);
    }
  }
}

// The batch's rows of `data` as float32. A device that does not see them gets them packed, in their
// own dtype, and converts them.
void Plan::Implementation::load_rows(const Batch& batch, const Tensor& data, const Shape& sample,
                                     float* to) {
  const std::int64_t count = sample.elements();
  if (device.sees_host_memory()) {
    kernels->gather_rows(*context, batch.n, count, data.data, data.dtype, batch.indices, to);
    return;
  }
  const std::size_t row = static_cast<std::size_t>(count) * size_of(data.dtype);
  const std::size_t bytes = row * static_cast<std::size_t>(batch.n);
  const char* source = data.as<char>();
  if (batch.indices) {
    packed.resize(std::max(packed.size(), bytes));
    for (std::int64_t i = 0; i < batch.n; ++i)
      std::memcpy(packed.data() + i * static_cast<std::int64_t>(row),
                  source + batch.indices[i] * static_cast<std::int64_t>(row), row);
    source = packed.data();
  }
  if (data.dtype == DType::float32) {
    device.write(to, source, bytes);
    return;
  }
  if (raw.bytes() < bytes) raw = DeviceMemory(device, bytes);
  device.write(raw.data(), source, bytes);
  kernels->gather_rows(*context, batch.n, count, raw.data(), data.dtype, nullptr, to);
}

void Plan::Implementation::write_numbers(double learning_rate) {
  Numbers values{};
  values.random = {options.seed, static_cast<std::uint64_t>(state.batches)};
  if (options.mode == Mode::train) {
    const UpdateRule& rule = state.update();
    const std::int64_t updates = state.updates();
    values.update = optimizer_step(rule.optimizer, learning_rate, updates + 1);
    // The average begins with the parameters after the first update.
    values.update.average_momentum = updates == 0 ? 0.0f : rule.average_momentum;
  }
  device.write(numbers.data(), &values, sizeof values);
}

double Plan::Implementation::read_double(BufferId id) const {
  double value;
  device.read(addresses[id], &value, sizeof value);
  return value;
}

void Plan::Implementation::read_results(const std::vector<Result>& results,
                                        std::vector<double>& out) const {
  for (const Result& result : results) {
    double value = read_double(result.buffer);
    if (result.rows) value /= static_cast<double>(last_n) * static_cast<double>(result.rows);
    out.push_back(value);
  }
}

double Plan::Implementation::total(const std::vector<double>& losses) const {
  double sum = 0;
  for (std::size_t i = 0; i < losses.size(); ++i) sum += options.losses[i].weight * losses[i];
  for (const Result& penalty : program.penalties) sum += read_double(penalty.buffer);
  return sum;
}

// The first time one by one, which also shows that they work; then recorded, where the device
// does that, and from then on replayed.
void Plan::Implementation::run_steps(Bound& steps, std::size_t first, std::size_t end) {
  if (first == end) return;
  if (timed) return time_steps(steps, first, end);
  auto run = [&] {
    for (std::size_t s = first; s < end; ++s) steps.steps[s](*context);
  };
  auto part = std::find_if(steps.parts.begin(), steps.parts.end(),
                           [&](const Part& p) { return p.first == first && p.end == end; });
  if (part == steps.parts.end()) {
    run();
    steps.parts.push_back({first, end, nullptr});
    return;
  }
  if (!part->recording) part->recording = device.record(program.steps[first].phase, run);
  if (part->recording)
    part->recording->replay();
  else
    run();
}

void Plan::Implementation::time_steps(const Bound& steps, std::size_t first, std::size_t end) {
  using Clock = std::chrono::steady_clock;
  for (std::size_t s = first; s < end; ++s) {
    const Clock::time_point start = Clock::now();
    steps.steps[s](*context);
    context->wait();
    const double took = std::chrono::duration<double>(Clock::now() - start).count();
    seconds[s] = seconds[s] > 0 ? std::min(seconds[s], took) : took;
  }
}

std::vector<double> Plan::Implementation::run(const Batch& batch, double learning_rate) {
  const bool train = options.mode == Mode::train;
  if (train && !(std::isfinite(learning_rate) && learning_rate >= 0))
    value_error("plan: expected a finite learning rate of at least 0, got ", learning_rate);
  refresh();
  check_batch(graph, program, options.batch, batch);
  Bound& steps = bind(batch.n);
  load(batch);
  last_n = batch.n;
  write_numbers(learning_rate);
  if (prepared != state.changes()) run_steps(steps, 0, program.prepare_steps);
  prepared = state.changes();
  run_steps(steps, program.prepare_steps, program.forward_steps);
  if (options.mode == Mode::predict) return {};

  std::vector<double> losses, results;
  read_results(program.losses, losses);
  results.push_back(total(losses));
  results.insert(results.end(), losses.begin(), losses.end());
  read_results(program.metrics, results);
  if (!train || !std::isfinite(results[0])) return results;

  const bool due = (state.batches + 1) % state.update().accumulation_steps == 0;
  run_steps(steps, program.forward_steps, due ? steps.steps.size() : program.batch_steps);
  ++state.batches;
  state.note_change();
  return results;
}

bool Plan::Implementation::is_finite(BufferId id) {
  const Buffer& buffer = program.buffers[id];
  std::int64_t* answer = static_cast<std::int64_t*>(addresses[program.probe]);
  kernels->first_non_finite(*context, buffer.bytes(last_n) / std::int64_t{sizeof(float)},
                            static_cast<const float*>(addresses[id]), answer);
  std::int64_t first;
  device.read(answer, &first, sizeof first);
  return first < 0;
}

std::string Plan::Implementation::first_non_finite() {
  if (last_n < 0) value_error("plan: first_non_finite needs a batch that has been run");
  for (std::size_t i = 0; i < program.inputs.size(); ++i)
    if (!is_finite(program.inputs[i]))
      return concat("input '", graph.values()[graph.inputs()[i]].name, "'");
  std::vector<bool> seen(graph.parameters().size(), false);
  for (const BatchTarget& target : program.targets) {
    if (!target.integer_labels && !target.skip_missing && !is_finite(target.data))
      return concat("targets of output '", target.output, "'");
    if (!is_finite(target.scale)) return concat("sample weights of output '", target.output, "'");
  }
  const Bound& steps = bind(last_n);
  for (std::size_t s = 0; s < program.forward_steps; ++s) {
    const Step& step = program.steps[s];
    for (BufferId id : step.reads) {
      if (id == kNone || program.buffers[id].kind != Buffer::Kind::parameter) continue;
      int parameter = program.buffers[id].parameter;
      if (!seen[parameter] && !is_finite(id))
        return concat("parameter '", graph.parameters()[parameter].name, "'");
      seen[parameter] = true;
    }
    steps.steps[s](*context);
    for (BufferId id : step.writes)
      if (id != kNone && program.buffers[id].floats && !is_finite(id))
        return concat(step.phase == std::string("loss") ? "loss of output '" : "layer '",
                      step.layer, "'");
  }
  return "";
}

Plan::Plan(const Graph& graph, State& state, const PlanOptions& options)
    : implementation_(std::make_unique<Implementation>(graph, state, options)) {}

Plan::~Plan() = default;

std::vector<double> Plan::run(const Batch& batch, double learning_rate) {
  return implementation_->run(batch, learning_rate);
}

void Plan::output(int i, float* out) const {
  const Implementation& plan = *implementation_;
  if (i < 0 || static_cast<std::size_t>(i) >= plan.program.outputs.size())
    value_error("plan: there is no output ", i, " (the graph has ", plan.program.outputs.size(),
                ")");
  if (plan.last_n < 0) value_error("plan: output needs a batch that has been run");
  BufferId id = plan.program.outputs[static_cast<std::size_t>(i)];
  plan.device.read(plan.addresses[id], out,
                   static_cast<std::size_t>(plan.program.buffers[id].bytes(plan.last_n)));
}

std::string Plan::first_non_finite() {
  return implementation_->first_non_finite();
}

void Plan::time_steps() {
  implementation_->timed = true;
  std::fill(implementation_->seconds.begin(), implementation_->seconds.end(), 0.0);
}

PlanMemory Plan::memory() const {
  const Implementation& plan = *implementation_;
  std::int64_t trainable = plan.options.mode == Mode::train
                               ? plan.state.trainable_elements() * std::int64_t{sizeof(float)}
                               : 0;
  return {plan.state.elements() * std::int64_t{sizeof(float)},
          trainable,
          trainable * plan.state.slots(),
          plan.placement.activations_bytes,
          plan.placement.arena_bytes - plan.placement.activations_bytes,
          plan.placement.live_set_bytes};
}

std::vector<StepInfo> Plan::steps() const {
  const Implementation& plan = *implementation_;
  std::vector<StepInfo> steps;
  for (std::size_t s = 0; s < plan.program.steps.size(); ++s) {
    const Step& step = plan.program.steps[s];
    steps.push_back({step.phase, step.kernel, step.layer, plan.seconds[s]});
  }
  return steps;
}

std::vector<BlockInfo> Plan::blocks() const {
  const Implementation& plan = *implementation_;
  std::vector<BlockInfo> blocks;
  for (const Placement::Block& block : plan.placement.blocks)
    blocks.push_back({block.offset, block.bytes, block.first, block.last});
  return blocks;
}

}  // namespace convlet
