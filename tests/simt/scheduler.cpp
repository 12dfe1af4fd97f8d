// Runs a launch: blocks one after another, the threads of a block as fibers on the calling thread.
// A fiber runs until it waits for others; then the next that is ready, in an order that the
// options choose, goes on.
#include <sys/mman.h>

#include <cstdarg>
#include <cstdio>
#include <map>

#include "internal.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace simt {

Options options;
std::recursive_mutex mutex;
thread_local Thread* running = nullptr;
int block_threads = 0;

namespace {

constexpr std::size_t kStack = std::size_t{128} << 10, kPage = 4096;

// Lanes that have met at a collective and wait for the others of its mask.
struct Meeting {
  unsigned mask = 0, arrived = 0;  // mask 0: free
  Collective kind = Collective::sync;
  const char* file = nullptr;
  int line = 0;
  void* arguments[32];
};

struct Warp {
  Meeting meetings[32];
};

struct Warpgroup {
  int arrived = 0, number = 0;
  const char* file = nullptr;
  int line = 0;
  void* arguments[128];
};

struct Barrier {
  int arrived = 0, sum = 0;
  bool all = true, any = false;
  const char* file = nullptr;
  int line = 0;
};

Thread threads[kMostThreads];
Warp warps[kMostWarps];
Warpgroup warpgroups[kMostWarps / 4];
Barrier block_barrier;
int barrier_result = 0;
int alive = 0;
bool aborted = false, greedy = false;
int order[kMostThreads];                 // thread by position; a warp's positions are contiguous
std::uint64_t ready[kMostThreads / 64];  // by position
char* stacks = nullptr;
void* host_stack = nullptr;
Call current;
std::uint64_t random_state = 1;

// ---------------------------------------------------------------- fibers

// Saves the registers that a function must keep, and the stack pointer, and takes the other's.
extern "C" void simt_switch(void** save, void* load);
#if !defined(__x86_64__)
#error "the emulator's fibers are written for x86-64"
#endif
asm(R"(
.text
.globl simt_switch
.hidden simt_switch
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
)");

void switch_to(Thread* next) {  // null: the host
  Thread* from = running;
  running = next;
  if (next) threadIdx = next->id;
  simt_switch(from ? &from->stack_pointer : &host_stack, next ? next->stack_pointer : host_stack);
}

}  // namespace

void set_ready(Thread& thread) {
  thread.state = Thread::State::ready;
  ready[thread.position / 64] |= std::uint64_t{1} << thread.position % 64;
}

Thread& thread_at(int index) {
  return threads[index];
}

namespace {

void clear_ready(Thread& thread, Thread::State state) {
  thread.state = state;
  ready[thread.position / 64] &= ~(std::uint64_t{1} << thread.position % 64);
}

// The next that is ready after a position, round and round; in greedy order first those of its
// warp, so that the fastest warp gets as far ahead of the others as the barriers let it.
Thread* next_ready(int position) {
  const int words = (block_threads + 63) / 64;
  if (greedy) {
    const auto warp = static_cast<std::uint32_t>(ready[position / 64] >> (position & 32));
    const std::uint32_t later = warp & ~((std::uint32_t{2} << (position & 31)) - 1);
    const std::uint32_t choice = later ? later : warp;
    if (choice) return &threads[order[position / 32 * 32 + __builtin_ctz(choice)]];
  }
  const int first = (position + 1) % block_threads;
  std::uint64_t bits = ready[first / 64] & ~std::uint64_t{0} << first % 64;
  for (int i = 0, word = first / 64; i <= words; ++i) {
    if (bits) return &threads[order[word * 64 + __builtin_ctzll(bits)]];
    word = (word + 1) % words;
    bits = ready[word];
  }
  return nullptr;
}

[[noreturn]] void report_deadlock() {
  std::map<std::pair<std::string, int>, int> waiting;
  for (int i = 0; i < block_threads; ++i)
    if (threads[i].state == Thread::State::waiting) ++waiting[{threads[i].file, threads[i].line}];
  std::string message;
  for (const auto& [place, count] : waiting)
    message += format("%s%d threads wait at %s:%d", message.empty() ? "" : ", ", count,
                      place.first.c_str(), place.second);
  fail("deadlock: %s; %d have returned%s", message.c_str(), block_threads - alive,
       stuck_mbarriers().c_str());
}

// Where all threads wait, copies that are under way go on.
Thread* next_or_deadlock(int position) {
  if (options.async == Async::random && random_bits() % 4 == 0) land_tensor_copy();
  Thread* next = next_ready(position);
  while (!next && land_tensor_copy()) next = next_ready(position);
  if (!next) report_deadlock();
  return next;
}

}  // namespace

