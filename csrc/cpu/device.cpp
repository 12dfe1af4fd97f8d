#include "cpu/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/cpu_count.h"
#include "core/error.h"
#include "core/thread_pool.h"
#include "cpu/table.h"
#include "ops/kernels.h"
#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace convlet {
namespace {

constexpr std::size_t kAlignment = 64;
// The first touch of memory in 4 KB pages costs more than most kernels; large blocks ask for huge
// ones.
constexpr std::size_t kHugePage = std::size_t{2} << 20;

std::string brand() {
#if defined(__x86_64__)
  unsigned words[12] = {};
  for (unsigned i = 0; i < 3; ++i) {
    unsigned* w = words + 4 * i;
    if (!__get_cpuid(0x80000002 + i, w, w + 1, w + 2, w + 3)) return "x86-64";
  }
  std::string name(reinterpret_cast<const char*>(words), sizeof words);
  name.erase(std::min(name.find('\0'), name.size()));
  std::size_t begin = name.find_first_not_of(' ');
  return begin == std::string::npos ? "x86-64"
                                    : name.substr(begin, name.find_last_not_of(' ') + 1 - begin);
#elif defined(__aarch64__)
  return "64-bit ARM";
#else
  return "CPU";
#endif
}

std::uint64_t physical_memory() {
  long pages = sysconf(_SC_PHYS_PAGES), size = sysconf(_SC_PAGESIZE);
  return pages > 0 && size > 0
             ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(size)
             : UINT64_MAX;
}

std::string gain_text(const Kernels& kernels) {
  char text[80];
  std::snprintf(text, sizeof text, " (products at %.1f times the speed of float32)",
                cpu::product_gain(kernels, cpu::table()));
  return text;
}

class CpuDevice final : public Device {
 public:
  std::string name() const override { return "cpu"; }

  std::string description(Precision precision) const override {
    int n = num_threads();
    const Kernels& table = kernels(precision);
    return concat(brand(), ", ", table.name,
                  precision == Precision::float32 ? "" : gain_text(table), ", ", n,
                  n == 1 ? " thread" : " threads");
  }

  const Kernels& kernels(Precision precision) const override { return cpu::table(precision); }
  Context& context() override { return ThreadPool::instance().team(num_threads()); }

  bool sees_host_memory() const override { return true; }
  bool sees(const void*) const override { return true; }

  void* allocate(std::size_t bytes) override {
    bool large = bytes >= kHugePage;
    std::size_t alignment = large ? kHugePage : kAlignment;
    void* memory = nullptr;
    // The system would promise more than it has and kill the process at the first touch.
    if (bytes <= physical_memory())
      memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (!memory)
      value_error("cpu: not enough memory for a block of ", bytes >> 20, " MB (this machine has ",
                  physical_memory() >> 20, " MB); a smaller batch needs less");
#if defined(MADV_HUGEPAGE)
    if (large) madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    return memory;
  }

  void release(void* memory, std::size_t) noexcept override { std::free(memory); }

  void write(void* memory, const void* host, std::size_t bytes) override {
    if (bytes) std::memcpy(memory, host, bytes);
  }
  void read(const void* memory, void* host, std::size_t bytes) override {
    if (bytes) std::memcpy(host, memory, bytes);
  }
  void clear(void* memory, std::size_t bytes) override {
    if (bytes) std::memset(memory, 0, bytes);
  }
};

// 0 until someone asks: an invalid CONVLET_NUM_THREADS is an error of the first use, not of the
// import.
std::atomic<int> chosen_threads{0};

}  // namespace

Device& cpu_device() {
  static CpuDevice& device = *new CpuDevice;  // outlives every object that holds its memory
  return device;
}

int num_threads() {
  int threads = chosen_threads.load(std::memory_order_relaxed);
  if (threads == 0) {
    threads = default_threads();
    int unset = 0;
    if (!chosen_threads.compare_exchange_strong(unset, threads)) threads = unset;
  }
  return threads;
}

void set_num_threads(int threads) {
  chosen_threads.store(ThreadPool::instance().team(threads).threads());
}

}  // namespace convlet
