#include "core/thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "core/cpu_count.h"
#include "core/error.h"
#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace convlet {
namespace {

// Longer than Python takes between two steps of training, about 100 us; to wake a sleeping worker
// takes 16 us or more.
constexpr auto kSpin = std::chrono::microseconds(200);
constexpr std::int64_t kPiecesPerPart = 8;
constexpr std::size_t kCacheLine = 64;

// The worker that the running thread is at this moment, or -1 outside jobs.
thread_local int current_worker = -1;

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A number that one thread changes and another waits for: first spinning, then asleep.
class Signal {
 public:
  std::atomic<std::uint32_t> value{0};

  void wait_while(std::uint32_t old, bool spin) {
    if (spin) {
      auto deadline = std::chrono::steady_clock::now() + kSpin;
      do {
        for (int i = 0; i < 16; ++i) {
          if (value.load(std::memory_order_acquire) != old) return;
          pause();
        }
      } while (std::chrono::steady_clock::now() < deadline);
    }
    // Whoever changes the value after this line sees the sleeper; before it, the sleeper sees the
    // change.
    sleepers_.fetch_add(1);
    sleep_while(old);
    sleepers_.fetch_sub(1);
  }

  // To be called after a change of the value.
  void wake() {
    if (sleepers_.load() > 0) wake_sleepers();
  }

 private:
#if defined(__linux__)
  void sleep_while(std::uint32_t old) {
    while (value.load() == old)
      syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, old, nullptr, nullptr, 0);
  }
  void wake_sleepers() {
    syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, 1 << 30, nullptr, nullptr, 0);
  }
#else
  void sleep_while(std::uint32_t old) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return value.load() != old; });
  }
  void wake_sleepers() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
    }  // a sleeper is now either waiting or past its check
    changed_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable changed_;
#endif
  std::atomic<int> sleepers_{0};
};

// Workers leave signals to the threads of the program, which has handlers for them.
class BlockedSignals {
 public:
  BlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old_);
  }
  ~BlockedSignals() { pthread_sigmask(SIG_SETMASK, &old_, nullptr); }

 private:
  sigset_t old_;
};

void pin([[maybe_unused]] std::thread& thread, [[maybe_unused]] int cpu) {
#if defined(__linux__)
  if (cpu >= CPU_SETSIZE) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(thread.native_handle(), sizeof set, &set);  // a wish: failure is harmless
#endif
}

}  // namespace

struct ThreadPool::Team final : Context {
  Team(ThreadPool& pool, int threads) : pool(pool), count(threads) {}
  int threads() const override { return count; }
  void parallel(std::int64_t n, std::int64_t grain, Body body, void* argument) override {
    pool.parallel(count, n, grain, body, argument);
  }

  ThreadPool& pool;
  const int count;
};

struct ThreadPool::Job {
  struct alignas(kCacheLine) Part {
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };

  Context::Body body = nullptr;
  void* argument = nullptr;
  std::int64_t piece = 1;
  int parts = 0;
  std::vector<Part> part = std::vector<Part>(kMaxThreads);
  std::atomic<bool> failed{false};
  std::mutex error_mutex;
  std::exception_ptr error;

  void set(int workers, std::int64_t count, std::int64_t grain, Context::Body new_body,
           void* new_argument) {
    body = new_body;
    argument = new_argument;
    parts = workers;
    failed.store(false, std::memory_order_relaxed);
    error = nullptr;
    std::int64_t grains = (count - 1) / grain + 1;
    std::int64_t grains_per_part = (grains - 1) / workers + 1;
    piece = grain * std::max<std::int64_t>(1, grains_per_part / kPiecesPerPart);
    std::int64_t share = grains / workers, extra = grains % workers, begin = 0;
    for (int i = 0; i < workers; ++i) {
      part[i].next.store(begin, std::memory_order_relaxed);
      begin = std::min(count, begin + (share + (i < extra)) * grain);
      part[i].end = begin;
    }
  }

  void work(int worker) {
    current_worker = worker;
    try {
      for (int i = 0; i < parts; ++i) finish(part[(worker + i) % parts], worker);
    } catch (...) {
      std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
      failed.store(true);
    }
    current_worker = -1;
  }

 private:
  void finish(Part& p, int worker) {
    while (!failed.load(std::memory_order_relaxed)) {
      if (p.next.load(std::memory_order_relaxed) >= p.end) return;
      std::int64_t begin = p.next.fetch_add(piece, std::memory_order_relaxed);
      if (begin >= p.end) return;
      body(argument, begin, std::min(begin + piece, p.end), worker);
    }
  }
};

struct alignas(kCacheLine) ThreadPool::Worker {
  Signal call;  // grows by one for each job that wants this worker
  std::thread thread;
};

struct ThreadPool::Workers {
  // Who is in the job: `gate` counts the workers inside; once kClosed is set nobody may enter. The
  // job does not change while the gate is open or anyone is inside.
  static constexpr std::uint32_t kClosed = 1u << 31;

  Job job;
  Signal gate;
  std::atomic<bool> stop{false};
  std::vector<std::unique_ptr<Worker>> workers;  // worker i + 1 of a job
  std::vector<int> cpus = allowed_cpus();        // pinned: the caller's, then worker by worker
  bool pinned = false;

  Workers() {
    gate.value.store(kClosed);
#if defined(__linux__)
    // The caller is left where it is: workers take the other CPUs first.
    auto here = std::find(cpus.begin(), cpus.end(), sched_getcpu());
    if (here != cpus.end()) std::rotate(cpus.begin(), here, cpus.end());
#endif
  }

