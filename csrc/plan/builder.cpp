#include "plan/builder.h"

#include <iterator>

namespace convlet {

Builder::Builder(const Graph& graph, const PlanOptions& options, const Kernels& kernels,
                 const Fusion& fusion)
    : graph(graph),
      mode(options.mode),
      winograd(options.winograd),
      kernels(kernels),
      fusion_(fusion) {
  const std::size_t values = graph.values().size(), parameters = graph.parameters().size();
  values_.assign(values, kNone);
  gradients_.assign(values, kNone);
  needs_gradient_ = values_needing_gradients(graph, mode);
  parameter_has_gradient_.assign(parameters, false);
  saved_.resize(graph.nodes().size());
  for (std::size_t id = 0; id < parameters; ++id) {
    Buffer buffer;
    buffer.parameter = static_cast<int>(id);
    buffer.fixed_bytes = graph.parameters()[id].shape.elements() * std::int64_t{sizeof(float)};
    buffer.kind = Buffer::Kind::parameter;
    parameters_.push_back(static_cast<BufferId>(program.buffers.size()));
    program.buffers.push_back(buffer);
    buffer.kind = Buffer::Kind::gradient;
    parameter_gradients_.push_back(static_cast<BufferId>(program.buffers.size()));
    program.buffers.push_back(buffer);
  }
}

BufferId Builder::new_buffer(std::int64_t sample_bytes, std::int64_t fixed_bytes, bool floats) {
  Buffer buffer;
  buffer.sample_bytes = sample_bytes;
  buffer.fixed_bytes = fixed_bytes;
  buffer.floats = floats;
  program.buffers.push_back(buffer);
  return static_cast<BufferId>(program.buffers.size()) - 1;
}

BufferId Builder::new_like(int value) {
  return new_buffer(elements(value) * std::int64_t{sizeof(float)});
}

BufferId Builder::new_double() {
  return new_buffer(0, (1 + kReductionParts) * std::int64_t{sizeof(double)}, false);
}

int Builder::output_of(const Node& node) const {
  return fusion_.writes[index_of(node)];
}

int Builder::gradient_of(const Node& node) const {
  return fusion_.gradient_of[index_of(node)];
}

Activation Builder::epilogue_of(const Node& node) const {
  int fused = fusion_.activation_of[index_of(node)];
  return fused < 0 ? Activation::none : activation_of(graph.nodes()[fused]);
}

int Builder::residual_of(const Node& node) const {
  return fusion_.residual_of[index_of(node)];
}

const Node* Builder::pool_of(const Node& node) const {
  int fused = fusion_.pool_of[index_of(node)];
  return fused < 0 ? nullptr : &graph.nodes()[fused];
}

const Node* Builder::folded_into(const Node& node) const {
  int fused = fusion_.folded_into[index_of(node)];
  return fused < 0 ? nullptr : &graph.nodes()[fused];
}

int Builder::bytes_of(const Node& node) const {
  return fusion_.bytes_of[index_of(node)];
}

LinearScale Builder::scale_of(const Node& node) const {
  int fused = fusion_.scale_of[index_of(node)];
  return fused < 0 ? LinearScale() : linear_scale_of(graph.nodes()[fused]);
}

const Node* Builder::normalization_of(const Node& node) const {
  int fused = fusion_.normalization_of[index_of(node)];
  return fused < 0 ? nullptr : &graph.nodes()[fused];
}

BufferId Builder::new_output(const Node& node) {
  int output = output_of(node);
  BufferId buffer = new_like(output);
  set_value(output, buffer);
  return buffer;
}

bool Builder::needs_parameter_gradient(int id) const {
  return mode == Mode::train && graph.parameters()[id].trainable;
}

void Builder::add_gradient(int value, BufferId share) {
  BufferId& gradient = gradients_[value];
  if (gradient == kNone) {
    gradient = share;
    return;
  }
  BufferId sum = new_like(value);
  add_buffers(graph.values()[value].name, gradient, share, sum);
  gradient = sum;
}

Step& Builder::prepare_step(const char* kernel, const std::string& layer) {
  prepare_.emplace_back();
  Step& step = prepare_.back();
  step.phase = "prepare";
  step.kernel = kernel;
  step.layer = layer;
  return step;
}

BufferId Builder::new_prepared(std::int64_t bytes) {
  BufferId id = new_buffer(0, bytes);
  program.buffers[id].before = program.buffers[id].kept = true;
  return id;
}

void Builder::insert_prepare_steps() {
  program.prepare_steps = prepare_.size();
  program.steps.insert(program.steps.begin(), std::make_move_iterator(prepare_.begin()),
                       std::make_move_iterator(prepare_.end()));
}

Step& Builder::step(const char* kernel, const std::string& layer) {
  program.steps.emplace_back();
  Step& step = program.steps.back();
  step.phase = phase_;
  step.kernel = kernel;
  step.layer = layer;
  return step;
}

void Builder::add_buffers(const std::string& layer, BufferId a, BufferId b, BufferId y) {
  const Buffer size = program.buffers[static_cast<std::size_t>(y)];
  Step& s = step("add", layer);
  s.reads = {a, b};
  s.writes = {y};
  s.reuses = {{y, a}, {y, b}};
  s.bind = [=](const Binding& at) -> Run {
    return [=, kernel = at.kernels.add, count = size.bytes(at.n) / std::int64_t{sizeof(float)},
            a_data = at[a], b_data = at[b],
            y_data = at[y]](Context& context) { kernel(context, count, a_data, b_data, y_data); };
  };
}

}  // namespace convlet
