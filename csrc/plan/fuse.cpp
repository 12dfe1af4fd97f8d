#include "plan/fuse.h"

#include <algorithm>
#include <cmath>

#include "plan/lowering.h"
#include "plan/lowering/batch_norm.h"
#include "plan/lowering/window.h"

namespace convlet {
namespace {

const Node* producer(const Graph& graph, int value) {
  int node = graph.values()[value].producer;
  return node < 0 ? nullptr : &graph.nodes()[node];
}

bool is_sigmoid(const Node* node) {
  return node && node->op == "activation" && activation_of(*node) == Activation::sigmoid;
}

// The loss that the graph itself computes: `spec.value` from `spec.target`.
void resolve_value(const Graph& graph, const std::string& where, ResolvedLoss& loss) {
  const std::vector<int>& targets = graph.targets();
  if (loss.spec.value < 0 || static_cast<std::size_t>(loss.spec.value) >= graph.values().size())
    value_error(where, ": there is no value ", loss.spec.value, " in this graph (it has ",
                graph.values().size(), ")");
  if (std::find(targets.begin(), targets.end(), loss.spec.target) == targets.end())
    value_error(where, ": expected a target of this graph, got value ", loss.spec.target);
  if (loss.spec.from_logits || loss.spec.label_smoothing != 0 || loss.spec.focal_gamma != 0 ||
      loss.spec.skip_missing)
    value_error(where,
                ": expected none of from_logits, label_smoothing, focal_gamma, skip_missing");
  loss.elementwise.kind = ElementwiseLoss::value;
  loss.input = loss.spec.value;
}

ResolvedLoss resolve(const Graph& graph, std::size_t index, const LossSpec& spec) {
  const std::string where = concat("losses[", index, "] (", spec.kind, ")");
  if (spec.output < 0 || static_cast<std::size_t>(spec.output) >= graph.outputs().size())
    value_error(where, ": there is no output ", spec.output, " (the graph has ",
                graph.outputs().size(), ")");
  ResolvedLoss loss;
  loss.spec = spec;
  loss.elementwise = {ElementwiseLoss::sigmoid_cross_entropy,
                      spec.label_smoothing,
                      spec.focal_gamma,
                      spec.positive_weight,
                      spec.negative_weight,
                      spec.skip_missing};
  check_elementwise_loss_spec(where.c_str(), loss.elementwise);
  loss.output = loss.input = graph.outputs()[static_cast<std::size_t>(spec.output)];
  const Node* last = producer(graph, loss.output);
  if (spec.kind == "softmax_cross_entropy") {
    loss.softmax = true;
    if (graph.shape(loss.output).rank() == 0)
      value_error(where, ": expected an output with an axis of classes, got shape ()");
    if (!spec.from_logits) {
      if (!last || last->op != "softmax")
        value_error(
            where, ": output '", graph.values()[loss.output].name,
            "' is not made by a softmax; end the model in a softmax, or compile the loss with"
            " from_logits=True");
      loss.input = last->inputs[0];
    }
    return loss;
  }
  if (spec.integer_labels)
    value_error(where, ": integer labels belong to softmax_cross_entropy only");
  if (spec.kind == "sigmoid_cross_entropy") {
    loss.elementwise.kind = ElementwiseLoss::sigmoid_cross_entropy;
  } else if (spec.kind == "binary_cross_entropy") {
    // On probabilities the gradient vanishes or overflows where they round to 0 or 1; on logits
    // never.
    bool logits = spec.from_logits || is_sigmoid(last);
    loss.elementwise.kind =
        logits ? ElementwiseLoss::sigmoid_cross_entropy : ElementwiseLoss::binary_cross_entropy;
    if (logits && !spec.from_logits) loss.input = last->inputs[0];
  } else if (spec.kind == "mean_squared_error") {
    loss.elementwise.kind = ElementwiseLoss::mean_squared_error;
    check_elementwise_loss_spec(where.c_str(), loss.elementwise);
  } else if (spec.kind == "value") {
    resolve_value(graph, where, loss);
  } else {
    value_error("losses[", index,
                "]: expected one of softmax_cross_entropy, sigmoid_cross_entropy, ",
                "binary_cross_entropy, mean_squared_error, value, got '", spec.kind, "'");
  }
  return loss;
}

// By node: whether an output or a loss depends on it. ValueError where an output, or a loss other
// than its own, depends on a target.
std::vector<bool> live_nodes(const Graph& graph, const std::vector<ResolvedLoss>& losses) {
  std::vector<bool> needed(graph.values().size(), false);
  for (int output : graph.outputs()) needed[output] = true;
  for (const ResolvedLoss& loss : losses) needed[loss.input] = true;
  const std::vector<Node>& nodes = graph.nodes();
  std::vector<bool> live(nodes.size(), false);
  for (std::size_t i = nodes.size(); i-- > 0;) {
    live[i] = needed[nodes[i].output];
    if (!live[i]) continue;
    for (int input : nodes[i].inputs) needed[input] = true;
  }
  for (int target : graph.targets()) {
    auto fills = [&](const ResolvedLoss& loss) { return loss.spec.target == target; };
    if (needed[target] && std::none_of(losses.begin(), losses.end(), fills))
      value_error("plan: an output depends on the target '", graph.values()[target].name,
                  "', which only its loss may");
  }
  return live;
}

// By value: how many nodes read it.
std::vector<int> count_readers(const Graph& graph, const std::vector<bool>& live) {
  std::vector<int> readers(graph.values().size(), 0);
  for (std::size_t i = 0; i < live.size(); ++i)
    if (live[i])
      for (int input : graph.nodes()[i].inputs) ++readers[static_cast<std::size_t>(input)];
  return readers;
}

Fusion nothing_fused(const Graph& graph, const std::vector<ResolvedLoss>& losses) {
  Fusion fusion;
  const std::size_t nodes = graph.nodes().size();
  fusion.live = live_nodes(graph, losses);
  for (const Node& node : graph.nodes()) fusion.writes.push_back(node.output);
  fusion.gradient_of = fusion.writes;
  fusion.activation_of.assign(nodes, -1);
  fusion.residual_of.assign(nodes, -1);
  fusion.pool_of.assign(nodes, -1);
  fusion.folded_into.assign(nodes, -1);
  fusion.bytes_of.assign(nodes, -1);
  fusion.scale_of.assign(nodes, -1);
  fusion.normalization_of.assign(nodes, -1);
  fusion.absorbed.assign(nodes, false);
  fusion.absorbed_backward.assign(nodes, false);
  fusion.writes_probabilities.assign(losses.size(), false);
  fusion.takes_bytes.assign(graph.inputs().size(), false);
  return fusion;
}

// Decides on one node at a time: whether it becomes part of the one before it.
struct Fuser {
  const Graph& graph;
  Mode mode;
  std::vector<bool> needs_gradient;  // by value
  std::vector<int> readers;          // by value: nodes, losses and graph outputs
  bool conv2d_adds;                  // whether the kernel of a conv2d can add a residual
  const ByteConv2d& conv2d_bytes;

