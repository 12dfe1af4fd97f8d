// layer_norm and group_norm inside a plan: see ops/layer_norm.h and ops/group_norm.h for the
// formulas. Both make their statistics again in the backward, so that only x is kept.
#include "plan/lowering.h"

namespace convlet {
namespace {

constexpr double kEpsilon = 1e-3;  // Keras' default

// An op is a struct with its shape for n rows of the batch, that of its parameters, and its
// kernels.
struct LayerNorm {
  static constexpr const char* op = "layer_norm";
  static constexpr const char* backward_name = "layer_norm_backward";
  static constexpr auto backward = &Kernels::layer_norm_backward;

  static std::int64_t axes_of(const Graph& graph, const Node& node) {
    const std::int64_t axes = node.attributes.integer("axes", 1);
    const Shape& sample = graph.shape(node.inputs[0]);
    if (axes < 1 || axes > sample.rank())
      value_error(node.name, ": layer_norm expected 'axes' from 1 to the rank of a sample ", sample,
                  ", got ", axes);
    return axes;
  }
  static LayerNormShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
    return check_layer_norm(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n),
                            axes_of(graph, node), node.attributes.number("epsilon", kEpsilon));
  }
  static Shape parameter_shape(const Graph& graph, const Node& node) {
    return last_axes(graph.shape(node.inputs[0]), axes_of(graph, node));
  }
  static std::size_t workspace(const Kernels& kernels, const LayerNormShape& s, Pass pass, int) {
    return pass == Pass::forward ? 0 : kernels.layer_norm_backward_workspace(s);
  }
  static void forward(const Kernels& kernels, Context& context, const LayerNormShape& s,
                      const float* x, const float* gamma, const float* beta, float* y, void*) {
    kernels.layer_norm(context, s, x, gamma, beta, y);
  }
};

struct GroupNorm {
  static constexpr const char* op = "group_norm";
  static constexpr const char* backward_name = "group_norm_backward";
  static constexpr auto backward = &Kernels::group_norm_backward;

  static GroupNormShape shape_of(const Graph& graph, const Node& node, std::int64_t n) {
    return check_group_norm(node.name.c_str(), graph.shape(node.inputs[0]).with_front(n),
                            node.attributes.integer("groups", 32),
                            node.attributes.number("epsilon", kEpsilon));
  }
  static Shape parameter_shape(const Graph& graph, const Node& node) {
    return {graph.shape(node.inputs[0]).back()};
  }
  static std::size_t workspace(const Kernels& kernels, const GroupNormShape& s, Pass pass,
                               int threads) {
    return kernels.group_norm_workspace(s, pass, threads);
  }
  static void forward(const Kernels& kernels, Context& context, const GroupNormShape& s,
                      const float* x, const float* gamma, const float* beta, float* y,
                      void* workspace) {
    kernels.group_norm(context, s, x, gamma, beta, y, workspace);
  }
};

// Parameter ids; -1 for what the node does not have.
struct Affine {
  int gamma = -1, beta = -1;
};

Affine affine_of(const Node& node) {
  Affine affine;
  std::size_t next = 0;
  if (node.attributes.boolean("scale", true)) affine.gamma = node.parameters[next++];
  if (node.attributes.boolean("center", true)) affine.beta = node.parameters[next];
  return affine;
}

template <class Op>
Shape infer(const Graph& graph, const Node& node) {
  const Shape& sample = graph.shape(node.inputs[0]);
  if (sample.rank() == 0)
    value_error(node.name, ": ", Op::op, " expected samples with at least one axis, got shape ()");
  Op::shape_of(graph, node, 1);
  const int expected =
      node.attributes.boolean("scale", true) + node.attributes.boolean("center", true);
  if (static_cast<int>(node.parameters.size()) != expected)
    value_error(node.name, ": ", Op::op, " expected ", expected,
                " parameters (gamma if 'scale', beta if 'center'), got ", node.parameters.size());
  const Shape shape = Op::parameter_shape(graph, node);
  for (int id : node.parameters)
    if (graph.parameter_shape(id) != shape)
      value_error(node.name, ": ", Op::op, " expected parameters of shape ", shape, ", got ",
                  graph.parameter_shape(id));
  return sample;
}