void wait(const char* file, int line) {
  Thread* me = running;
  clear_ready(*me, Thread::State::waiting);
  me->file = file;
  me->line = line;
  switch_to(next_or_deadlock(me->position));
}

namespace {

void fiber_main() {
  current.run(current.kernel, current.arguments.get());
  Thread* me = running;
  end_thread_products();
  copy_async_commit();
  copy_async_wait(0);
  clear_ready(*me, Thread::State::done);
  --alive;
  if (block_barrier.arrived)
    fail("a thread returned while %d wait at the barrier at %s:%d", block_barrier.arrived,
         block_barrier.file, block_barrier.line);
  switch_to(alive ? next_or_deadlock(me->position) : nullptr);
}

void prepare_fiber(Thread& thread) {
  char* top = stacks + thread.index * (kStack + kPage) + kPage + kStack;
  // Fibers' hot frames shall not all fall into the same cache set.
  void** sp = reinterpret_cast<void**>(top - 64 - thread.index % 32 * 64);
  *--sp = nullptr;
  *--sp = reinterpret_cast<void*>(fiber_main);
  for (int i = 0; i < 6; ++i) *--sp = nullptr;
  thread.stack_pointer = sp;
}

// ---------------------------------------------------------------- blocks

template <class T>
void shuffle_items(T* items, std::size_t count) {
  for (std::size_t i = count; i > 1; --i) std::swap(items[i - 1], items[random_bits() % i]);
}

void choose_order() {
  for (int i = 0; i < block_threads; ++i) order[i] = options.seed == -1 ? block_threads - 1 - i : i;
  greedy = options.seed == -1 || options.seed % 2 == 1;
  if (options.seed <= 0) return;
  int warp_order[kMostWarps];
  const int count = block_threads / 32;
  for (int i = 0; i < count; ++i) warp_order[i] = i;
  shuffle_items(warp_order, count);
  for (int i = 0; i < block_threads; ++i) order[i] = warp_order[i / 32] * 32 + i % 32;
  for (int i = 0; i < count; ++i) shuffle_items(order + i * 32, 32);
}

void run_block(std::size_t dynamic_bytes) {
  begin_block_memory(dynamic_bytes);
  begin_block_checks();
  begin_block_copies();
  begin_block_products();
  choose_order();
  block_barrier = {};
  alive = block_threads;
  std::fill(ready, ready + kMostThreads / 64, 0);  // a launch that was given up leaves some
  for (int i = 0; i < block_threads / 32; ++i) warps[i] = {};
  for (Warpgroup& group : warpgroups) group = {};
  for (int i = 0; i < block_threads; ++i) threads[order[i]].position = i;
  for (int i = 0; i < block_threads; ++i) {
    Thread& thread = threads[i];
    thread.index = i;
    const unsigned u = static_cast<unsigned>(i);
    thread.id = {u % blockDim.x, u / blockDim.x % blockDim.y, u / blockDim.x / blockDim.y};
    thread.groups.clear();
    thread.open.clear();
    std::fill(thread.clock, thread.clock + 32, 0);
    thread.clock[i % 32] = 1;
    thread.unfenced = false;
    thread.seen.clear();
    thread.proxy_fence = 0;
    thread.has_products = false;
    prepare_fiber(thread);
    set_ready(thread);
  }
  switch_to(&threads[order[0]]);
  end_block_copies();
  end_block_memory();
}

const char* bad_configuration(const cudaLaunchConfig_t& c) {
  const dim3 &grid = c.gridDim, &block = c.blockDim;
  const std::uint64_t size = std::uint64_t{block.x} * block.y * block.z;
  if (size == 0 || size > kMostThreads) return "a block has 1 to 1024 threads";
  if (size % 32) return "the size of a block is a multiple of 32";
  if (!grid.x || !grid.y || !grid.z) return "the grid is empty";
  if (grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) return "the grid is too large";
  return nullptr;
}

}  // namespace