  const Node& node(int index) const { return graph.nodes()[static_cast<std::size_t>(index)]; }
  int producer(int value) const { return graph.values()[static_cast<std::size_t>(value)].producer; }

  // The node whose step makes a value: its producer, or the one that the producer is fused into.
  int maker(const Fusion& fusion, int value) const {
    for (std::size_t i = 0; i < fusion.writes.size(); ++i)
      if (fusion.live[i] && !fusion.absorbed[i] && fusion.writes[i] == value)
        return static_cast<int>(i);
    return -1;
  }

  bool adds_residual(const Node& conv2d) const {
    return conv2d_adds && conv2d.op == "conv2d" && conv2d.attributes.integer("groups", 1) == 1;
  }

  // An activation into the kernel that makes its input, unless the backward needs that input.
  void fuse_activation(Fusion& fusion, int index) const {
    const Node& own = node(index);
    const int input = own.inputs[0], before = maker(fusion, input);
    if (before < 0 || readers[input] != 1 || fusion.activation_of[before] >= 0) return;
    const Activation activation = activation_of(own);
    if (alpha_of(own) != default_alpha(activation)) return;
    const bool normalization = node(before).op == "batch_norm";
    if (normalization) {
      // The kernel makes the input again from its own; not so when a residual was added.
      const bool from_output = gradient_from_output(activation) || !needs_gradient[input];
      if (!batch_norm_applies(activation)) return;
      if (fusion.residual_of[before] >= 0 && !from_output) return;
    } else {
      if (!lowering_of(node(before).name, node(before).op).fuses_activation) return;
      if (needs_gradient[input] && !gradient_from_output(activation)) return;
    }
    fusion.activation_of[before] = index;
    absorb(fusion, before, index, normalization);
  }

