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
};

std::map<Key, std::vector<Touch>> touches;
std::map<std::pair<const void*, int>, std::uint64_t> passed;  // by place and thread
std::map<std::string, Total> totals;
const void* current_kernel = nullptr;
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
  touches[{place, shared, thread / 32, passed[{place, thread}]++}].push_back(
      {thread % 32, reinterpret_cast<std::uintptr_t>(p), bytes});
}

void begin_block_counts(const void* kernel) {
  current_kernel = kernel;
  touches.clear();
  passed.clear();
}

void end_block_counts() {
  if (!options.count) return;
  Total& total = totals[function_name(current_kernel)];
  for (const auto& [key, lanes] : touches) (key.shared ? count_banks : count_sectors)(lanes, total);
}

}  // namespace simt

extern "C" {

// A line for each kernel: its name, shared accesses, conflicts, sectors moved, sectors needed.
// Clears the counts.
__attribute__((visibility("default"))) const char* simt_counts() {
  std::lock_guard<std::recursive_mutex> lock(simt::mutex);
  simt::run_all_streams();
  simt::text.clear();
  for (const auto& [name, t] : simt::totals)
    simt::text += simt::format(
        "%s %llu %llu %llu %llu\n", name.c_str(), static_cast<unsigned long long>(t.accesses),
        static_cast<unsigned long long>(t.conflicts), static_cast<unsigned long long>(t.sectors),
        static_cast<unsigned long long>(t.needed));
  simt::totals.clear();
  return simt::text.c_str();
}
}
