// Losses: value and gradient in one pass, reduced to their mean, their sum or not at all.
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "bind/run.h"

namespace convlet::bind {

namespace {

enum class Reduction { mean, sum, none };

Reduction reduction_named(const char* op, const std::string& name) {
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  if (name == "none") return Reduction::none;
  value_error(op, ": expected reduction \"mean\", \"sum\" or \"none\", got \"", name, '"');
}

std::int64_t reduction_scratch() {
  return 1 + kReductionParts;
}

// loss, or (loss, gradient).
py::object result(const py::array& loss, const std::optional<Output>& gradient) {
  if (!gradient) return loss;
  return py::make_tuple(loss, gradient->array);
}

// The number that a mean over the rows divides by: with integer labels the sum of their weights,
// rows that are ignored left out; with probabilities the number of rows. As torch.
double mean_divisor(const SoftmaxCrossEntropyShape& shape, const std::int32_t* labels,
                    const float* class_weight) {
  if (!shape.integer_labels) return static_cast<double>(shape.N);
  double divisor = 0;
  for (std::int64_t n = 0; n < shape.N; ++n)
    if (labels[n] >= 0) divisor += class_weight ? class_weight[labels[n]] : 1.0;
  return divisor;
}

py::object softmax_cross_entropy(const py::object& logits_value, const py::object& labels_value,
                                 const py::object& class_weight_value, double label_smoothing,
                                 std::optional<std::int64_t> ignore_index,
                                 const std::string& reduction_name, bool return_grad,
                                 float focal_gamma) {
  const char* op = "softmax_cross_entropy";
  Input logits = float_input(op, "logits", logits_value, "(N,C)");
  Input labels = array_input(op, "labels", labels_value, nullptr,
                             {DType::int32, DType::int64, DType::uint8, DType::float32});
  SoftmaxCrossEntropyShape shape = check_softmax_cross_entropy(
      op, logits.shape(), labels.tensor, static_cast<float>(label_smoothing),
      ignore_index ? &*ignore_index : nullptr);
  check_focal_gamma(op, focal_gamma);
  shape.focal_gamma = focal_gamma;
  std::optional<Input> class_weight;
  if (!class_weight_value.is_none()) {
    class_weight = float_input(op, "class_weight", class_weight_value, "(C,)");
    expect_shape(op, "class_weight", "(C,)", {shape.C}, class_weight->shape());
  }
  Reduction reduction = reduction_named(op, reduction_name);

  bool reduced = reduction != Reduction::none;
  Output loss = float_output(op, py::none(), reduced ? Shape{} : Shape{shape.N}, {});
  std::optional<Output> dlogits;
  if (return_grad) dlogits = float_output(op, py::none(), logits.shape(), {});

  run(
      [&](const Kernels&, int) {
        return 2 * Workspace::padded<float>(shape.N) + Workspace::padded<std::int32_t>(shape.N) +
               Workspace::padded<double>(reduction_scratch());
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        float* scale = workspace.take<float>(shape.N);
        float* rows = workspace.take<float>(shape.N);
        std::int32_t* indices = workspace.take<std::int32_t>(shape.N);
        double* total = workspace.take<double>(reduction_scratch());
        const float* weights = class_weight ? class_weight->f32() : nullptr;

        // A copy of the labels is checked and used, whatever becomes of the caller's meanwhile.
        if (shape.integer_labels)
          check_labels(op, labels.tensor, shape.C, ignore_index ? &*ignore_index : nullptr,
                       indices);
        double divisor = reduction == Reduction::mean ? mean_divisor(shape, indices, weights) : 1.0;
        std::fill(scale, scale + shape.N, static_cast<float>(1.0 / divisor));
        kernels.softmax_cross_entropy(
            context, shape, logits.f32(), shape.integer_labels ? indices : labels.tensor.data,
            weights, scale, reduced ? rows : loss.data, dlogits ? dlogits->data : nullptr, nullptr);
        if (reduced) {
          kernels.sum(context, shape.N, rows, total);
          context.wait();
          // The mean of nothing is NaN, as in torch.
          loss.data[0] =
              divisor == 0 ? std::numeric_limits<float>::quiet_NaN() : static_cast<float>(total[0]);
        }
      });
  return result(loss.array, dlogits);
}

ElementwiseLoss elementwise_loss_named(const std::string& name) {
  if (name == "sigmoid_cross_entropy") return ElementwiseLoss::sigmoid_cross_entropy;
  if (name == "mean_squared_error") return ElementwiseLoss::mean_squared_error;
  if (name == "binary_cross_entropy") return ElementwiseLoss::binary_cross_entropy;
  value_error(
      "elementwise_loss: expected kind \"sigmoid_cross_entropy\", \"mean_squared_error\" or "
      "\"binary_cross_entropy\", got \"",
      name, '"');
}

// For a mean or a sum the first axis makes the rows, whatever the rank; for neither each element is
// one.
RowsShape rows_of(const Shape& shape, Reduction reduction) {
  std::int64_t elements = shape.elements();
  if (reduction == Reduction::none) return {elements, 1};
  std::int64_t rows = shape.rank() > 0 ? shape[0] : 1;
  return {rows, rows > 0 ? elements / rows : 0};
}

py::object elementwise_loss(const std::string& kind_name, const py::object& prediction_value,
                            const py::object& target_value, double label_smoothing,
                            const std::string& reduction_name, bool return_grad, float focal_gamma,
                            std::optional<float> focal_alpha) {
  ElementwiseLossSpec spec;
  spec.kind = elementwise_loss_named(kind_name);
  const char* op = kind_name.c_str();
  bool logits = spec.kind == ElementwiseLoss::sigmoid_cross_entropy;
  const char* prediction_name = logits ? "logits" : "pred";
  const char* target_name = logits ? "targets" : "target";
  Input prediction = float_input(op, prediction_name, prediction_value, nullptr);
  Input target = float_input(op, target_name, target_value, nullptr);
  check_elementwise_loss(op, prediction.shape(), target.shape(), prediction_name, target_name);
  spec.label_smoothing = static_cast<float>(label_smoothing);
  spec.focal_gamma = focal_gamma;
  if (focal_alpha) {
    spec.positive_weight = *focal_alpha;
    spec.negative_weight = 1.0f - *focal_alpha;
  }
  check_elementwise_loss_spec(op, spec);
  Reduction reduction = reduction_named(op, reduction_name);

  RowsShape shape = rows_of(prediction.shape(), reduction);
  bool reduced = reduction != Reduction::none;
  Output loss = float_output(op, py::none(), reduced ? Shape{} : prediction.shape(), {});
  std::optional<Output> gradient;
  if (return_grad) gradient = float_output(op, py::none(), prediction.shape(), {});

  run(
      [&](const Kernels&, int) {
        return 2 * Workspace::padded<float>(shape.N) +
               Workspace::padded<double>(reduction_scratch());
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        float* scale = workspace.take<float>(shape.N);
        float* rows = workspace.take<float>(shape.N);
        double* total = workspace.take<double>(reduction_scratch());

        // The kernel gives the mean of each row: of them a mean takes 1/N, a sum C times.
        double factor = reduction == Reduction::mean ? 1.0 / static_cast<double>(shape.N)
                                                     : static_cast<double>(shape.C);
        std::fill(scale, scale + shape.N, static_cast<float>(factor));
        kernels.elementwise_loss(context, shape, spec, prediction.f32(), target.f32(), scale,
                                 reduced ? rows : loss.data, gradient ? gradient->data : nullptr,
                                 nullptr);
        if (!reduced) return;
        kernels.sum(context, shape.N, rows, total);
        context.wait();
        if (shape.N > 0 && shape.C > 0)
          loss.data[0] = static_cast<float>(total[0]);
        else  // the mean of nothing is NaN, as in torch
          loss.data[0] =
              reduction == Reduction::mean ? std::numeric_limits<float>::quiet_NaN() : 0.0f;
      });
  return result(loss.array, gradient);
}

}  // namespace

void bind_loss(py::module_& module) {
  using py::arg;
  module.def("softmax_cross_entropy", softmax_cross_entropy, arg("logits"), arg("labels"),
             arg("class_weight"), arg("label_smoothing"), arg("ignore_index"), arg("reduction"),
             arg("return_grad"), arg("focal_gamma") = 0.0f);
  module.def("elementwise_loss", elementwise_loss, arg("kind"), arg("prediction"), arg("target"),
             arg("label_smoothing"), arg("reduction"), arg("return_grad"),
             arg("focal_gamma") = 0.0f, arg("focal_alpha") = py::none());
}

}  // namespace convlet::bind
