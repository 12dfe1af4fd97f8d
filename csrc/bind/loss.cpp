// Losses: value and gradient in one pass, reduced to their mean, their sum or not at all.
#include <pybind11/stl.h>

#include <limits>
#include <optional>

#include "bind/arrays.h"
#include "bind/bind.h"

namespace convlet::bind {

namespace {

enum class Reduction { mean, sum, none };

Reduction reduction_named(Call& op, const std::string& name) {
  if (name == "mean") return Reduction::mean;
  if (name == "sum") return Reduction::sum;
  if (name == "none") return Reduction::none;
  value_error(op, ": expected reduction \"mean\", \"sum\" or \"none\", got \"", name, '"');
}

// loss, or (loss, gradient).
py::object result(const py::object& loss, const std::optional<Output>& gradient) {
  if (!gradient) return loss;
  return py::make_tuple(loss, gradient->array);
}

// Adds the losses of the rows. On a stream the sum stays on the device, as a float; of nothing it
// is `of_nothing`, and so it is when `counts` is false: no row counts.
class RowSum {
 public:
  RowSum(Call& op, std::int64_t rows) : op_(op), rows_(rows) {}

  std::size_t bytes(const Kernels& kernels) const {
    return Workspace::padded<float>(rows_) + Workspace::padded<double>(kScratch) +
           (op_.on_stream() ? kernels.reduce_workspace(sum()) : 0);
  }
  // Where the losses of the rows go.
  float* take(Workspace& workspace) {
    total_ = workspace.take<double>(kScratch);
    losses_ = workspace.take<float>(rows_);
    rest_ = workspace.take<char>(0);
    return losses_;
  }
  void finish(const Kernels& kernels, Context& context, bool counts, float of_nothing,
              float* loss) {
    if (!counts || rows_ == 0) {
      op_.fill(kernels, context, 1, of_nothing, loss);
    } else if (op_.on_stream()) {
      kernels.reduce(context, sum(), ReduceFunction::sum, losses_, loss, rest_);
    } else {
      kernels.sum(context, rows_, losses_, total_);
      context.wait();
      loss[0] = static_cast<float>(total_[0]);
    }
  }

 private:
  static constexpr std::int64_t kScratch = 1 + kReductionParts;

  ReduceShape sum() const { return reduction({rows_}, {0}); }

  Call& op_;
  std::int64_t rows_;
  double* total_ = nullptr;
  float* losses_ = nullptr;
  void* rest_ = nullptr;
};

// The number that a mean over the rows divides by: with integer labels the sum of their weights,
// rows that are ignored left out; with probabilities the number of rows. As torch.
double mean_divisor(const SoftmaxCrossEntropyShape& shape, const std::vector<std::int32_t>& labels,
                    const float* class_weight) {
  if (!shape.integer_labels) return static_cast<double>(shape.N);
  double divisor = 0;
  for (std::int32_t label : labels)
    if (label >= 0) divisor += class_weight ? class_weight[label] : 1.0;
  return divisor;
}

py::object softmax_cross_entropy(const py::object& logits_value, const py::object& labels_value,
                                 const py::object& class_weight_value, double label_smoothing,
                                 std::optional<std::int64_t> ignore_index,
                                 const std::string& reduction_name, bool return_grad,
                                 float focal_gamma) {
  Call op("softmax_cross_entropy");
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

  // A copy of the labels is checked and used, whatever becomes of the caller's meanwhile.
  std::vector<std::int32_t> indices;
  const bool mean = reduction == Reduction::mean;
  std::optional<Tensor> weights;
  if (shape.integer_labels) {
    indices.resize(static_cast<std::size_t>(shape.N));
    check_labels(op, op.on_host(labels.tensor), shape.C, ignore_index ? &*ignore_index : nullptr,
                 indices.data());
    if (mean && class_weight) weights = op.on_host(class_weight->tensor);
  }
  const double divisor =
      mean ? mean_divisor(shape, indices, weights ? weights->as<const float>() : nullptr) : 1.0;
  const void* targets = shape.integer_labels
                            ? static_cast<const void*>(op.upload(indices.data(), indices.size()))
                            : labels.tensor.data;

  bool reduced = reduction != Reduction::none;
  Output loss = float_output(op, py::none(), reduced ? Shape{} : Shape{shape.N}, {});
  std::optional<Output> dlogits;
  if (return_grad) dlogits = float_output(op, py::none(), logits.shape(), {});

  RowSum sum(op, shape.N);
  op.run([&](const Kernels& kernels,
             int) { return Workspace::padded<float>(shape.N) + sum.bytes(kernels); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           float* scale = workspace.take<float>(shape.N);
           float* rows = sum.take(workspace);
           op.fill(kernels, context, shape.N, static_cast<float>(1.0 / divisor), scale);
           kernels.softmax_cross_entropy(
               context, shape, logits.f32(), targets, class_weight ? class_weight->f32() : nullptr,
               scale, reduced ? rows : loss.data, dlogits ? dlogits->data : nullptr, nullptr);
           // The mean of nothing is NaN, as in torch.
           if (reduced)
             sum.finish(kernels, context, divisor != 0,
                        mean ? std::numeric_limits<float>::quiet_NaN() : 0.0f, loss.data);
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
  Call op(kind_name.c_str());
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

  RowSum sum(op, shape.N);
  op.run([&](const Kernels& kernels,
             int) { return Workspace::padded<float>(shape.N) + sum.bytes(kernels); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           float* scale = workspace.take<float>(shape.N);
           float* rows = sum.take(workspace);
           // The kernel gives the mean of each row: of them a mean takes 1/N, a sum C times.
           const bool mean = reduction == Reduction::mean;
           const double factor =
               mean ? 1.0 / static_cast<double>(shape.N) : static_cast<double>(shape.C);
           op.fill(kernels, context, shape.N, static_cast<float>(factor), scale);
           kernels.elementwise_loss(context, shape, spec, prediction.f32(), target.f32(), scale,
                                    reduced ? rows : loss.data, gradient ? gradient->data : nullptr,
                                    nullptr);
           // The mean of nothing is NaN, as in torch.
           if (reduced)
             sum.finish(kernels, context, shape.C > 0,
                        mean ? std::numeric_limits<float>::quiet_NaN() : 0.0f, loss.data);
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
