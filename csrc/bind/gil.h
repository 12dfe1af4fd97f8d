// The GIL is released while C++ computes.
#pragma once
#include <pybind11/pybind11.h>

namespace convlet::bind {

// Releases the GIL and takes it back at the end of the scope. A daemon thread whose scope ends
// while the interpreter shuts down sleeps for ever instead: up to Python 3.13, taking the GIL then
// ends the thread by unwinding its stack, which C++ answers by aborting the process. Later Pythons
// do the same sleep.
class ReleasedGil {
 public:
  ReleasedGil();
  ~ReleasedGil();
  ReleasedGil(const ReleasedGil&) = delete;
  ReleasedGil& operator=(const ReleasedGil&) = delete;

 private:
  PyThreadState* state_;
};

// Lets the module know when the interpreter begins to shut down.
void watch_shutdown();

}  // namespace convlet::bind
