#include "plan/padding.h"

#include "plan/fuse.h"
#include "plan/lowering/window.h"

namespace convlet {
namespace {

using Padding = std::vector<std::int64_t>;  // top, bottom, left, right

const Node* producer(const Graph& graph, int value) {
  const int node = graph.values()[static_cast<std::size_t>(value)].producer;
  return node < 0 ? nullptr : &graph.nodes()[static_cast<std::size_t>(node)];
}

bool is_relu(const Node* node) {
  return node && node->op == "activation" && activation_of(*node) == Activation::relu;
}

Padding sum(const Padding& a, const Padding& b) {
  return {a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3]};
}

// The padding of `node` together with that of `pad`, which it reads; empty where it may not have
// it.
Padding merged(const Graph& graph, const Node& node, const Node& pad) {
  const Padding zeros = pad.attributes.integers("pad", 4);
  if (node.op == "conv2d") {
    const Conv2dShape s = conv2d_shape(graph, node, 1);
    return sum(zeros, {s.pad_top, s.pad_bottom, s.pad_left, s.pad_right});
  }
  if (!is_relu(producer(graph, pad.inputs[0])) || node.attributes.boolean("ceil_mode", false))
    return {};
  const Pool2dShape s = pool2d_shape(graph, node, 1);
  const Padding all = sum(zeros, {s.pad_top, s.pad_bottom, s.pad_left, s.pad_right});
  const bool fits = all[0] <= s.R / 2 && all[1] <= s.R / 2 && all[2] <= s.S / 2 &&
                    all[3] <= s.S / 2 && s.dilation_h == 1 && s.dilation_w == 1;
  return fits ? all : Padding();
}

}  // namespace

Graph with_merged_padding(Graph graph) {
  for (std::size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node& node = graph.nodes()[i];
    if (node.op != "conv2d" && node.op != "max_pool2d") continue;
    const Node* pad = producer(graph, node.inputs[0]);
    if (!pad || pad->op != "pad2d") continue;
    const Padding padding = merged(graph, node, *pad);
    if (padding.empty()) continue;
    std::map<std::string, Attribute> attributes = node.attributes.values();
    attributes.erase("padding");
    attributes["pad"] = padding;
    graph.change_node(static_cast<int>(i), pad->inputs, Attributes(node.name, attributes));
  }
  return graph;
}

}  // namespace convlet
