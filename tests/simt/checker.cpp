// Judges every access of a kernel. The kernels are compiled with -fsanitize=thread, whose hooks
// (the __tsan_ functions) are defined here instead of in a sanitizer's library: they say which
// address was touched, from where. Found are accesses out of bounds, reads of what nobody has
// written, and races: two accesses, one of them a write, that no barrier, __syncwarp, wait for an
// asynchronous copy, or fence with an atomic puts in an order.
#include <sys/mman.h>

#include <map>
#include <memory>
#include <set>

#include "internal.h"

namespace simt {

namespace {

// Who, and when: epoch 40 bits, thread 10, clock 13, atomic 1. The epoch grows at every barrier and
// with every block; the clock of a thread at each __syncwarp, arrival and proxy fence within an
// epoch. 0 is never; kPending is an asynchronous copy that is under way. The copies that an
// mbarrier counts are those of one more thread, after the block's own, whose clock is the phase.
using Stamp = std::uint64_t;
constexpr Stamp kAtomic = 1, kPending = ~Stamp{0};
constexpr std::uint32_t kMostClock = 8191;

std::uint64_t epoch_of(Stamp s) {
  return s >> 24;
}
int thread_of(Stamp s) {
  return static_cast<int>(s >> 14 & 1023);
}
std::uint32_t clock_of(Stamp s) {
  return static_cast<std::uint32_t>(s >> 1 & kMostClock);
}

struct Cell {
  Stamp write;
  // The last read, the last by another thread of a warp, and the last by another warp.
  Stamp read, lane_read, warp_read;
  const void* write_place;
  const void* read_place;
};

// Since the current launch began. A block's epochs begin at its number.
std::uint64_t epoch = 1, launch_epoch = 1, block_epoch = 1;
std::vector<std::uint64_t> block_starts;
// Blocks (by first epoch) whose writes this block may rely on, and those that an atomic variable
// passes on to whoever reads it next.
std::set<std::uint64_t> acquired;
std::map<const void*, std::set<std::uint64_t>> released;
bool unfenced_before_barrier = false;

Stamp stamp(bool atomic) {
  const Thread& me = *running;
  const std::uint32_t clock = std::min(me.clock[me.index % 32], kMostClock);
  return epoch << 24 | static_cast<Stamp>(me.index) << 14 | static_cast<Stamp>(clock) << 1 |
         (atomic ? kAtomic : 0);
}

// Whether what happened at `s` is known to be over.
bool ordered(Stamp s) {
  if (s == 0) return true;
  if (s == kPending) return false;
  const std::uint64_t then = epoch_of(s);
  if (then < launch_epoch) return true;
  if (then < block_epoch) {
    auto after = std::upper_bound(block_starts.begin(), block_starts.end(), then);
    return acquired.count(*std::prev(after)) > 0;
  }
  const int thread = thread_of(s);
  if (thread >= block_threads)
    return clock_of(s) <= running->seen[static_cast<std::size_t>(thread)];
  if (then < epoch || thread == running->index) return true;
  if (thread / 32 == running->index / 32 && clock_of(s) <= running->clock[thread % 32]) return true;
  return !running->seen.empty() && clock_of(s) <= running->seen[static_cast<std::size_t>(thread)];
}

// Of a thread's own time: comparable with its last proxy fence.
std::uint64_t time_of(Stamp s) {
  return epoch_of(s) << 13 | clock_of(s);
}

const char* name_of(Access kind) {
  return kind == Access::read ? "read" : kind == Access::write ? "write" : "atomic";
}

void report_race(const Region& region, Access kind, Stamp s, const char* before,
                 const void* before_place, const void* place) {
  if (s == kPending)
    return report("race", place,
                  format("%s of %s while the copy of %s is under way", name_of(kind),
                         region.name.c_str(), describe(before_place).c_str()));
  const std::string who = epoch_of(s) < block_epoch       ? std::string("another block")
                          : thread_of(s) >= block_threads ? std::string("the copy engine")
                                                          : format("thread %d", thread_of(s));
  report("race", place,
         format("%s of %s and the %s by %s at %s have no order", name_of(kind), region.name.c_str(),
                before, who.c_str(), describe(before_place).c_str()));
}

}  // namespace

struct Shadow {
  std::size_t bytes, mapped;
  int shift;  // granules are words (2) until someone writes or reads less, then bytes (0)
  Cell* cells;
  std::unique_ptr<std::uint8_t[]> written;  // by byte
};

namespace {

std::size_t cell_bytes(const Shadow& s) {
  return ((s.bytes >> s.shift) + 1) * sizeof(Cell);
}

void map_cells(Shadow& shadow) {
  shadow.mapped = cell_bytes(shadow);
  shadow.cells = static_cast<Cell*>(mmap(nullptr, shadow.mapped, PROT_READ | PROT_WRITE,
                                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
}

void use_bytes(Shadow& shadow) {
  Cell* words = shadow.cells;
  if (!words) {
    shadow.shift = 0;
    return;
  }
  const std::size_t mapped = shadow.mapped;
  shadow.shift = 0;
  map_cells(shadow);
  for (std::size_t i = 0; i < shadow.bytes; ++i)
    if (words[i / 4].write || words[i / 4].read) shadow.cells[i] = words[i / 4];
  munmap(words, mapped);
}

void check_cells(Region& region, std::size_t offset, std::size_t bytes, Access kind,
                 const void* place) {
  Shadow& shadow = *region.shadow;
  if (shadow.shift && (offset % 4 || bytes % 4)) use_bytes(shadow);
  if (!shadow.cells) map_cells(shadow);
  const Stamp now = stamp(kind == Access::atomic);
  bool said = false;
  Cell* cell = shadow.cells + (offset >> shadow.shift);
  Cell* const end = shadow.cells + ((offset + bytes) >> shadow.shift);
  for (; cell != end; ++cell) {
    const bool both_atomic =
        kind == Access::atomic && (cell->write & kAtomic) && cell->write != kPending;
    if (!said && !both_atomic && !ordered(cell->write)) {
      report_race(region, kind, cell->write, "write", cell->write_place, place);
      said = true;
    }
    if (kind == Access::read) {
      const int before = cell->read ? thread_of(cell->read) : running->index;
      if (before != running->index)
        (before / 32 == running->index / 32 ? cell->lane_read : cell->warp_read) = cell->read;
      cell->read = now;
      cell->read_place = place;
      continue;
    }
    if (!said)
      for (Stamp read : {cell->read, cell->lane_read, cell->warp_read})
        if (!said && !ordered(read)) {
          report_race(region, kind, read, "read", cell->read_place, place);
          said = true;
        }
    cell->write = now;
    cell->write_place = place;
  }
}

// Atomics order blocks: what a block wrote before a fence is passed on with its next atomic, and
// taken over by the block that next touches the same variable.
void pass_on(const void* p) {
  std::set<std::uint64_t>& carried = released[p];
  acquired.insert(carried.begin(), carried.end());
  if (running->unfenced || unfenced_before_barrier) return;
  carried.insert(acquired.begin(), acquired.end());
  carried.insert(block_epoch);
}

void check(const void* p, std::size_t bytes, Access kind, const void* place) {
  const bool shared = in_shared_range(p);
  if (!shared && !in_device_range(p)) {
    if (kind == Access::read && in_module(p)) return;  // a constant table
    report("address", place, format("%s of %p, which is not the device's", name_of(kind), p));
    abandon();
  }
  Region* region = shared ? find_shared(p) : find_allocation(p);
  const char* first = static_cast<const char*>(p);
  if (!region || first + bytes > region->end) {
    report("bounds", place,
           format("%s of %zu bytes at %p, %s", name_of(kind), bytes, p,
                  region ? ("past the end of " + region->name).c_str() : "in no allocation"));
    abandon();
  }
  if (!shared && region->device != launch_device) {
    report("address", place, format("%s of another GPU's memory", name_of(kind)));
    abandon();
  }
  const auto offset = static_cast<std::size_t>(first - region->begin);
  std::uint8_t* written = region->shadow->written.get() + offset;
  if (kind == Access::write) {
    std::memset(written, 1, bytes);
    if (!shared) running->unfenced = true;
  } else {
    for (std::size_t i = 0; i < bytes; ++i)
      if (!written[i] && !(region->visible && !is_word_fresh(first + i))) {
        report("uninitialised", place, format("%s of %s", name_of(kind), region->name.c_str()));
        break;
      }
  }
  check_cells(*region, offset, bytes, kind, place);
  if (kind == Access::atomic && !shared) pass_on(p);
  if (options.count && kind != Access::atomic) count_access(p, bytes, shared, place);
}

}  // namespace

void access(const void* p, std::size_t bytes, Access kind, const void* place) {
  if (!running || !options.check) return;
  if (on_fiber_stack(p)) {
    if (running->has_products && is_register_of_product(p))
      report("race", place,
             format("%s of a register of a product that is under way", name_of(kind)));
    return;
  }
  check(p, bytes, kind, place);
}

Shadow* new_shadow(std::size_t bytes) {
  return new Shadow{bytes, 0, 2, nullptr, std::make_unique<std::uint8_t[]>(bytes + 1)};
}

void delete_shadow(Shadow* shadow) {
  if (shadow->cells) munmap(shadow->cells, shadow->mapped);
  delete shadow;
}

void mark_written(Region& region, const void* p, std::size_t bytes) {
  std::memset(region.shadow->written.get() + (static_cast<const char*>(p) - region.begin), 1,
              bytes);
}

void begin_launch_checks() {
  launch_epoch = epoch + 1;
  block_starts.clear();
  released.clear();
}

void begin_block_checks() {
  block_epoch = ++epoch;
  block_starts.push_back(epoch);
  acquired.clear();
  unfenced_before_barrier = false;
}

static void learn(std::vector<std::uint32_t>& to, const std::vector<std::uint32_t>& from) {
  for (std::size_t i = 0; i < from.size(); ++i) to[i] = std::max(to[i], from[i]);
}

void barrier_passed() {
  ++epoch;
  Thread* first = running - running->index;
  for (Thread* thread = first; thread != first + block_threads; ++thread) {
    std::fill(thread->clock, thread->clock + 32, 0);
    thread->clock[thread->index % 32] = 1;
    unfenced_before_barrier = unfenced_before_barrier || thread->unfenced;
    thread->unfenced = false;
  }
  if (running->seen.empty()) return;
  std::vector<std::uint32_t> all(running->seen.size());
  for (Thread* thread = first; thread != first + block_threads; ++thread) learn(all, thread->seen);
  std::fill(all.begin(), all.begin() + block_threads, 0);
  for (Thread* thread = first; thread != first + block_threads; ++thread) thread->seen = all;
}

void warp_synchronised(unsigned mask) {
  std::uint32_t latest[32] = {};
  Thread* warp = running - running->index % 32;
  if (!running->seen.empty()) {
    std::vector<std::uint32_t> all(running->seen.size());
    for (int lane = 0; lane < 32; ++lane)
      if (mask >> lane & 1) learn(all, warp[lane].seen);
    for (int lane = 0; lane < 32; ++lane)
      if (mask >> lane & 1) warp[lane].seen = all;
  }
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1)
      for (int i = 0; i < 32; ++i) latest[i] = std::max(latest[i], warp[lane].clock[i]);
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1) {
      std::copy(latest, latest + 32, warp[lane].clock);
      ++warp[lane].clock[lane];
    }
}

void fence() {
  running->unfenced = false;
  unfenced_before_barrier = false;
}

// ---------------------------------------------------------------- mbarriers and engines

// Of an older epoch only the phases count: everything else has an order since.
static void bring_up_to_date(Knowledge& knowledge) {
  knowledge.clocks.resize(running->seen.size());
  if (knowledge.epoch != epoch)
    std::fill(knowledge.clocks.begin(), knowledge.clocks.begin() + block_threads, 0);
  knowledge.epoch = epoch;
}

void release_to(Knowledge& to) {
  bring_up_to_date(to);
  learn(to.clocks, running->seen);
  const int warp = running->index / 32 * 32;
  for (int lane = 0; lane < 32; ++lane) {
    std::uint32_t& known = to.clocks[static_cast<std::size_t>(warp + lane)];
    known = std::max(known, running->clock[lane]);
  }
  ++running->clock[running->index % 32];
}

void acquire_from(const Knowledge& from) {
  Knowledge known = from;
  bring_up_to_date(known);
  learn(running->seen, known.clocks);
}

void phase_seen(int mbarrier, std::uint32_t phase) {
  std::uint32_t& seen = running->seen[static_cast<std::size_t>(block_threads + mbarrier)];
  seen = std::max(seen, phase);
}

void fence_async_proxy() {
  running->proxy_fence = epoch << 13 | running->clock[running->index % 32]++;
}

// Whether whoever wrote these bytes has made them visible to the asynchronous proxy.
static void check_proxy(const void* p, std::size_t bytes, const void* place) {
  Region* region = find_shared(p);
  if (!region) return;
  const Shadow& shadow = *region->shadow;
  if (!shadow.cells) return;
  const auto offset = static_cast<std::size_t>(static_cast<const char*>(p) - region->begin);
  for (std::size_t i = offset >> shadow.shift; i < (offset + bytes) >> shadow.shift; ++i) {
    const Cell& cell = shadow.cells[i];
    if (!cell.write || cell.write == kPending || thread_of(cell.write) >= block_threads) continue;
    if (time_of(cell.write) <= thread_at(thread_of(cell.write)).proxy_fence) continue;
    report("proxy", place,
           format("what thread %d has written to %s at %s, without a fence.proxy.async since",
                  thread_of(cell.write), region->name.c_str(), describe(cell.write_place).c_str()));
    return;
  }
}

void engine_reads(const void* p, std::size_t bytes, const void* place) {
  if (!running || !options.check) return;
  check(p, bytes, Access::read, place);
  check_proxy(p, bytes, place);
}

static void set_writes(void* p, std::size_t bytes, Stamp before, Stamp after) {
  Region* region = find_shared(p);
  const Shadow& shadow = *region->shadow;
  const auto offset = static_cast<std::size_t>(static_cast<char*>(p) - region->begin);
  for (std::size_t i = offset >> shadow.shift; i < (offset + bytes) >> shadow.shift; ++i)
    if (!before || shadow.cells[i].write == before) shadow.cells[i].write = after;
}

void engine_writes(void* p, std::size_t bytes, const void* place) {
  if (!running || !options.check) return;
  check_proxy(p, bytes, place);
  check(p, bytes, Access::write, place);
  set_writes(p, bytes, 0, kPending);
}

void engine_has_written(void* p, std::size_t bytes, int mbarrier, std::uint32_t phase) {
  if (!options.check) return;
  const Stamp now = epoch << 24 | static_cast<Stamp>(block_threads + mbarrier) << 14 |
                    static_cast<Stamp>(std::min(phase, kMostClock)) << 1;
  set_writes(p, bytes, kPending, now);
}

void async_started(const Copy& copy) {
  if (!options.check) return;
  const auto bytes = static_cast<std::size_t>(copy.bytes);
  if (copy.valid) check(copy.global, bytes, Access::read, copy.place);
  check(copy.shared, bytes, Access::write, copy.place);
  Region* region = find_shared(copy.shared);
  if (!region) fail("%s: cp.async writes shared memory only", describe(copy.place).c_str());
  Shadow& shadow = *region->shadow;
  const auto offset = static_cast<std::size_t>(static_cast<char*>(copy.shared) - region->begin);
  for (std::size_t i = offset >> shadow.shift; i < (offset + bytes) >> shadow.shift; ++i)
    shadow.cells[i].write = kPending;
}

void async_landed(const Copy& copy) {
  if (!options.check) return;
  Region* region = find_shared(copy.shared);
  Shadow& shadow = *region->shadow;
  const auto offset = static_cast<std::size_t>(static_cast<char*>(copy.shared) - region->begin);
  const std::size_t end = (offset + static_cast<std::size_t>(copy.bytes)) >> shadow.shift;
  for (std::size_t i = offset >> shadow.shift; i < end; ++i)
    if (shadow.cells[i].write == kPending) shadow.cells[i].write = stamp(false);
}

}  // namespace simt

