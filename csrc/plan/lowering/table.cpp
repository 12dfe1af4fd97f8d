// The table of ops, and the checks that every op shares.
#include <algorithm>

#include "plan/lowering.h"

namespace convlet {

extern const Lowering kConv2d, kDense;
extern const Lowering kMaxPool2d, kAvgPool2d, kGlobalMaxPool2d, kGlobalAvgPool2d;
extern const Lowering kActivation, kSoftmax, kLogSoftmax, kDropout;
extern const Lowering kBatchNorm, kLayerNorm, kGroupNorm;
extern const Lowering kReshape, kPad2d, kConcatenate;
extern const Lowering kAdd, kMultiply, kBinary, kWhere, kUnary, kScale;
extern const Lowering kParameter, kReduce, kTranspose, kSlice, kMatmul, kOneHot, kUpsample2d;
extern const Lowering kAttention, kSimpleRnn, kLstm, kGru;
extern const Lowering kAugment;

namespace {

const Lowering* const kTable[] = {
    &kConv2d,      &kDense,      &kMaxPool2d,  &kAvgPool2d, &kGlobalMaxPool2d, &kGlobalAvgPool2d,
    &kActivation,  &kSoftmax,    &kLogSoftmax, &kDropout,   &kReshape,         &kPad2d,
    &kConcatenate, &kAdd,        &kMultiply,   &kScale,     &kBinary,          &kWhere,
    &kUnary,       &kParameter,  &kReduce,     &kTranspose, &kSlice,           &kMatmul,
    &kOneHot,      &kUpsample2d, &kAttention,  &kBatchNorm, &kLayerNorm,       &kGroupNorm,
    &kSimpleRnn,   &kLstm,       &kGru,        &kAugment,
};

std::string range(int least, int most) {
  if (least == most) return concat(least);
  return most == kAnyNumber ? concat("at least ", least) : concat(least, " to ", most);
}

void check_count(const Node& node, const char* what, std::size_t count, int least, int most) {
  if (static_cast<int>(count) < least || static_cast<int>(count) > most)
    value_error(node.name, ": ", node.op, " expected ", range(least, most), " ", what, ", got ",
                count);
}

}  // namespace

const Lowering& lowering_of(const std::string& name, const std::string& op) {
  std::string known;
  for (const Lowering* lowering : kTable) {
    if (op == lowering->op) return *lowering;
    known += (known.empty() ? "" : ", ") + std::string(lowering->op);
  }
  value_error(name, ": unknown op '", op, "'; expected one of ", known);
}

void check_signature(const Lowering& lowering, const Node& node) {
  check_count(node, "inputs", node.inputs.size(), lowering.min_inputs, lowering.max_inputs);
  check_count(node, "parameters", node.parameters.size(), lowering.min_parameters,
              lowering.max_parameters);
  for (const auto& [name, value] : node.attributes.values()) {
    auto same = [&, &name = name](const char* known) { return name == known; };
    if (std::any_of(lowering.attributes.begin(), lowering.attributes.end(), same)) continue;
    std::string known;
    for (const char* attribute : lowering.attributes)
      known += (known.empty() ? "" : ", ") + std::string(attribute);
    value_error(node.name, ": ", node.op, " has no attribute '", name,
                "'; expected one of: ", known.empty() ? "none" : known);
  }
}

void check_rank(const Graph& graph, const Node& node, int rank, const char* axes) {
  const Shape& sample = graph.shape(node.inputs[0]);
  if (sample.rank() != rank)
    value_error(node.name, ": ", node.op, " expected samples of shape ", axes, ", got ", sample);
}

}  // namespace convlet