  // The sum of the output of a batch_norm or conv2d and a value that exists before it, into that
  // node.
  void fuse_residual(Fusion& fusion, int index) const {
    const Node& own = node(index);
    if (own.inputs.size() != 2) return;
    for (int side : {0, 1}) {
      const int input = own.inputs[side], other = own.inputs[1 - side];
      const int before = producer(input);
      if (before < 0 || readers[input] != 1) continue;
      const bool normalization = node(before).op == "batch_norm";
      if (!normalization && !adds_residual(node(before))) continue;
      if (producer(other) >= before || graph.shape(input) != graph.shape(other)) continue;
      fusion.residual_of[before] = other;
      absorb(fusion, before, index, normalization);
      return;
    }
  }

  // A max pooling into the conv2d before it, with what is between them; their backward is one too.
  void fuse_pool(Fusion& fusion, int index) const {
    const Node& own = node(index);
    const int input = own.inputs[0], before = maker(fusion, input);
    if (before < 0 || readers[input] != 1 || node(before).op != "conv2d") return;
    if (fusion.residual_of[before] >= 0) return;
    const int activation = fusion.activation_of[before];
    if (activation >= 0 && activation_of(node(activation)) != Activation::relu) return;
    if (!conv2d_pool_fits(conv2d_shape(graph, node(before), 1), pool2d_shape(graph, own, 1)))
      return;
    fusion.pool_of[before] = index;
    absorb(fusion, before, index, true);
    if (activation >= 0) fusion.absorbed_backward[activation] = true;
  }

  // A batch_norm by given statistics into the weights of the conv2d or dense before it, which then
  // adds what the batch_norm did.
  void fold(Fusion& fusion, int index) const {
    const int input = node(index).inputs[0], before = producer(input);
    if (before < 0 || readers[input] != 1) return;
    if (node(before).op != "conv2d" && node(before).op != "dense") return;
    const int residual = fusion.residual_of[index];
    if (residual >= 0 && !(adds_residual(node(before)) && producer(residual) < before)) return;
    fusion.residual_of[before] = residual;
    fusion.folded_into[before] = index;
    absorb(fusion, before, index, false);
  }

  // The node that alone reads a value, or -1.
  int only_reader(const Fusion& fusion, int value) const {
    if (readers[value] != 1) return -1;
    for (std::size_t i = 0; i < fusion.live.size(); ++i)
      if (fusion.live[i] && graph.nodes()[i].inputs == std::vector<int>{value})
        return static_cast<int>(i);
    return -1;
  }

  // A graph input, a scale of it and a normalization by given numbers, into the conv2d that alone
  // reads it, if `bytes`. Returns whether that could be done. 255 times the factor must be a
  // number: who looks for one that is not finds it in the scale. The numbers of a normalization
  // change, so where they are finite and overflow it is found in the conv2d.
  bool fuse_bytes(Fusion& fusion, int input, bool bytes) const {
    int conv2d = only_reader(fusion, input), scale = -1, normalization = -1;
    if (conv2d >= 0 && node(conv2d).op == "scale") {
      const LinearScale by = linear_scale_of(node(conv2d));
      if (!std::isfinite(by.factor * 255.0f + by.offset)) return false;
      scale = conv2d;
      conv2d = only_reader(fusion, node(scale).output);
    }
    if (conv2d >= 0 && node(conv2d).op == "batch_norm" && only_normalises(node(conv2d), mode)) {
      normalization = conv2d;
      conv2d = only_reader(fusion, node(normalization).output);
    }
    if (conv2d < 0 || node(conv2d).op != "conv2d" || fusion.residual_of[conv2d] >= 0) return false;
    const int pool = fusion.pool_of[conv2d];
    const PooledConv2dShape shape(graph, node(conv2d), pool < 0 ? nullptr : &node(pool), 1);
    if (!conv2d_bytes.serves(shape.conv, shape.pooling())) return false;
    if (!bytes) return true;
    fusion.bytes_of[conv2d] = input;
    fusion.scale_of[conv2d] = scale;
    fusion.normalization_of[conv2d] = normalization;
    for (int before : {scale, normalization})
      if (before >= 0) fusion.absorbed[before] = true;
    return true;
  }

