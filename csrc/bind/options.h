// Options of ops that arrive as Python values.
#pragma once
#include <string>
#include <utility>

#include "bind/arrays.h"
#include "plan/state.h"

namespace convlet::bind {

using Pair = std::pair<std::int64_t, std::int64_t>;

// Padding is "valid", "same" or ((top, bottom), (left, right)); Options is Conv2dOptions or
// Pool2dOptions. Values are checked by the op.
template <class Options>
void set_padding(const char* op, const py::object& padding, Options& options) {
  if (py::isinstance<py::str>(padding)) {
    options.padding = padding.cast<std::string>();
    return;
  }
  try {
    auto [vertical, horizontal] = padding.cast<std::pair<Pair, Pair>>();
    options.padding = "explicit";
    options.pad_top = vertical.first;
    options.pad_bottom = vertical.second;
    options.pad_left = horizontal.first;
    options.pad_right = horizontal.second;
  } catch (const py::cast_error&) {
    type_error(op, ": expected padding \"valid\", \"same\" or ((top,bottom),(left,right)), got ",
               std::string(py::repr(padding)));
  }
}

// {"kind": "sgd" | "rmsprop" | "adam", "momentum": ..., ...}: a name that is missing keeps its
// default, one that is unknown is a ValueError.
UpdateRule update_rule(const py::dict& values);

}  // namespace convlet::bind