std::uint64_t random_bits() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

bool on_fiber_stack(const void* p) {
  const char* c = static_cast<const char*>(p);
  const char* arguments = static_cast<const char*>(current.arguments.get());
  return (c >= stacks && c < stacks + kMostThreads * (kStack + kPage)) ||
         (c >= arguments && c < arguments + current.bytes);
}

void abandon() {
  aborted = true;
  switch_to(nullptr);
  __builtin_unreachable();
}

cudaError_t run_launch(const cudaLaunchConfig_t& config, std::size_t shared_limit,
                       const Call& call) {
  if (!stacks) {
    stacks =
        static_cast<char*>(mmap(nullptr, kMostThreads * (kStack + kPage), PROT_READ | PROT_WRITE,
                                MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    for (int i = 0; i < kMostThreads; ++i)
      mprotect(stacks + i * (kStack + kPage), kPage, PROT_NONE);
  }
  if (const char* wrong = bad_configuration(config)) {
    report("launch", static_cast<const char*>(call.kernel) + 1, wrong);
    return note(cudaErrorInvalidConfiguration);
  }
  if (config.dynamicSmemBytes > shared_limit) {
    report("launch", static_cast<const char*>(call.kernel) + 1,
           format("%zu bytes of shared memory, of %zu allowed", config.dynamicSmemBytes,
                  shared_limit));
    return note(cudaErrorInvalidValue);
  }
  gridDim = config.gridDim;
  blockDim = config.blockDim;
  block_threads = static_cast<int>(blockDim.x * blockDim.y * blockDim.z);
  current = call;
  aborted = false;
  random_state = 0x9E3779B97F4A7C15u * (static_cast<std::uint64_t>(options.seed) + 2) | 1;
  const int before = findings();
  begin_launch_checks();

  std::vector<std::uint64_t> blocks(std::uint64_t{gridDim.x} * gridDim.y * gridDim.z);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    blocks[i] = options.seed == -1 ? blocks.size() - 1 - i : i;
  if (options.seed > 0) shuffle_items(blocks.data(), blocks.size());
  for (std::uint64_t i : blocks) {
    blockIdx = {static_cast<unsigned>(i % gridDim.x),
                static_cast<unsigned>(i / gridDim.x % gridDim.y),
                static_cast<unsigned>(i / gridDim.x / gridDim.y)};
    begin_block_counts(call.kernel, config.dynamicSmemBytes);
    run_block(config.dynamicSmemBytes);
    end_block_counts();
    if (aborted) break;
  }
  current = {};
  return findings() > before ? note(cudaErrorLaunchFailure) : cudaSuccess;
}

// ---------------------------------------------------------------- what kernels call

int lane_id() {
  return running->index % 32;
}

int barrier(BarrierSum sum, int value, const char* file, int line) {
  Barrier& b = block_barrier;
  if (alive < block_threads)
    fail("%d threads have returned before the barrier at %s:%d", block_threads - alive, file, line);
  if (b.arrived && (b.line != line || std::strcmp(b.file, file)))
    fail("threads wait at different barriers: %s:%d and %s:%d", b.file, b.line, file, line);
  b.file = file;
  b.line = line;
  b.sum += value != 0;
  b.all = b.all && value;
  b.any = b.any || value;
  if (++b.arrived < block_threads) {
    wait(file, line);
  } else {
    barrier_result = sum == BarrierSum::count ? b.sum : sum == BarrierSum::all ? b.all : b.any;
    b = {};
    barrier_passed();
    for (int i = 0; i < block_threads; ++i) set_ready(threads[i]);
  }
  return barrier_result;
}

void collective(unsigned mask, Collective kind, void* argument, Compute compute, const char* file,
                int line) {
  const int lane = lane_id(), warp = running->index / 32;
  const unsigned bit = 1u << lane;
  if (!(mask & bit)) fail("%s:%d: lane %d is not in its mask %08x", file, line, lane, mask);
  Meeting* meeting = nullptr;
  for (Meeting& m : warps[warp].meetings) {
    if (m.mask == mask) meeting = &m;
    if (meeting || (!m.mask && (meeting = &m))) break;
  }
  if (!meeting->mask) {
    meeting->mask = mask;
    meeting->arrived = 0;
    meeting->kind = kind;
    meeting->file = file;
    meeting->line = line;
  } else if (meeting->kind != kind || meeting->line != line || std::strcmp(meeting->file, file)) {
    fail("lanes of a warp wait at different collectives: %s:%d and %s:%d", meeting->file,
         meeting->line, file, line);
  }
  meeting->arrived |= bit;
  meeting->arguments[lane] = argument;
  if (meeting->arrived != mask) return wait(file, line);
  if (compute) compute(meeting->arguments, mask);
  if (kind == Collective::sync) warp_synchronised(mask);
  meeting->mask = 0;
  for (int i = 0; i < 32; ++i)
    if (mask >> i & 1) set_ready(threads[warp * 32 + i]);
}

void warpgroup_meeting(void* argument, int number, void (*compute)(void** arguments, int number),
                       const char* file, int line) {
  const int first = running->index / 128 * 128;
  Warpgroup& group = warpgroups[first / 128];
  if (first + 128 > block_threads) fail("%s:%d: no whole warpgroup", file, line);
  if (group.arrived &&
      (group.line != line || std::strcmp(group.file, file) || group.number != number))
    fail("threads of a warpgroup wait differently: at %s:%d for %d groups and %s:%d for %d",
         group.file, group.line, group.number, file, line, number);
  group.file = file;
  group.line = line;
  group.number = number;
  group.arguments[running->index - first] = argument;
  if (++group.arrived < 128) return wait(file, line);
  compute(group.arguments, number);
  group.arrived = 0;
  for (int i = first; i < first + 128; ++i) set_ready(threads[i]);
}

// ---------------------------------------------------------------- cp.async

namespace {

void land(Copy& copy) {
  if (copy.landed) return;
  copy.landed = true;
  if (copy.valid)
    std::memcpy(copy.shared, copy.global, static_cast<std::size_t>(copy.bytes));
  else
    std::memset(copy.shared, 0, static_cast<std::size_t>(copy.bytes));
}

}  // namespace

void copy_async(void* shared, const void* global, int bytes, bool valid, const void* place) {
  const auto alignment = static_cast<std::uintptr_t>(bytes);
  if (reinterpret_cast<std::uintptr_t>(shared) % alignment ||
      (valid && reinterpret_cast<std::uintptr_t>(global) % alignment)) {
    report("misaligned", place, format("a copy of %d bytes from %p to %p", bytes, global, shared));
    abandon();
  }
  Copy copy{shared, global, bytes, valid, false, place};
  async_started(copy);
  if (options.async == Async::early || (options.async == Async::random && random_bits() % 2))
    land(copy);
  running->open.push_back(copy);
}

void copy_async_commit() {
  running->groups.push_back(std::move(running->open));
  running->open.clear();
}

void copy_async_wait(int newest) {
  auto& groups = running->groups;
  while (groups.size() > static_cast<std::size_t>(newest)) {
    for (Copy& copy : groups.front()) {
      land(copy);
      async_landed(copy);
    }
    groups.erase(groups.begin());
  }
}

void fail(const char* text, ...) {
  va_list arguments;
  va_start(arguments, text);
  char message[1024];
  vsnprintf(message, sizeof message, text, arguments);
  va_end(arguments);
  report("error", nullptr, message);
  abandon();
}

}  // namespace simt
