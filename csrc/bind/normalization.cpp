// batch_norm, layer_norm and group_norm, and their gradients.
#include "bind/arrays.h"
#include "bind/bind.h"

namespace convlet::bind {

namespace {

// One value per channel.
Input channel_input(Call& op, const char* name, const py::object& value, std::int64_t channels) {
  Input input = float_input(op, name, value, "(C,)");
  expect_shape(op, name, "(C,)", {channels}, input.shape());
  return input;
}

// The same, or no values at all for None.
Input optional_input(Call& op, const char* name, const py::object& value, std::int64_t channels) {
  if (value.is_none()) return {};
  return channel_input(op, name, value, channels);
}

// A moving average that the op changes, apart from the `others`.
Output average_output(Call& op, const char* name, const py::object& value,
                      std::initializer_list<const Input*> others) {
  Output output = float_in_place(op, name, value);
  for (const Input* other : others)
    if (output.extent.overlaps(other->extent))
      value_error(op, ": expected ", name, " to be apart from ", other->name,
                  ", got arrays that share memory");
  return output;
}

struct Statistics {
  float *mean, *variance;
};

// The statistics of x in workspace.
Statistics statistics_of(const Kernels& kernels, Context& context, const RowsShape& rows,
                         const float* x, Workspace& workspace) {
  Statistics of_x{workspace.take<float>(rows.C), workspace.take<float>(rows.C)};
  void* space =
      workspace.take<char>(static_cast<std::int64_t>(kernels.channel_statistics_workspace(rows)));
  kernels.channel_statistics(context, rows, x, of_x.mean, of_x.variance, space);
  return of_x;
}

std::size_t statistics_bytes(const Kernels& kernels, const RowsShape& rows) {
  return 2 * Workspace::padded<float>(rows.C) + Workspace::padded<char>(static_cast<std::int64_t>(
                                                    kernels.channel_statistics_workspace(rows)));
}

// Normalizes x by arrays that the caller gives.
void normalize_by_given(Call& op, const BatchNormShape& shape, const BatchNormInputs& inputs,
                        float* y) {
  op.run([&](const Kernels& kernels, int) { return kernels.batch_norm_workspace(shape); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.batch_norm(context, shape, inputs, y, workspace.data());
         });
}

// Normalizes x by its own statistics, which the averages follow unless they are null.
void normalize_by_own(Call& op, const BatchNormShape& shape, BatchNormInputs inputs,
                      double momentum, float* mean, float* variance, float* y) {
  RowsShape rows{shape.N, shape.C};
  op.run([&](const Kernels& kernels,
             int) { return statistics_bytes(kernels, rows) + kernels.batch_norm_workspace(shape); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           Statistics of_x = statistics_of(kernels, context, rows, inputs.x, workspace);
           inputs.mean = of_x.mean;
           inputs.variance = of_x.variance;
           void* space =
               workspace.take<char>(static_cast<std::int64_t>(kernels.batch_norm_workspace(shape)));
           kernels.batch_norm(context, shape, inputs, y, space);
           if (!mean || shape.N == 0) return;
           kernels.moving_average(context, shape.C, momentum, nullptr, of_x.mean, mean);
           kernels.moving_average(context, shape.C, momentum, nullptr, of_x.variance, variance);
         });
}

py::object batch_norm(const py::object& x_value, const py::object& gamma_value,
                      const py::object& beta_value, const py::object& mean_value,
                      const py::object& var_value, bool training, double momentum, double epsilon,
                      const py::object& out) {
  Call op("batch_norm");
  Input x = float_input(op, "x", x_value, nullptr);
  BatchNormShape shape = check_batch_norm(op, x.shape(), training, epsilon);
  check_momentum(op, momentum);
  Input gamma = optional_input(op, "gamma", gamma_value, shape.C);
  Input beta = optional_input(op, "beta", beta_value, shape.C);
  const bool averages = !training || !mean_value.is_none() || !var_value.is_none();
  auto average_input = averages ? channel_input : optional_input;
  Input mean = average_input(op, "mean", mean_value, shape.C);
  Input var = average_input(op, "var", var_value, shape.C);
  Output y = float_output(op, out, x.shape(), {&gamma, &beta, &mean, &var}, {&x});
  BatchNormInputs inputs = {x.f32(), mean.f32(), var.f32(), gamma.f32(), beta.f32(), nullptr};
  if (!training) {
    normalize_by_given(op, shape, inputs, y.data);
  } else if (!averages) {
    normalize_by_own(op, shape, inputs, momentum, nullptr, nullptr, y.data);
  } else {
    const Output new_mean = average_output(op, "mean", mean_value, {&x, &gamma, &beta});
    const Output new_var = average_output(op, "var", var_value, {&x, &gamma, &beta, &mean});
    normalize_by_own(op, shape, inputs, momentum, new_mean.data, new_var.data, y.data);
  }
  return y.array;
}

// (dx, dgamma, dbeta)
py::tuple batch_norm_backward(const py::object& dy_value, const py::object& x_value,
                              const py::object& gamma_value, const py::object& mean_value,
                              const py::object& var_value, bool training, double epsilon) {
  Call op("batch_norm_backward");
  Input dy = float_input(op, "dy", dy_value, nullptr);
  Input x = float_input(op, "x", x_value, nullptr);
  BatchNormShape shape = check_batch_norm(op, x.shape(), training, epsilon);
  RowsShape rows{shape.N, shape.C};
  expect_shape(op, "dy", "", x.shape(), dy.shape());
  Input gamma = optional_input(op, "gamma", gamma_value, shape.C);
  auto statistics_input = training ? optional_input : channel_input;
  Input mean = statistics_input(op, "mean", mean_value, shape.C);
  Input var = statistics_input(op, "var", var_value, shape.C);
  Output dx = float_output(op, py::none(), x.shape(), {});
  Output dgamma = float_output(op, py::none(), {shape.C}, {});
  Output dbeta = float_output(op, py::none(), {shape.C}, {});
  op.run(
      [&](const Kernels& kernels, int) {
        return statistics_bytes(kernels, rows) + kernels.batch_norm_backward_workspace(shape);
      },
      [&](const Kernels& kernels, Context& context, Workspace& workspace) {
        BatchNormInputs inputs = {x.f32(), mean.f32(), var.f32(), gamma.f32(), nullptr, nullptr};
        if (training) {
          Statistics of_x = statistics_of(kernels, context, rows, x.f32(), workspace);
          inputs.mean = of_x.mean;
          inputs.variance = of_x.variance;
        }
        void* space = workspace.take<char>(
            static_cast<std::int64_t>(kernels.batch_norm_backward_workspace(shape)));
        kernels.batch_norm_backward(context, shape, inputs, dy.f32(), nullptr,
                                    {dx.data, dgamma.data, dbeta.data, nullptr}, space);
      });
  return py::make_tuple(dx.array, dgamma.array, dbeta.array);
}

// gamma or beta of layer_norm and group_norm; no values at all for None.
Input affine_input(Call& op, const char* name, const py::object& value, const Shape& shape) {
  if (value.is_none()) return {};
  Input input = float_input(op, name, value, nullptr);
  expect_shape(op, name, "", shape, input.shape());
  return input;
}

py::object layer_norm(const py::object& x_value, const py::object& gamma_value,
                      const py::object& beta_value, std::int64_t axes, double epsilon,
                      const py::object& out) {
  Call op("layer_norm");
  Input x = float_input(op, "x", x_value, nullptr);
  LayerNormShape shape = check_layer_norm(op, x.shape(), axes, epsilon);
  Input gamma = affine_input(op, "gamma", gamma_value, last_axes(x.shape(), axes));
  Input beta = affine_input(op, "beta", beta_value, last_axes(x.shape(), axes));
  Output y = float_output(op, out, x.shape(), {&gamma, &beta}, {&x});
  op.run([&](const Kernels& kernels, Context& context) {
    kernels.layer_norm(context, shape, x.f32(), gamma.f32(), beta.f32(), y.data);
  });
  return y.array;
}

// Null for groups means as many as channels.
GroupNormShape group_norm_shape(Call& op, const Shape& x, const std::int64_t* groups,
                                double epsilon) {
  if (!groups && x.rank() > 0 && x.back() == 0)
    value_error(op, ": expected x (N,...,C) with C >= 1, got shape ", x);
  return check_group_norm(op, x, groups ? *groups : x.rank() > 0 ? x.back() : 1, epsilon);
}

py::object group_norm(Call& op, const py::object& x_value, const py::object& gamma_value,
                      const py::object& beta_value, const std::int64_t* groups, double epsilon,
                      const py::object& out) {
  Input x = float_input(op, "x", x_value, nullptr);
  GroupNormShape shape = group_norm_shape(op, x.shape(), groups, epsilon);
  Input gamma = affine_input(op, "gamma", gamma_value, {shape.C});
  Input beta = affine_input(op, "beta", beta_value, {shape.C});
  Output y = float_output(op, out, x.shape(), {&gamma, &beta}, {&x});
  op.run([&](const Kernels& kernels,
             int threads) { return kernels.group_norm_workspace(shape, Pass::forward, threads); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.group_norm(context, shape, x.f32(), gamma.f32(), beta.f32(), y.data,
                              workspace.data());
         });
  return y.array;
}

// (dx, dgamma, dbeta) of an op whose gamma has shape `affine`: bytes(kernels, threads) and
// kernel(kernels, context, dy, x, gamma, gradients, workspace).
template <class Bytes, class Kernel>
py::tuple affine_backward(Call& op, const Input& x, const Shape& affine, const py::object& dy_value,
                          const py::object& gamma_value, Bytes&& bytes, Kernel&& kernel) {
  Input dy = float_input(op, "dy", dy_value, nullptr);
  expect_shape(op, "dy", "", x.shape(), dy.shape());
  Input gamma = affine_input(op, "gamma", gamma_value, affine);
  Output dx = float_output(op, py::none(), x.shape(), {});
  Output dgamma = float_output(op, py::none(), affine, {});
  Output dbeta = float_output(op, py::none(), affine, {});
  op.run(bytes, [&](const Kernels& kernels, Context& context, Workspace& workspace) {
    kernel(kernels, context, dy.f32(), x.f32(), gamma.f32(),
           AffineGradients{dx.data, dgamma.data, dbeta.data}, workspace.data());
  });
  return py::make_tuple(dx.array, dgamma.array, dbeta.array);
}

py::tuple layer_norm_backward(const py::object& dy, const py::object& x_value,
                              const py::object& gamma, std::int64_t axes, double epsilon) {
  Call op("layer_norm_backward");
  Input x = float_input(op, "x", x_value, nullptr);
  LayerNormShape shape = check_layer_norm(op, x.shape(), axes, epsilon);
  return affine_backward(
      op, x, last_axes(x.shape(), axes), dy, gamma,
      [&](const Kernels& kernels, int) { return kernels.layer_norm_backward_workspace(shape); },
      [&](const Kernels& kernels, Context& context, auto... arguments) {
        kernels.layer_norm_backward(context, shape, arguments...);
      });
}

py::tuple group_norm_backward(Call& op, const py::object& dy, const py::object& x_value,
                              const py::object& gamma, const std::int64_t* groups, double epsilon) {
  Input x = float_input(op, "x", x_value, nullptr);
  GroupNormShape shape = group_norm_shape(op, x.shape(), groups, epsilon);
  return affine_backward(
      op, x, {shape.C}, dy, gamma,
      [&](const Kernels& kernels, int threads) {
        return kernels.group_norm_workspace(shape, Pass::backward_input, threads);
      },
      [&](const Kernels& kernels, Context& context, auto... arguments) {
        kernels.group_norm_backward(context, shape, arguments...);
      });
}

}  // namespace

void bind_normalization(py::module_& module) {
  using py::arg;
  module.def("batch_norm", batch_norm, arg("x"), arg("gamma"), arg("beta"), arg("mean"), arg("var"),
             arg("training"), arg("momentum"), arg("epsilon"), arg("out"));
  module.def("batch_norm_backward", batch_norm_backward, arg("dy"), arg("x"), arg("gamma"),
             arg("mean"), arg("var"), arg("training"), arg("epsilon"));
  module.def("layer_norm", layer_norm, arg("x"), arg("gamma"), arg("beta"), arg("axes"),
             arg("epsilon"), arg("out"));
  module.def("layer_norm_backward", layer_norm_backward, arg("dy"), arg("x"), arg("gamma"),
             arg("axes"), arg("epsilon"));
  using py::object;
  module.def(
      "group_norm",
      [](const object& x, const object& gamma, const object& beta, std::int64_t groups,
         double epsilon, const object& out) {
        Call op("group_norm");
        return group_norm(op, x, gamma, beta, &groups, epsilon, out);
      },
      arg("x"), arg("gamma"), arg("beta"), arg("groups"), arg("epsilon"), arg("out"));
  module.def(
      "group_norm_backward",
      [](const object& dy, const object& x, const object& gamma, std::int64_t groups,
         double epsilon) {
        Call op("group_norm_backward");
        return group_norm_backward(op, dy, x, gamma, &groups, epsilon);
      },
      arg("dy"), arg("x"), arg("gamma"), arg("groups"), arg("epsilon"));
  module.def(
      "instance_norm",
      [](const object& x, const object& gamma, const object& beta, double epsilon,
         const object& out) {
        Call op("instance_norm");
        return group_norm(op, x, gamma, beta, nullptr, epsilon, out);
      },
      arg("x"), arg("gamma"), arg("beta"), arg("epsilon"), arg("out"));
  module.def(
      "instance_norm_backward",
      [](const object& dy, const object& x, const object& gamma, double epsilon) {
        Call op("instance_norm_backward");
        return group_norm_backward(op, dy, x, gamma, nullptr, epsilon);
      },
      arg("dy"), arg("x"), arg("gamma"), arg("epsilon"));
}

}  // namespace convlet::bind
