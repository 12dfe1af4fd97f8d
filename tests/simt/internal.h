// What the parts of the emulator know of each other: scheduler.cpp runs the threads of a launch,
// memory.cpp owns what they touch, checker.cpp judges each touch, tensor_copy.cpp and wgmma.cpp are
// what of sm_90a goes on by itself, streams.cpp decides when what is in a stream runs, report.cpp
// says what was wrong, counters.cpp counts bank conflicts. One launch at a time, under `mutex`.
#pragma once
#include <mutex>
#include <string>
#include <vector>

#include "simt.h"

namespace simt {

constexpr int kMostThreads = 1024, kMostWarps = kMostThreads / 32;
constexpr std::size_t kSharedLimit = std::size_t{227} << 10;  // of a block, on sm_90

enum class Async { late, early, random };  // when an asynchronous copy lands

struct Options {
  int seed = 0;  // 0: in order; -1: in reverse, greedily; above: shuffled, odd ones greedily
  Async async = Async::late;
  bool check = true;   // bounds, initialised, races of every access
  bool count = false;  // bank conflicts and sectors
};
extern Options options;
extern std::recursive_mutex mutex;

std::uint64_t random_bits();

// There are two GPUs, which do not see each other's memory. The calling thread's, as CUDA has it,
// and that of the launch that runs.
extern thread_local int current_device;
extern int launch_device;

// ---------------------------------------------------------------- report.cpp

// One finding; the same kind at the same place is counted but written once.
void report(const char* kind, const void* place, const std::string& message);
std::string format(const char* format, ...);
std::string describe(const void* place);  // file:line
std::string function_name(const void* place);
int findings();
cudaError_t note(cudaError_t error);  // remembers it for cudaGetLastError

// ---------------------------------------------------------------- scheduler.cpp

struct Copy {
  void* shared;
  const void* global;
  int bytes;
  bool valid, landed;
  const void* place;
};

struct Thread {
  int index;  // in the block
  uint3 id;
  enum class State { ready, waiting, done } state;
  int position;      // in the schedule
  const char* file;  // where it waits
  int line;
  void* stack_pointer;
  std::vector<std::vector<Copy>> groups;  // of cp.async, oldest first
  std::vector<Copy> open;
  std::uint32_t clock[32];  // what it knows of the lanes of its warp, since the last barrier
  bool unfenced;            // has written global memory since its last fence
  // Once the block has an mbarrier: what it knows of every thread since the last barrier, and then
  // of every mbarrier's phases.
  std::vector<std::uint32_t> seen;
  std::uint64_t proxy_fence;  // time of its last fence.proxy.async
  bool has_products;          // of a warpgroup, under way
};

// Null outside kernels: also on threads of the host that go on while another runs a kernel.
extern thread_local Thread* running __attribute__((tls_model("initial-exec")));
extern int block_threads;
Thread& thread_at(int index);
bool on_fiber_stack(const void* p);
[[noreturn]] void abandon();            // ends the launch
void wait(const char* file, int line);  // until another thread calls set_ready
void set_ready(Thread& thread);
// Waits for all threads of the warpgroup; the last calls compute(arguments by thread, number).
void warpgroup_meeting(void* argument, int number, void (*compute)(void** arguments, int number),
                       const char* file, int line);

// ---------------------------------------------------------------- memory.cpp

// What is known of each granule of some memory; granules are words until someone writes less.
struct Shadow;

// Every word of fresh memory: a NaN as float32, float64 and bfloat16, and nothing that hosts write
// (unlike -1, the label of an ignored row).
constexpr std::uint32_t kFresh = 0x7FFAFFFE;
void make_fresh(char* memory, std::size_t bytes);
bool is_fresh(const char* byte);       // whether this byte is as in fresh memory
bool is_word_fresh(const char* byte);  // whether the whole word around it is

struct Region {
  char *begin, *end;
  std::string name;
  Shadow* shadow;
  const void* key;       // of a static shared array
  bool visible = false;  // the host may write it: a word that is not kFresh has been written
  int device = 0;
};
Region* find_allocation(const void* p);
bool in_device_range(const void* p);
bool in_module(const void* p);
bool is_pinned(const void* p);
cudaError_t host_copy(void* to, const void* from, std::size_t bytes);
cudaError_t fill(void* memory, int value, std::size_t bytes);
cudaError_t free_now(void* memory);  // whatever streams have still to do with it
Region* find_shared(const void* p);
bool in_shared_range(const void* p);
void begin_block_memory(std::size_t dynamic_bytes);
void end_block_memory();  // reports what was written beside the arrays

// ---------------------------------------------------------------- checker.cpp

Shadow* new_shadow(std::size_t bytes);
void delete_shadow(Shadow* shadow);
void mark_written(Region& region, const void* p, std::size_t bytes);  // by the host
void begin_launch_checks();
void begin_block_checks();
void barrier_passed();
void warp_synchronised(unsigned mask);
void async_started(const Copy& copy);
void async_landed(const Copy& copy);

// What a thread knew when it arrived at an mbarrier.
struct Knowledge {
  std::uint64_t epoch = 0;
  std::vector<std::uint32_t> clocks;
};
void release_to(Knowledge& to);
void acquire_from(const Knowledge& from);
void phase_seen(int mbarrier, std::uint32_t phase);  // by the running thread
// The copy engine and the tensor cores, which see what others have written after a proxy fence.
void engine_reads(const void* p, std::size_t bytes, const void* place);
void engine_writes(void* p, std::size_t bytes, const void* place);
void engine_has_written(void* p, std::size_t bytes, int mbarrier, std::uint32_t phase);

// ---------------------------------------------------------------- tensor_copy.cpp, wgmma.cpp

constexpr int kMostMbarriers = 64;  // of a block

void begin_block_copies();
void end_block_copies();  // reports what nobody has waited for
bool land_tensor_copy();  // one that is under way, if there is one
std::string stuck_mbarriers();

void begin_block_products();
void end_thread_products();                  // the running thread returns
bool is_register_of_product(const void* p);  // of one that the running thread has under way

// Swizzling exchanges the pieces of 16 bytes of a line of 32, 64 or 128 by the bits above it.
inline char* swizzled(char* place, int swizzle) {
  const std::uintptr_t mask = (std::uintptr_t{1} << swizzle) - 1;
  const auto address = reinterpret_cast<std::uintptr_t>(place);
  return reinterpret_cast<char*>(address ^ (address >> 7 & mask) << 4);
}

// ---------------------------------------------------------------- streams.cpp

void run_all_streams();  // until nothing waits

// ---------------------------------------------------------------- counters.cpp

void count_access(const void* p, std::size_t bytes, bool shared, const void* place);
void begin_block_counts(const void* kernel, std::size_t dynamic_bytes);
void end_block_counts();

}  // namespace simt
