#include "bind/gil.h"

#include <atomic>
#include <chrono>
#include <thread>

namespace convlet::bind {

namespace {

std::atomic<bool> shutting_down{false};
std::atomic<int> taking{0};  // threads between the question below and having the GIL
std::thread::id main_thread;

// Runs in the main thread before the interpreter is taken down. Threads that are past the question
// get the GIL; a forked child, which may count threads that it does not have, gives up soon.
void begin_shutdown() {
  main_thread = std::this_thread::get_id();
  shutting_down.store(true);
  PyThreadState* state = PyEval_SaveThread();
  auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(500);
  while (taking.load() > 0 && std::chrono::steady_clock::now() < deadline)
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  PyEval_RestoreThread(state);
}

}  // namespace

ReleasedGil::ReleasedGil() : state_(PyEval_SaveThread()) {}

ReleasedGil::~ReleasedGil() {
  taking.fetch_add(1);
  if (shutting_down.load() && std::this_thread::get_id() != main_thread) {
    taking.fetch_sub(1);
    for (;;) std::this_thread::sleep_for(std::chrono::hours(24));
  }
  PyEval_RestoreThread(state_);
  taking.fetch_sub(1);
}

void watch_shutdown() {
  pybind11::module_::import("atexit").attr("register")(pybind11::cpp_function(begin_shutdown));
}

}  // namespace convlet::bind
