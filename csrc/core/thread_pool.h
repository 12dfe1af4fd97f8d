// ThreadPool: the process' worker threads, and the Contexts that run kernels on them.
//
// A job's range is cut into one contiguous part per worker (so that a worker meets the same samples
// from step to step, in its own cache) and each part into pieces; a worker that has finished its
// part takes pieces of the others'. The caller is worker 0 and does not wait for a worker that
// never got to run: it finishes the pieces itself. Workers spin for some tens of microseconds after
// a job, which is how long the next kernel of a step takes to come, and then sleep in the kernel.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>

#include "core/context.h"

namespace convlet {

class ThreadPool {
 public:
  static constexpr int kMaxThreads = 1024;

  // The one pool. A forked child starts with no workers and makes its own when it needs them.
  static ThreadPool& instance();

  // A Context of so many threads, the caller's included; ValueError unless 1 <= threads <=
  // kMaxThreads. It lives as long as the process and its number of threads never changes, so that
  // whoever sizes workspace by it and runs kernels on it need not fear a change between the two. A
  // call from inside a job, or while another thread's job runs, is done by the calling thread
  // alone.
  Context& team(int threads);

  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

 private:
  struct Team;
  struct Job;
  struct Worker;
  struct Workers;

  ThreadPool();
  ~ThreadPool();
  void parallel(int threads, std::int64_t count, std::int64_t grain, Context::Body body,
                void* argument);
  static void forget_workers_after_fork();

  std::atomic<bool> busy_{false};  // held while a job runs, and for ever once the pool is gone
  Workers* workers_ = nullptr;     // guarded by busy_; made at the first job
  std::array<std::atomic<Team*>, kMaxThreads + 1> teams_{};
};

}  // namespace convlet