// ---------------------------------------------------------------- what g++ -fsanitize= calls

using simt::Access;

extern "C" {

#define SIMT_PLACE __builtin_return_address(0)
#define SIMT_HOOKS(bytes)                              \
  void __tsan_read##bytes(void* p) {                   \
    simt::access(p, bytes, Access::read, SIMT_PLACE);  \
  }                                                    \
  void __tsan_write##bytes(void* p) {                  \
    simt::access(p, bytes, Access::write, SIMT_PLACE); \
  }                                                    \
  void __tsan_unaligned_read##bytes(void* p) {         \
    simt::access(p, bytes, Access::read, SIMT_PLACE);  \
  }                                                    \
  void __tsan_unaligned_write##bytes(void* p) {        \
    simt::access(p, bytes, Access::write, SIMT_PLACE); \
  }                                                    \
  void __tsan_volatile_read##bytes(void* p) {          \
    simt::access(p, bytes, Access::read, SIMT_PLACE);  \
  }                                                    \
  void __tsan_volatile_write##bytes(void* p) {         \
    simt::access(p, bytes, Access::write, SIMT_PLACE); \
  }
SIMT_HOOKS(1)
SIMT_HOOKS(2)
SIMT_HOOKS(4)
SIMT_HOOKS(8)
SIMT_HOOKS(16)

