#include "plan/plan.h"

#include <algorithm>

#include "plan/compile.h"
#include "plan/implementation.h"
#include "plan/padding.h"

namespace convlet {
namespace {

// Bound step lists that are kept: the full batch, the last partial ones of training and validation
// data, and some for callers whose batches vary.
constexpr std::size_t kMostBound = 8;

}  // namespace

Plan::Implementation::Implementation(const Graph& graph, State& state, const PlanOptions& options)
    : graph(options.fuse ? with_merged_padding(graph) : graph),
      state(state),
      device(state.device()),
      options(options),
      bytes(graph.inputs().size(), false) {
  make();
}

void Plan::Implementation::make() {
  state_version = kNotReady;
  last = {-1, 0, last.number};
  program = compile(graph, state, options, bytes);
  kernels = &device.kernels(options.precision);
  context = &device.context();
  numbers = DeviceMemory(device, sizeof(Numbers));
  halt = DeviceMemory(device, sizeof(std::int32_t));
  device.clear(halt.data(), halt.bytes());
  upload = device.upload();
  answers = device.readback();
  workspace.assign(program.steps.size(), 0);
  seconds.assign(program.steps.size(), 0.0);
  workspace = workspace_for(options.batch);
  place_memory();
}

// Makes everything anew when the threads, the instruction set or the optimizer have changed. False,
// and nothing is made, when one of the steps under way turns out to have been undone: its batch
// stays in memory.
bool Plan::Implementation::refresh() {
  if (context == &device.context() && kernels == &device.kernels(options.precision) &&
      state_version == state.version())
    return true;
  if (!finish_until(last.number)) return false;
  make();
  return true;
}

// Makes everything anew when the batch is the first that brings bytes to an input whose steps can
// read them; and once more when a later one brings something else: from then on, all become
// float32. False as refresh() is.
bool Plan::Implementation::keep_bytes(const Batch& batch) {
  std::vector<bool> found(bytes.size(), false);
  for (std::size_t i = 0; !mixed && i < found.size(); ++i)
    found[i] = program.takes_bytes[i] && batch.inputs[i].dtype == DType::uint8;
  if (found == bytes) return true;
  if (!finish_until(last.number)) return false;
  mixed = std::count(bytes.begin(), bytes.end(), true) > 0;
  bytes = mixed ? std::vector<bool>(bytes.size(), false) : found;
  arena = DeviceMemory();
  make();
  return true;
}

// By step: what n rows need, and at least what there is.
std::vector<std::int64_t> Plan::Implementation::workspace_for(std::int64_t n) const {
  std::vector<std::int64_t> needed = workspace;
  for (std::size_t s = 0; s < program.steps.size(); ++s)
    if (program.steps[s].workspace)
      needed[s] = std::max(needed[s], static_cast<std::int64_t>(program.steps[s].workspace(
                                          *kernels, n, context->threads())));
  return needed;
}

void Plan::Implementation::place_memory() {
  state_version = kNotReady;
  prepared = kNotReady;
  checked_dataset = 0;
  last = {-1, 0, last.number};
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
  if (program.loss_weights_data != kNone)
    device.write(addresses[program.loss_weights_data], program.loss_weights.data(),
                 program.loss_weights.size() * sizeof(float));
  state_version = state.version();
}

// Null as refresh() is false.
Bound* Plan::Implementation::bind(std::int64_t n) {
  for (Bound& b : bound)
    if (b.n == n) return &b;
  std::vector<std::int64_t> needed = workspace_for(n);
  if (needed != workspace) {  // a kernel may cut fewer rows into more parts
    if (!finish_until(last.number)) return nullptr;
    workspace = std::move(needed);
    place_memory();
  }
  Bound fresh{n, {}, {}};
  auto* flag = options.mode == Mode::train ? reinterpret_cast<std::int32_t*>(halt.data()) : nullptr;
  for (std::size_t s = 0; s < program.steps.size(); ++s) {
    int block = placement.workspace_of_step[s];
    void* space = block < 0 ? nullptr : arena.data() + placement.blocks[block].offset;
    Numbers* at = reinterpret_cast<Numbers*>(numbers.data());
    fresh.steps.push_back(
        program.steps[s].bind({n, *kernels, addresses, space, &at->random, &at->update, flag}));
  }
  if (bound.size() < kMostBound) {
    bound.push_back(std::move(fresh));
    return &bound.back();
  }
  Bound& place = bound[next_to_evict++ % kMostBound];
  place = std::move(fresh);
  return &place;
}

Plan::Plan(const Graph& graph, State& state, const PlanOptions& options)
    : implementation_(std::make_unique<Implementation>(graph, state, options)) {}

Plan::~Plan() = default;

std::int64_t Plan::start(const Batch& batch, double learning_rate) {
  if (!implementation_->start(batch, learning_rate)) ++implementation_->last.number;
  return implementation_->last.number;
}

std::int64_t Plan::start(const Dataset& data, std::int64_t first, std::int64_t n,
                         double learning_rate) {
  if (!implementation_->start(data, first, n, learning_rate)) ++implementation_->last.number;
  return implementation_->last.number;
}

std::vector<double> Plan::finish(std::int64_t step) {
  if (step < 1 || step > implementation_->last.number)
    value_error("plan: finish: expected a step that was started, got ", step);
  return implementation_->finish(step);
}

std::vector<double> Plan::run(const Batch& batch, double learning_rate) {
  implementation_->finish_until(implementation_->last.number);
  return implementation_->finish(start(batch, learning_rate));
}

std::int64_t Plan::rows() const {
  return std::max<std::int64_t>(implementation_->last.n, 0);
}

void Plan::output(int i, float* out) const {
  const Implementation& plan = *implementation_;
  if (i < 0 || static_cast<std::size_t>(i) >= plan.program.outputs.size())
    value_error("plan: there is no output ", i, " (the graph has ", plan.program.outputs.size(),
                ")");
  if (plan.last.n < 0) value_error("plan: output needs a batch that has been run");
  BufferId id = plan.program.outputs[static_cast<std::size_t>(i)];
  plan.device.read(plan.addresses[id], out,
                   static_cast<std::size_t>(plan.program.buffers[id].bytes(plan.last.n)));
}

void Plan::send_outputs(Readback& to) const {
  const Implementation& plan = *implementation_;
  if (plan.last.n < 0) value_error("plan: send_outputs needs a batch that has been run");
  for (BufferId id : plan.program.outputs)
    to.send(plan.addresses[id],
            static_cast<std::size_t>(plan.program.buffers[id].bytes(plan.last.n)));
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