  void absorb(Fusion& fusion, int into, int index, bool backward) const {
    fusion.writes[into] = fusion.writes[index];
    fusion.absorbed[index] = true;
    if (!backward) return;
    fusion.gradient_of[into] = fusion.writes[index];
    fusion.absorbed_backward[index] = true;
  }
};

}  // namespace

Activation activation_of(const Node& node) {
  return activation_named(node.name.c_str(), node.attributes.text("activation"));
}

float alpha_of(const Node& node) {
  const Activation activation = activation_of(node);
  const float usual = default_alpha(activation);
  if (!node.attributes.has("alpha")) return usual;
  if (usual == 0)
    value_error(node.name, ": activation ", name_of(activation), " takes no attribute 'alpha'");
  return check_alpha(node.name.c_str(), "attribute 'alpha'", node.attributes.number("alpha"));
}

LinearScale linear_scale_of(const Node& node) {
  return {static_cast<float>(node.attributes.number("factor")),
          static_cast<float>(node.attributes.number("offset", 0))};
}

std::vector<ResolvedLoss> resolve_losses(const Graph& graph, const std::vector<LossSpec>& losses) {
  std::vector<ResolvedLoss> resolved;
  for (std::size_t i = 0; i < losses.size(); ++i) resolved.push_back(resolve(graph, i, losses[i]));
  return resolved;
}

std::vector<bool> values_needing_gradients(const Graph& graph, Mode mode) {
  std::vector<bool> needs(graph.values().size(), false);
  if (mode != Mode::train) return needs;
  for (const Node& node : graph.nodes()) {
    bool trainable = false;
    for (int id : node.parameters) trainable |= graph.parameters()[id].trainable;
    for (int input : node.inputs) trainable |= needs[input];
    needs[node.output] = trainable;
  }
  return needs;
}

Fusion fuse(const Graph& graph, const PlanOptions& options, const Kernels& kernels,
            const std::vector<ResolvedLoss>& losses, const std::vector<bool>& bytes) {
  Fusion fusion = nothing_fused(graph, losses);
  if (!options.fuse) return fusion;

  std::vector<int> forward_readers = count_readers(graph, fusion.live);
  for (const ResolvedLoss& loss : losses) ++forward_readers[loss.input];
  std::vector<int> readers = forward_readers;
  for (int output : graph.outputs()) ++readers[output];

  const bool train = options.mode == Mode::train;
  const Fuser fuser{graph,
                    options.mode,
                    values_needing_gradients(graph, options.mode),
                    readers,
                    !train && kernels.conv2d_packed.run,
                    kernels.conv2d_bytes};
  auto decide = [&](const char* op, void (Fuser::*decision)(Fusion&, int) const) {
    for (std::size_t i = 0; i < fusion.live.size(); ++i)
      if (fusion.live[i] && graph.nodes()[i].op == op)
        (fuser.*decision)(fusion, static_cast<int>(i));
  };
  decide("add", &Fuser::fuse_residual);
  if (!train) decide("batch_norm", &Fuser::fold);
  decide("activation", &Fuser::fuse_activation);
  if (kernels.conv2d_pool) decide("max_pool2d", &Fuser::fuse_pool);
  for (std::size_t i = 0; kernels.conv2d_bytes.run && i < bytes.size(); ++i)
    fusion.takes_bytes[i] = fuser.fuse_bytes(fusion, graph.inputs()[i], bytes[i]);

  for (std::size_t i = 0; i < losses.size(); ++i) {
    int softmax = graph.values()[losses[i].output].producer;
    bool on_logits = losses[i].softmax && losses[i].input != losses[i].output;
    if (!on_logits || forward_readers[losses[i].output] > 0 || fusion.absorbed[softmax]) continue;
    fusion.absorbed[softmax] = true;
    fusion.writes_probabilities[i] = true;
  }
  return fusion;
}

}  // namespace convlet
