// Context: what a kernel may ask of the device that runs it. On the CPU that is threads; on a GPU
// a stream. Kernels never allocate: their workspace is a pointer that the caller passes.
#pragma once
#include <cstdint>
#include <type_traits>

namespace convlet {

class Context {
 public:
  // fn(argument, begin, end, worker) for disjoint ranges that cover [0, count); worker is in
  // [0, threads()) and no two calls with the same worker run at the same time.
  using Body = void (*)(void* argument, std::int64_t begin, std::int64_t end, int worker);

  virtual ~Context() = default;

  // The most workers that parallel() uses; per-thread workspace is sized by it.
  virtual int threads() const = 0;

  // Runs the body over [0, count) in ranges of about `grain` and returns when all are done. How the
  // range is cut depends on the threads, so a body must give the same result for any cut: a
  // reduction first fixes its parts from the shapes, then runs parallel over the parts.
  virtual void parallel(std::int64_t count, std::int64_t grain, Body body, void* argument) = 0;

  // Returns when all kernels that were called with this context are done; Error when one failed.
  virtual void wait() {}
};

// Calls f(begin, end, worker) through Context::parallel.
template <class F>
inline void parallel_for(Context& context, std::int64_t count, std::int64_t grain, F&& f) {
  using Function = typename std::remove_reference<F>::type;
  context.parallel(
      count, grain,
      [](void* argument, std::int64_t begin, std::int64_t end, int worker) {
        (*static_cast<Function*>(argument))(begin, end, worker);
      },
      const_cast<void*>(static_cast<const void*>(&f)));
}

}  // namespace convlet
