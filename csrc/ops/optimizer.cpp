#include "ops/optimizer.h"

#include <cmath>

namespace convlet {
namespace {

const char* name_of(OptimizerKind kind) {
  switch (kind) {
    case OptimizerKind::sgd:
      return "sgd";
    case OptimizerKind::rmsprop:
      return "rmsprop";
    case OptimizerKind::adam:
      return "adam";
  }
  return "?";
}

void expect_rate(OptimizerKind kind, const char* argument, float value) {
  if (!(value >= 0.0f && value < 1.0f))
    value_error(name_of(kind), ": expected ", argument, " in [0,1), got ", value);
}

}  // namespace

int optimizer_slots(const OptimizerSpec& spec) {
  switch (spec.kind) {
    case OptimizerKind::sgd:
      return spec.momentum != 0.0f;
    case OptimizerKind::rmsprop:
      return 1 + spec.centered + (spec.momentum != 0.0f);
    case OptimizerKind::adam:
      return 2;
  }
  return 0;
}

const char* optimizer_slot_name(const OptimizerSpec& spec, int slot) {
  switch (spec.kind) {
    case OptimizerKind::sgd:
      return "momentum";
    case OptimizerKind::rmsprop:
      if (slot == 0) return "velocity";
      return slot == 1 && spec.centered ? "average_gradient" : "momentum";
    case OptimizerKind::adam:
      return slot == 0 ? "momentum" : "velocity";
  }
  return "?";
}

void check_optimizer(const OptimizerSpec& spec) {
  expect_rate(spec.kind, "momentum", spec.momentum);
  expect_rate(spec.kind, "rho", spec.rho);
  expect_rate(spec.kind, "beta_1", spec.beta_1);
  expect_rate(spec.kind, "beta_2", spec.beta_2);
  if (!(spec.epsilon > 0.0f && std::isfinite(spec.epsilon)))
    value_error(name_of(spec.kind), ": expected epsilon > 0, got ", spec.epsilon);
  if (!(spec.weight_decay >= 0.0f && std::isfinite(spec.weight_decay)))
    value_error(name_of(spec.kind), ": expected weight_decay >= 0, got ", spec.weight_decay);
  if (!(spec.clip_value >= 0.0f && std::isfinite(spec.clip_value)))
    value_error(name_of(spec.kind), ": expected clip_value >= 0 (0 is off), got ", spec.clip_value);
}

OptimizerStep optimizer_step(const OptimizerSpec& spec, double learning_rate, std::int64_t t) {
  double alpha = learning_rate;
  if (spec.kind == OptimizerKind::adam) {
    const double steps = static_cast<double>(t);
    alpha *= std::sqrt(1.0 - std::pow(static_cast<double>(spec.beta_2), steps)) /
             (1.0 - std::pow(static_cast<double>(spec.beta_1), steps));
  }
  return {static_cast<float>(learning_rate), static_cast<float>(alpha)};
}

}  // namespace convlet
