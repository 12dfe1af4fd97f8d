// Bank conflicts of shared memory and sectors of global memory, by kernel: what a warp's access
// costs beside what it must cost. The lanes of a warp run one after another here; the n-th time
// that each of them passes a place counts as one access of the warp.
#include <map>
#include <set>

#include "internal.h"

namespace simt {

namespace {

struct Touch {
  int lane;
  std::uintptr_t address;
  std::size_t bytes;
};
struct Key {
  const void* place;
  bool shared;
  int warp;
  std::uint64_t occurrence;
  bool operator<(const Key& o) const {
    return std::tie(place, shared, warp, occurrence) <
           std::tie(o.place, o.shared, o.warp, o.occurrence);
  }
};
struct Total {
  std::uint64_t conflicts = 0, accesses = 0;  // shared: extra passes over the banks
  std::uint64_t sectors = 0, needed = 0;      // global: of 32 bytes
  std::uint64_t threads = 0, shared = 0;      // of a block; bytes of dynamic shared memory
};

std::map<Key, std::vector<Touch>> touches;
std::map<std::tuple<const void*, bool, int>, std::uint64_t> passed;  // by place, shared, thread
std::map<std::string, Total> totals;
std::map<std::pair<std::string, const void*>, std::uint64_t> conflicts;  // by kernel and place
const void* current_kernel = nullptr;
std::size_t current_shared = 0;
std::string text;

// A pass serves 32 banks of one word each; 8- and 16-byte accesses are served for half and quarter
// warps. Lanes that read the same word share it.
void count_banks(const std::vector<Touch>& lanes, Total& total) {
  const int group = lanes[0].bytes >= 16 ? 8 : lanes[0].bytes == 8 ? 16 : 32;
  for (int first = 0; first < 32; first += group) {
    std::set<std::uintptr_t> banks[32];
    std::size_t words = 0, deepest = 0;
    for (const Touch& touch : lanes) {
      if (touch.lane < first || touch.lane >= first + group) continue;
      for (std::uintptr_t w = touch.address / 4; w * 4 < touch.address + touch.bytes; ++w) {
        words += banks[w % 32].insert(w).second;
        deepest = std::max(deepest, banks[w % 32].size());
      }
    }
    if (!words) continue;
    ++total.accesses;
    total.conflicts += deepest - (words + 31) / 32;
  }
}

void count_sectors(const std::vector<Touch>& lanes, Total& total) {
  std::set<std::uintptr_t> sectors, bytes;
  for (const Touch& touch : lanes)
    for (std::uintptr_t b = touch.address; b < touch.address + touch.bytes; ++b) {
      bytes.insert(b);
      sectors.insert(b / 32);
    }
  total.sectors += sectors.size();
  total.needed += (bytes.size() + 31) / 32;
}

}  // namespace

void count_access(const void* p, std::size_t bytes, bool shared, const void* place) {
  const int thread = running->index;
  touches[{place, shared, thread / 32, passed[{place, shared, thread}]++}].push_back(
      {thread % 32, reinterpret_cast<std::uintptr_t>(p), bytes});
}

void begin_block_counts(const void* kernel, std::size_t dynamic_bytes) {
  current_kernel = kernel;
  current_shared = dynamic_bytes;
  touches.clear();
  passed.clear();
}

void end_block_counts() {
  if (!options.count) return;
  const std::string name = function_name(current_kernel);
  Total& total = totals[name];
  total.threads = std::max<std::uint64_t>(total.threads, static_cast<unsigned>(block_threads));
  total.shared = std::max<std::uint64_t>(total.shared, current_shared);
  for (const auto& [key, lanes] : touches) {
    const std::uint64_t before = total.conflicts;
    (key.shared ? count_banks : count_sectors)(lanes, total);
    if (total.conflicts > before) conflicts[{name, key.place}] += total.conflicts - before;
  }
}

}  // namespace simt

extern "C" {

// A line for each kernel: its name, shared accesses, conflicts, sectors moved, sectors needed,
// threads of a block, bytes of dynamic shared memory. Clears the counts.
__attribute__((visibility("default"))) const char* simt_counts() {
  std::lock_guard<std::recursive_mutex> lock(simt::mutex);
  simt::run_all_streams();
  simt::text.clear();
  for (const auto& [name, t] : simt::totals) {
    simt::text += name;
    for (std::uint64_t n : {t.accesses, t.conflicts, t.sectors, t.needed, t.threads, t.shared})
      simt::text += ' ' + std::to_string(n);
    simt::text += '\n';
  }
  simt::totals.clear();
  return simt::text.c_str();
}

// A line for each place with bank conflicts: how many, where, the kernel. Clears them.
__attribute__((visibility("default"))) const char* simt_conflicts() {
  std::lock_guard<std::recursive_mutex> lock(simt::mutex);
  simt::text.clear();
  for (const auto& [key, count] : simt::conflicts)
    simt::text += std::to_string(count) + ' ' + simt::describe(key.second) + ' ' + key.first + '\n';
  simt::conflicts.clear();
  return simt::text.c_str();
}
}
