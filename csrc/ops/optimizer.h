// One update of every parameter in one pass over the flat buffers; all arithmetic is float32.
//   sgd      v = momentum*v - lr*g;  p += nesterov ? momentum*v - lr*g : v       (momentum 0: p -=
//   lr*g) rmsprop  v = rho*v + (1-rho)*g^2;  d = lr*g / (sqrt(v - (centered ? a^2 : 0)) + epsilon),
//   with
//            a = rho*a + (1-rho)*g;  momentum > 0: b = momentum*b + d, p -= b;  else p -= d
//   adam     m += (1-beta_1)(g-m);  v += (1-beta_2)(g^2-v);  p -= alpha*m / (sqrt(v) + epsilon),
//            alpha = lr*sqrt(1-beta_2^t) / (1-beta_1^t)
//   adamw    p -= lr*weight_decay*p, then adam
// These are Keras' forms (Kingma & Ba 2015 with epsilon-hat; Loshchilov & Hutter 2019).
// A running average of the parameters follows them: average = momentum*average + (1-momentum)*p.
#pragma once
#include <string>

#include "core/tensor.h"

namespace convlet {

enum class OptimizerKind { sgd, rmsprop, adam };
constexpr OptimizerKind kLastOptimizerKind = OptimizerKind::adam;

struct OptimizerSpec {
  OptimizerKind kind = OptimizerKind::sgd;
  float momentum = 0.0f;                 // sgd, rmsprop
  bool nesterov = false;                 // sgd
  float rho = 0.9f;                      // rmsprop
  bool centered = false;                 // rmsprop
  float beta_1 = 0.9f, beta_2 = 0.999f;  // adam
  float epsilon = 1e-7f;                 // rmsprop, adam
  float weight_decay = 0.0f;             // decoupled; any kind
  float clip_value = 0.0f;               // every gradient is limited to [-this, this]; 0: it is not
  float rate_scale = 1.0f;               // the factor of both rates of OptimizerStep
};

// What changes from step to step, read through a pointer so that a captured step can be replayed.
struct OptimizerStep {
  float learning_rate;
  float alpha;  // adam's bias-corrected rate; equal to learning_rate for the others
  float average_momentum = 0.0f;  // of the running average of the parameters
};

// How many flat buffers of state the optimizer keeps, each as long as the parameters.
constexpr int kMostOptimizerSlots = 3;
int optimizer_slots(const OptimizerSpec& spec);
const char* optimizer_slot_name(const OptimizerSpec& spec, int slot);

// ValueError unless every number is in its range (rates in [0,1), epsilon > 0, ...).
void check_optimizer(const OptimizerSpec& spec);

// The step's numbers for the t-th update (t from 1); powers are taken in float64.
OptimizerStep optimizer_step(const OptimizerSpec& spec, double learning_rate, std::int64_t t);

}  // namespace convlet
