#include <algorithm>
#include <chrono>
#include <cmath>

#include "plan/batch.h"
#include "plan/implementation.h"

namespace convlet {
namespace {

const char* name_of(Mode mode) {
  constexpr const char* names[] = {"predict", "test", "train"};
  return names[static_cast<int>(mode)];
}

}  // namespace

// The batch's rows become the inputs, targets and weights of the step.
void Plan::Implementation::take(std::int64_t n, const Batch& batch, const BatchRows& rows) {
  for (std::size_t i = 0; i < program.inputs.size(); ++i) {
    const Tensor& x = batch.inputs[i];
    const std::int64_t elements = graph.shape(graph.inputs()[i]).elements();
    void* to = addresses[program.inputs[i]];
    if (bytes[i])
      kernels->conv2d_bytes.gather(*context, n, elements, x.as<std::uint8_t>(), rows,
                                   static_cast<std::uint8_t*>(to));
    else
      kernels->gather_rows(*context, n, elements, x.data, x.dtype, rows, static_cast<float*>(to));
  }
  for (std::size_t i = 0; i < program.targets.size(); ++i) {
    const BatchTarget& target = program.targets[i];
    const Tensor& y = batch.targets[i];
    void* to = addresses[target.data];
    if (target.integer_labels)
      kernels->gather_labels(*context, n, target.rows, y.data, y.dtype, rows,
                             static_cast<std::int32_t*>(to));
    else
      kernels->gather_rows(*context, n, target.shape.elements(), y.data, y.dtype, rows,
                           static_cast<float*>(to));
    const double share = 1.0 / (static_cast<double>(n) * static_cast<double>(target.rows));
    kernels->gather_scale(*context, n, target.rows,
                          batch.weights.empty() ? nullptr : batch.weights[i], share, rows,
                          static_cast<float*>(addresses[target.scale]));
  }
}

void Plan::Implementation::write_numbers(double learning_rate, std::int64_t first) {
  Numbers values{};
  values.first = first;
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

void Plan::Implementation::take_and_run(const Bound& steps, std::size_t first, std::size_t end,
                                        const Dataset* data) {
  if (data) {
    const auto* numbers_data = reinterpret_cast<const Numbers*>(numbers.data());
    take(steps.n, data->samples(), {data->order(), &numbers_data->first, halt_flag()});
  }
  if (timed) return time_steps(steps, first, end);
  for (std::size_t s = first; s < end; ++s) steps.steps[s](*context);
}

// The first time one by one, which also shows that they work; then recorded, where the device
// does that, and from then on replayed.
void Plan::Implementation::run_steps(Bound& steps, std::size_t first, std::size_t end,
                                     const Dataset* data) {
  if (first == end) return;
  const int version = data ? data->version() : 0;
  auto part = std::find_if(steps.parts.begin(), steps.parts.end(), [&](const Part& p) {
    return p.first == first && p.end == end && p.dataset == version;
  });
  if (timed || part == steps.parts.end()) {
    take_and_run(steps, first, end, data);
    if (timed) return;
    // Only the recordings of one data set are kept.
    const auto old = [&](const Part& p) { return version && p.dataset && p.dataset != version; };
    steps.parts.erase(std::remove_if(steps.parts.begin(), steps.parts.end(), old),
                      steps.parts.end());
    steps.parts.push_back({first, end, version, nullptr});
    return;
  }
  const bool prepares = first == 0 && end == program.prepare_steps;
  const auto run = [&] { take_and_run(steps, first, end, data); };
  if (!part->recording)
    part->recording = device.record(prepares ? "prepare" : name_of(options.mode), run);
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

void Plan::Implementation::check_rate(double learning_rate) const {
  if (options.mode == Mode::train && !(std::isfinite(learning_rate) && learning_rate >= 0))
    value_error("plan: expected a finite learning rate of at least 0, got ", learning_rate);
}

void Plan::Implementation::check_dataset(const Dataset& data, std::int64_t first, std::int64_t n) {
  if (first < 0 || n < 1 || n > options.batch || first > data.ordered() - n)
    value_error("plan: expected at most ", options.batch, " rows of an order of ", data.ordered(),
                ", got ", n, " from ", first, " on");
  if (checked_dataset == data.version()) return;
  if (&data.device() != &device) value_error("plan: the data set is on another device");
  Batch batch = data.samples();
  batch.n = n;
  check_batch(graph, program, options.batch, batch);
  for (std::size_t i = 0; i < program.targets.size(); ++i)
    if (program.targets[i].integer_labels) data.check_labels(i, program.targets[i]);
  checked_dataset = data.version();
}

Halt Plan::Implementation::halt_flag() const {
  return options.mode == Mode::train ? reinterpret_cast<Halt>(halt.data()) : nullptr;
}

// All that can be refused is refused before the first kernel runs. False when the step is void: one
// before it was undone.
bool Plan::Implementation::start(const Batch& batch, double learning_rate) {
  check_rate(learning_rate);
  if (!refresh()) return false;
  check_batch(graph, program, options.batch, batch);
  for (std::size_t i = 0; i < program.targets.size(); ++i)
    if (program.targets[i].integer_labels) check_labels(i, program.targets[i], batch);
  if (!keep_bytes(batch)) return false;
  Bound* steps = bind(batch.n);
  if (!steps) return false;
  write_numbers(learning_rate, 0);
  if (upload)
    take(batch.n, sent(batch, *upload), {nullptr, nullptr, halt_flag()});
  else
    take(batch.n, batch, {batch.indices, nullptr, halt_flag()});
  run_batch(*steps, nullptr);
  return true;
}

bool Plan::Implementation::start(const Dataset& data, std::int64_t first, std::int64_t n,
                                 double learning_rate) {
  check_rate(learning_rate);
  if (!refresh()) return false;
  check_dataset(data, first, n);
  if (!keep_bytes(data.samples())) return false;
  Bound* steps = bind(n);
  if (!steps) return false;
  write_numbers(learning_rate, first);
  run_batch(*steps, &data);
  return true;
}

void Plan::Implementation::run_batch(Bound& steps, const Dataset* data) {
  const bool train = options.mode == Mode::train;
  last = {steps.n, state.batches, last.number + 1};
  if (prepared != state.changes()) run_steps(steps, 0, program.prepare_steps);
  prepared = state.changes();
  const bool due = train && (state.batches + 1) % state.update().accumulation_steps == 0;
  const std::size_t end = due     ? steps.steps.size()
                          : train ? program.batch_steps
                                  : program.result_steps;
  run_steps(steps, program.prepare_steps, end, data);
  if (options.mode == Mode::predict) return;
  answers->send(addresses[program.results], result_bytes());
  started.push_back(last);
  if (!train) return;
  ++state.batches;
  state.note_change();
}

std::size_t Plan::Implementation::result_bytes() const {
  return static_cast<std::size_t>(program.buffers[program.results].fixed_bytes);
}

std::vector<double> Plan::Implementation::finish_oldest() {
  const Started step = started.front();
  started.pop_front();
  std::vector<double> results(result_bytes() / sizeof(double));
  answers->take(results.data());
  const auto metrics = static_cast<std::size_t>(1 + program.counts.losses);
  for (std::size_t i = 0; i < program.metric_rows.size(); ++i)
    results[metrics + i] /=
        static_cast<double>(step.n) * static_cast<double>(program.metric_rows[i]);
  if (is_undone(results)) undo(step);
  return results;
}

bool Plan::Implementation::is_undone(const std::vector<double>& results) const {
  return options.mode == Mode::train && !std::isfinite(results[0]);
}

// Those up to `step`. The results are kept until somebody asks for them. False when one was undone.
bool Plan::Implementation::finish_until(std::int64_t step) {
  bool kept = true;
  while (!started.empty() && started.front().number <= step) {
    const std::int64_t number = started.front().number;
    finished.push_back({number, finish_oldest()});
    kept = kept && !is_undone(finished.back().results);
  }
  return kept;
}

std::vector<double> Plan::Implementation::finish(std::int64_t step) {
  finish_until(step);
  for (auto at = finished.begin(); at != finished.end(); ++at) {
    if (at->number != step) continue;
    std::vector<double> results = std::move(at->results);
    finished.erase(at);
    return results;
  }
  return {};
}

// Its kernels, and those of the steps after it, have found the flag and changed nothing: not the
// batch in memory either.
void Plan::Implementation::undo(const Started& step) {
  std::vector<double> results(result_bytes() / sizeof(double));
  for (; !started.empty(); started.pop_front()) answers->take(results.data());
  device.clear(halt.data(), halt.bytes());
  state.batches = step.batches;
  last = {step.n, step.batches, last.number};
}

bool Plan::Implementation::is_finite(BufferId id) {
  const Buffer& buffer = program.buffers[id];
  if (!buffer.floats) return true;
  std::int64_t* answer = static_cast<std::int64_t*>(addresses[program.probe]);
  kernels->first_non_finite(*context, buffer.bytes(last.n) / std::int64_t{sizeof(float)},
                            static_cast<const float*>(addresses[id]), answer);
  std::int64_t first;
  device.read(answer, &first, sizeof first);
  return first < 0;
}

std::string Plan::Implementation::first_non_finite() {
  finish_until(last.number);
  if (last.n < 0) value_error("plan: first_non_finite needs a batch that has been run");
  const RandomStep random{options.seed, static_cast<std::uint64_t>(last.batches)};
  device.write(&reinterpret_cast<Numbers*>(numbers.data())->random, &random, sizeof random);
  for (std::size_t i = 0; i < program.inputs.size(); ++i)
    if (!is_finite(program.inputs[i]))
      return concat("input '", graph.values()[graph.inputs()[i]].name, "'");
  std::vector<bool> seen(graph.parameters().size(), false);
  for (const BatchTarget& target : program.targets) {
    if (!target.integer_labels && !target.skip_missing && !is_finite(target.data))
      return concat("targets of output '", target.output, "'");
    if (!is_finite(target.scale)) return concat("sample weights of output '", target.output, "'");
  }
  const Bound& steps = *bind(last.n);  // nothing is under way
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
      if (id != kNone && !is_finite(id))
        return concat(step.phase == std::string("loss") ? "loss of output '" : "layer '",
                      step.layer, "'");
  }
  return "";
}

}  // namespace convlet