  ~Workers() {
    stop.store(true);
    for (auto& worker : workers) call(*worker);
    for (auto& worker : workers) worker->thread.join();
  }

  // Spinning pays only while every thread can have a CPU of its own.
  bool may_spin(int threads) const { return threads <= static_cast<int>(cpus.size()); }

  // Makes sure that there are `count` workers; fewer when the system refuses more.
  void grow(int count) {
    if (static_cast<int>(workers.size()) >= count) return;
    BlockedSignals blocked;
    while (static_cast<int>(workers.size()) < count) {
      auto worker = std::make_unique<Worker>();
      int id = static_cast<int>(workers.size()) + 1;
      try {
        worker->thread = std::thread([this, id, w = worker.get()] { live(*w, id); });
      } catch (const std::system_error&) {
        return;
      }
      workers.push_back(std::move(worker));
    }
    // Pinning pays when the workers and the caller own the whole mask. With fewer threads than CPUs
    // (a quota, a user's choice) the system knows better which CPUs are free.
    if (workers.size() + 1 != cpus.size()) return;
    for (std::size_t i = 0; i < workers.size(); ++i) pin(workers[i]->thread, cpus[i + 1]);
    pinned = true;
  }

  // The system may have moved the caller to a pinned worker's CPU, and leave both there for tens of
  // milliseconds while another CPU is idle: they change places.
  void part_from_caller() {
#if defined(__linux__)
    if (!pinned) return;
    int here = sched_getcpu();
    if (here == cpus[0]) return;
    auto taken = std::find(cpus.begin() + 1, cpus.end(), here);
    if (taken == cpus.end()) return;
    std::swap(*taken, cpus[0]);
    pin(workers[static_cast<std::size_t>(taken - cpus.begin()) - 1]->thread, *taken);
#endif
  }

  void run(int threads) {
    part_from_caller();
    gate.value.store(0, std::memory_order_release);
    for (int i = 0; i < threads - 1; ++i) call(*workers[i]);
    job.work(0);
    std::uint32_t inside = gate.value.fetch_or(kClosed) & ~kClosed;
    while (inside != 0) {
      gate.wait_while(inside | kClosed, may_spin(threads));
      inside = gate.value.load(std::memory_order_acquire) & ~kClosed;
    }
    if (job.error) {
      std::exception_ptr error = std::move(job.error);
      job.error = nullptr;
      std::rethrow_exception(error);
    }
  }

 private:
  static void call(Worker& worker) {
    worker.call.value.fetch_add(1);
    worker.call.wake();
  }

  void live(Worker& worker, int id) {
    std::uint32_t seen = 0;
    bool spin = false;
    for (;;) {
      worker.call.wait_while(seen, spin);
      seen = worker.call.value.load(std::memory_order_acquire);
      if (stop.load()) return;
      std::uint32_t inside = gate.value.load(std::memory_order_relaxed);
      while (!(inside & kClosed) &&
             !gate.value.compare_exchange_weak(inside, inside + 1, std::memory_order_acq_rel)) {
      }
      if (inside & kClosed) continue;  // too late: the job is done
      spin = may_spin(job.parts);
      if (id < job.parts) job.work(id);
      gate.value.fetch_sub(1);
      gate.wake();
    }
  }
};

ThreadPool& ThreadPool::instance() {
  static ThreadPool pool;
  return pool;
}

ThreadPool::ThreadPool() {
  pthread_atfork(nullptr, nullptr, &forget_workers_after_fork);
}

// A thread that still computes while the process exits keeps its workers; from here on every other
// job is run by its caller.
ThreadPool::~ThreadPool() {
  if (busy_.exchange(true)) return;
  delete workers_;
  workers_ = nullptr;
}

// The child has only the thread that forked. The memory of the workers, whose locks may be held by
// threads that do not exist here, is given up.
void ThreadPool::forget_workers_after_fork() {
  instance().workers_ = nullptr;
  instance().busy_.store(false);
  current_worker = -1;
}

Context& ThreadPool::team(int threads) {
  if (threads < 1 || threads > kMaxThreads)
    value_error("threads: expected a number from 1 to ", kMaxThreads, ", got ", threads);
  std::atomic<Team*>& slot = teams_[threads];
  Team* team = slot.load(std::memory_order_acquire);
  if (!team) {
    auto fresh = std::make_unique<Team>(*this, threads);
    if (slot.compare_exchange_strong(team, fresh.get())) team = fresh.release();
  }
  return *team;
}

void ThreadPool::parallel(int threads, std::int64_t count, std::int64_t grain, Context::Body body,
                          void* argument) {
  if (count <= 0) return;
  grain = std::max<std::int64_t>(grain, 1);
  std::int64_t grains = (count - 1) / grain + 1;
  int team = static_cast<int>(std::min<std::int64_t>(threads, grains));
  bool nested = current_worker >= 0;
  if (team == 1 || nested || busy_.exchange(true, std::memory_order_acquire)) {
    int worker = nested && current_worker < threads ? current_worker : 0;
    body(argument, 0, count, worker);
    return;
  }
  struct Release {
    std::atomic<bool>& busy;
    ~Release() { busy.store(false, std::memory_order_release); }
  } release{busy_};
  if (!workers_) workers_ = new Workers;
  workers_->grow(team - 1);
  team = std::min(team, static_cast<int>(workers_->workers.size()) + 1);
  workers_->job.set(team, count, grain, body, argument);
  workers_->run(team);
}

}  // namespace convlet
