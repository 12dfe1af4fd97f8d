// Augmentation of a batch of images, and the draws behind it.
#include <pybind11/stl.h>

#include <cmath>

#include "bind/arrays.h"
#include "bind/bind.h"

namespace convlet::bind {

namespace {

constexpr const char* kOp = "augment";

AugmentSpec spec_of(const py::dict& settings) {
  AugmentSpec spec;
  for (auto [key, value] : settings) {
    const std::string name = py::str(key);
    try {
      if (name == "fill") {
        spec.fill = fill_named(kOp, value.cast<std::string>());
      } else if (name == "interpolation") {
        spec.interpolation = interpolation_named(kOp, value.cast<std::string>());
      } else if (name == "shift_h_choices") {
        spec.shift_h_choices = value.cast<std::vector<double>>();
      } else if (name == "shift_w_choices") {
        spec.shift_w_choices = value.cast<std::vector<double>>();
      } else {
        set_number(kOp, spec, name, value.cast<double>());
      }
    } catch (const py::cast_error&) {
      type_error(kOp, ": expected another type for ", name, ", got ", std::string(py::repr(value)));
    }
  }
  return spec;
}

// int64 (N,) or None; each in [0, bound), or at least 0 where bound is 0.
Input index_input(Call& op, const char* name, const py::object& value, std::int64_t bound) {
  Input input = array_input(op, name, value, "(N,)", {DType::int64});
  const std::int64_t* data = input.tensor.as<std::int64_t>();
  for (std::int64_t i = 0; i < input.shape()[0]; ++i)
    if (data[i] < 0 || (bound > 0 && data[i] >= bound))
      value_error(kOp, ": expected ", name, " in [0,", bound > 0 ? std::to_string(bound) : "2^63",
                  "), got ", data[i], " at position ", i);
  return input;
}

AugmentRandom random_of(std::uint64_t seed, std::uint64_t epoch, std::uint64_t stream) {
  if (epoch >> 40) value_error(kOp, ": expected epoch in [0,2^40), got ", epoch);
  if (stream >> 16) value_error(kOp, ": expected stream in [0,2^16), got ", stream);
  return {seed, epoch, stream};
}

py::object augment(const py::dict& settings, const py::object& x_value,
                   const py::object& rows_value, const py::object& indices_value,
                   std::uint64_t seed, std::uint64_t epoch, std::uint64_t stream,
                   const py::object& scale_value, const py::object& offset_value,
                   const std::string& dtype, const py::object& out) {
  const AugmentSpec spec = spec_of(settings);
  const AugmentRandom random = random_of(seed, epoch, stream);
  if (dtype != "float32" && dtype != "uint8")
    value_error(kOp, ": expected dtype \"float32\" or \"uint8\", got \"", dtype, '"');
  const DType y_dtype = dtype == "uint8" ? DType::uint8 : DType::float32;
  Call op(kOp);
  Input x = array_input(op, "x", x_value, "(N,H,W,C)", {DType::uint8, DType::float32});

  // Copies of the rows and indices: they are checked once, whatever becomes of the caller's.
  std::vector<std::int64_t> rows, indices;
  auto numbers = [&op](const char* name, const py::object& value, std::int64_t bound,
                       std::vector<std::int64_t>& to) -> const std::int64_t* {
    if (value.is_none()) return nullptr;
    Input input = index_input(op, name, value, bound);
    const std::int64_t* first = input.tensor.as<std::int64_t>();
    to.assign(first, first + input.shape()[0]);
    to.reserve(1);  // never null
    return to.data();
  };
  const std::int64_t M = x.shape()[0];
  if (!rows_value.is_none() && M == 0 && py::len(rows_value) > 0)
    value_error(kOp, ": expected rows of x, which is empty, got ", py::len(rows_value));
  const std::int64_t* row_data = numbers("rows", rows_value, M, rows);
  const std::int64_t N = row_data ? static_cast<std::int64_t>(rows.size()) : M;
  const std::int64_t* index_data = numbers("indices", indices_value, 0, indices);
  if (index_data)
    expect_shape(kOp, "indices", "(N,)", {N}, {static_cast<std::int64_t>(indices.size())});
  const AugmentShape shape = check_augment(kOp, x.shape(), N, spec);

  std::vector<Input> factors;
  auto factor = [&](const char* name, const py::object& value) -> const float* {
    if (value.is_none()) return nullptr;
    factors.push_back(float_input(op, name, value, "(C,)"));
    expect_shape(kOp, name, "(C,)", {shape.C}, factors.back().shape());
    return factors.back().f32();
  };
  const float* scale = factor("scale", scale_value);
  const float* offset = factor("offset", offset_value);
  Output y = typed_output(op, out, y_dtype, shape.y(), {&x});
  const std::int64_t* rows_there = op.upload(row_data, rows.size());
  const std::int64_t* indices_there = op.upload(index_data, indices.size());
  const RandomStep step{random.seed, random.epoch};
  const RandomStep* step_there = op.upload(&step, 1);
  const AugmentBatch batch{x.tensor.data, x.tensor.dtype, rows_there, indices_there,
                           scale,         offset,         y.data,     y_dtype};
  op.run([&](const Kernels& kernels,
             int threads) { return kernels.augment_workspace(shape, spec, threads); },
         [&](const Kernels& kernels, Context& context, Workspace& workspace) {
           kernels.augment(context, shape, spec, step_there, random.stream, batch,
                           workspace.data());
         });
  return y.array;
}

py::dict draw_dict(const AugmentDraw& draw) {
  py::dict d;
  d["flip_horizontal"] = draw.flip_horizontal;
  d["flip_vertical"] = draw.flip_vertical;
  d["rotation"] = draw.rotation;
  d["shear"] = draw.shear;
  d["shift_h"] = draw.shift_h;
  d["shift_w"] = draw.shift_w;
  d["zoom_h"] = draw.zoom_h;
  d["zoom_w"] = draw.zoom_w;
  d["window"] = py::make_tuple(draw.crop_top, draw.crop_left, draw.crop_height, draw.crop_width);
  d["channel_shift"] = draw.channel_shift;
  d["brightness"] = draw.brightness;
  d["brightness_shift"] = draw.brightness_shift;
  d["contrast"] = draw.contrast;
  d["saturation"] = draw.saturation;
  d["erased"] =
      py::make_tuple(draw.erase_top, draw.erase_left, draw.erase_height, draw.erase_width);
  d["matrix"] = std::vector<double>(draw.m, draw.m + 6);
  return d;
}

py::list augment_draws(const py::dict& settings, const std::vector<std::int64_t>& image_shape,
                       const py::object& indices_value, std::uint64_t seed, std::uint64_t epoch,
                       std::uint64_t stream) {
  const AugmentSpec spec = spec_of(settings);
  const AugmentRandom random = random_of(seed, epoch, stream);
  Call op(kOp, cpu_device());
  Input indices = index_input(op, "indices", indices_value, 0);
  const Shape image = shape_argument(kOp, "image_shape", image_shape, "(H,W,C)");
  const AugmentShape shape =
      check_augment(kOp, image.with_front(indices.shape()[0]), indices.shape()[0], spec);
  py::list draws;
  for (std::int64_t n = 0; n < shape.N; ++n)
    draws.append(draw_dict(draw_augment(
        spec, shape, random, static_cast<std::uint64_t>(indices.tensor.as<std::int64_t>()[n]))));
  return draws;
}

}  // namespace

void bind_augment(py::module_& module) {
  using py::arg;
  module.def("augment", augment, arg("settings"), arg("x"), arg("rows"), arg("indices"),
             arg("seed"), arg("epoch"), arg("stream"), arg("scale"), arg("offset"), arg("dtype"),
             arg("out"));
  module.def("augment_draws", augment_draws, arg("settings"), arg("image_shape"), arg("indices"),
             arg("seed"), arg("epoch"), arg("stream"));
}

}  // namespace convlet::bind
