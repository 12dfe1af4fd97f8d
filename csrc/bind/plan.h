// What the bindings of states, data sets and plans share.
#pragma once
#include <deque>
#include <memory>
#include <mutex>

#include "bind/arrays.h"
#include "bind/call.h"
#include "bind/gil.h"
#include "plan/plan.h"

namespace convlet::bind {

void bind_state(pybind11::module_& module);    // Graph, State
void bind_dataset(pybind11::module_& module);  // Dataset, Outputs

template <class T>
const T& at(const char* what, const std::vector<T>& items, int id) {
  if (id < 0 || static_cast<std::size_t>(id) >= items.size())
    value_error(what, ": expected an index in [0,", items.size(), "), got ", id);
  return items[static_cast<std::size_t>(id)];
}

struct BoundState {
  BoundState(const Graph& g, Device& device) : graph(g), state(device, g) {}

  Graph graph;  // as it was then: what is added to the caller's later has no memory here
  State state;
  std::mutex mutex;

  const Parameter& parameter(const char* what, int id) const {
    return at(what, graph.parameters(), id);
  }
};

// f() with the GIL released and the state locked.
template <class F>
auto locked(BoundState& bound, F&& f) {
  ReleasedGil unlocked;
  std::lock_guard<std::mutex> lock(bound.mutex);
  return f();
}

// A Batch and the arrays that it points into.
struct BoundBatch {
  std::vector<Input> arrays;
  std::vector<std::int64_t> indices;
  Batch batch;
};

BoundBatch make_batch(const char* what, const std::vector<py::object>& inputs,
                      const std::vector<py::object>& targets,
                      const std::vector<py::object>& weights, const py::object& indices);

// Outputs of a plan on their way to the host.
struct BoundOutputs {
  std::unique_ptr<Readback> readback;
  std::deque<std::size_t> bytes;  // of those that were sent and not taken
};

}  // namespace convlet::bind
