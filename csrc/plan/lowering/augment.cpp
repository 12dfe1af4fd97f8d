// augment: in train mode images change at random (ops/augment.h); elsewhere they stay as they are,
// or are cropped in the middle. The random numbers are those of the step, the position in the batch
// and the stream whose number is the output value's. Nothing is passed back through it.
#include "plan/lowering.h"

namespace convlet {
namespace {

AugmentSpec spec_of(const Node& node) {
  AugmentSpec spec;
  const char* op = node.name.c_str();
  for (const char* name : augment_numbers())
    if (node.attributes.has(name)) set_number(op, spec, name, node.attributes.number(name));
  if (node.attributes.has("fill")) spec.fill = fill_named(op, node.attributes.text("fill"));
  if (node.attributes.has("interpolation"))
    spec.interpolation = interpolation_named(op, node.attributes.text("interpolation"));
  return spec;
}

AugmentShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
  return check_augment(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n), n,
                       spec_of(node));
}

Shape infer(const Graph& graph, const Node& node) {
  check_rank(graph, node, 3, "(H,W,C)");
  const AugmentShape s = shape_of(graph, node, 1);
  // Outside training such a window has no middle that it stands for.
  if (spec_of(node).crop_area.high > 0)
    value_error(node.name, ": augment has no crop_area in a graph");
  return s.y().without_front();
}

void add_centre_crop(Builder& builder, const Node& node, BufferId x, BufferId y) {
  const AugmentShape s = shape_of(builder.graph, node, 1);
  if (s.P > s.H || s.Q > s.W)
    value_error(node.name, ": augment expected a crop inside the images outside training, got ",
                Shape{s.P, s.Q}, " of ", Shape{s.H, s.W});
  const std::int64_t top = (s.H - s.P) / 2, left = (s.W - s.Q) / 2;
  Step& step = builder.step("crop2d", node.name);
  step.reads = {x};
  step.writes = {y};
  step.bind = [=](const Binding& at) -> Run {
    return [=, kernel = at.kernels.crop2d, cropped = Shape{at.n, s.P, s.Q, s.C}, x_data = at[x],
            y_data = at[y]](Context& context) {
      kernel(context, cropped, top, s.H - s.P - top, left, s.W - s.Q - left, x_data, y_data);
    };
  };
}

void add_augment(Builder& builder, const Node& node, BufferId x, BufferId y) {
  Step& step = builder.step("augment", node.name);
  step.reads = {x};
  step.writes = {y};
  step.workspace = [&graph = builder.graph, &node](const Kernels& kernels, std::int64_t n,
                                                   int threads) {
    return kernels.augment_workspace(shape_of(graph, node, n), spec_of(node), threads);
  };
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    const AugmentBatch batch{at[x],   DType::float32, nullptr, nullptr,
                             nullptr, nullptr,        at[y],   DType::float32};
    return [=, kernel = at.kernels.augment, spec = spec_of(node), s = shape_of(graph, node, at.n),
            random = at.random, workspace = at.workspace,
            stream = static_cast<std::uint64_t>(node.output) & 0xffff](Context& context) {
      kernel(context, s, spec, random, stream, batch, workspace);
    };
  };
}

void forward(Builder& builder, const Node& node) {
  BufferId x = builder.value(node.inputs[0]);
  if (builder.mode == Mode::train) {
    add_augment(builder, node, x, builder.new_output(node));
  } else if (builder.graph.shape(node.inputs[0]) == builder.graph.shape(node.output)) {
    builder.set_value(node.output, x);
  } else {
    add_centre_crop(builder, node, x, builder.new_output(node));
  }
}

void backward(Builder&, const Node& node) {
  value_error(node.name,
              ": random changes of images pass no gradient back; expected no trainable layer "
              "before this one");
}

std::vector<const char*> attributes() {
  std::vector<const char*> names = augment_numbers();
  names.push_back("fill");
  names.push_back("interpolation");
  return names;
}

}  // namespace

extern const Lowering kAugment;
const Lowering kAugment{"augment", 1, 1, 0, 0, attributes(), false, infer, forward, backward};

}  // namespace convlet