void __tsan_read_range(void* p, std::size_t n) {
  simt::access(p, n, Access::read, SIMT_PLACE);
}
void __tsan_write_range(void* p, std::size_t n) {
  simt::access(p, n, Access::write, SIMT_PLACE);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// Host code's own: the guards of its static variables, reference counts.
unsigned char __tsan_atomic8_load(const volatile unsigned char* p, int) {
  return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}
int __tsan_atomic32_fetch_add(volatile int* p, int value, int) {
  return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST);
}

// Undefined behaviour: the data of a finding begins with its place.
struct UndefinedPlace {
  const char* file;
  unsigned line, column;
};
static void undefined(const UndefinedPlace* at, const char* what) {
  simt::report("undefined", simt::place_of(at->file, static_cast<int>(at->line)), what);
  if (simt::running) simt::abandon();
}
void __ubsan_handle_type_mismatch_v1(UndefinedPlace* at, void* p) {
  undefined(at, simt::format("a misaligned or null pointer, %p", p).c_str());
}
void __ubsan_handle_out_of_bounds(UndefinedPlace* at, void*) {
  undefined(at, "an index outside its array");
}
void __ubsan_handle_shift_out_of_bounds(UndefinedPlace* at, void*, void*) {
  undefined(at, "a shift by more than the bits of its type");
}
void __ubsan_handle_divrem_overflow(UndefinedPlace* at, void*, void*) {
  undefined(at, "a division by zero");
}
}