template <class Op>
auto workspace_of(const Builder& builder, const Node& node, Pass pass) {
  return
      [&graph = builder.graph, &node, pass](const Kernels& kernels, std::int64_t n, int threads) {
        return Op::workspace(kernels, Op::shape_of(graph, node, n), pass, threads);
      };
}

BufferId optional_parameter(const Builder& builder, int id) {
  return id < 0 ? kNone : builder.parameter(id);
}

template <class Op>
void forward(Builder& builder, const Node& node) {
  const Affine affine = affine_of(node);
  const BufferId x = builder.value(node.inputs[0]), y = builder.new_output(node);
  const BufferId gamma = optional_parameter(builder, affine.gamma);
  const BufferId beta = optional_parameter(builder, affine.beta);
  Step& step = builder.step(Op::op, node.name);
  step.reads = {x, gamma, beta};
  step.writes = {y};
  step.reuses = {{y, x}};
  step.workspace = workspace_of<Op>(builder, node, Pass::forward);
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    return [&kernels = at.kernels, shape = Op::shape_of(graph, node, at.n), x_data = at[x],
            gamma_data = at[gamma], beta_data = at[beta], y_data = at[y],
            workspace = at.workspace](Context& context) {
      Op::forward(kernels, context, shape, x_data, gamma_data, beta_data, y_data, workspace);
    };
  };
}

template <class Op>
void add_backward(Builder& builder, const Node& node, BufferId dx, BufferId dgamma,
                  BufferId dbeta) {
  const BufferId x = builder.value(node.inputs[0]), dy = builder.gradient(node.output);
  const BufferId gamma = optional_parameter(builder, affine_of(node).gamma);
  Step& step = builder.step(Op::backward_name, node.name);
  step.reads = {dy, x, gamma};
  step.writes = {dx, dgamma, dbeta};
  step.reuses = {{dx, dy}, {dx, x}};
  step.workspace = workspace_of<Op>(builder, node, Pass::backward_input);
  step.bind = [=, &graph = builder.graph, &node](const Binding& at) -> Run {
    const AffineGradients gradients = {at[dx], at[dgamma], at[dbeta]};
    return [=, kernel = at.kernels.*Op::backward, shape = Op::shape_of(graph, node, at.n),
            dy_data = at[dy], x_data = at[x], gamma_data = at[gamma],
            workspace = at.workspace](Context& context) {
      kernel(context, shape, dy_data, x_data, gamma_data, gradients, workspace);
    };
  };
}

template <class Op>
void backward(Builder& builder, const Node& node) {
  const Affine affine = affine_of(node);
  const int input = node.inputs[0];
  const BufferId dx = builder.needs_gradient(input) ? builder.new_like(input) : kNone;
  auto with_gradient = [&](int id, auto&& next) {
    if (id < 0 || !builder.needs_parameter_gradient(id)) return next(kNone);
    builder.add_parameter_gradient(id, next);
  };
  with_gradient(affine.gamma, [&](BufferId dgamma) {
    with_gradient(affine.beta,
                  [&](BufferId dbeta) { add_backward<Op>(builder, node, dx, dgamma, dbeta); });
  });
  if (dx != kNone) builder.add_gradient(input, dx);
}

}  // namespace

extern const Lowering kLayerNorm, kGroupNorm;
const Lowering kLayerNorm{"layer_norm",
                          1,
                          1,
                          0,
                          2,
                          {"scale", "center", "epsilon", "axes"},
                          false,
                          infer<LayerNorm>,
                          forward<LayerNorm>,
                          backward<LayerNorm>};
const Lowering kGroupNorm{"group_norm",
                          1,
                          1,
                          0,
                          2,
                          {"scale", "center", "epsilon", "groups"},
                          false,
                          infer<GroupNorm>,
                          forward<GroupNorm>,
                          backward<GroupNorm>};

}  // namespace convlet
