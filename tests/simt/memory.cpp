// The device's memory and a block's shared memory. An allocation ends at a page that nobody may
// touch and is NaN until it is written; shared arrays lie apart from each other, with guards
// between.
#include <dlfcn.h>
#include <link.h>
#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "internal.h"

namespace simt {

thread_local int current_device = 0;

void make_fresh(char* memory, std::size_t bytes) {
  for (; bytes >= sizeof kFresh; memory += sizeof kFresh, bytes -= sizeof kFresh)
    std::memcpy(memory, &kFresh, sizeof kFresh);
  std::memcpy(memory, &kFresh, bytes);
}

bool is_fresh(const char* byte) {
  const auto place = reinterpret_cast<std::uintptr_t>(byte) % sizeof kFresh;
  return std::memcmp(byte, reinterpret_cast<const char*>(&kFresh) + place, 1) == 0;
}

bool is_word_fresh(const char* byte) {
  const auto place = reinterpret_cast<std::uintptr_t>(byte) % sizeof kFresh;
  return std::memcmp(byte - place, &kFresh, sizeof kFresh) == 0;
}

namespace {

constexpr std::size_t kPage = 4096;
constexpr std::size_t kDeviceRange = std::size_t{1} << 40;  // of addresses; memory comes as needed
constexpr std::size_t kSharedArena = std::size_t{1} << 20, kGuard = 128;

struct Allocation {
  Region region;
  char* pages;
  std::size_t page_bytes;
};
std::map<const char*, Allocation> allocations;  // by first byte
Allocation* recent = nullptr;
char *device_begin = nullptr, *device_end = nullptr, *device_next = nullptr;

char* shared_arena = nullptr;
char* shared_next = nullptr;
std::size_t shared_bytes = 0;
std::vector<Region> shared_regions;
std::size_t dynamic_index = 0, dynamic_size = 0;
bool has_dynamic = false;

std::map<const char*, std::size_t> pinned;  // bytes, by first byte

std::vector<std::pair<const char*, const char*>> module_ranges;

void find_module() {
  static int here = 0;
  Dl_info info;
  dladdr(&here, &info);
  dl_iterate_phdr(
      [](dl_phdr_info* phdr, std::size_t, void* base) {
        if (reinterpret_cast<void*>(phdr->dlpi_addr) != base) return 0;
        for (int i = 0; i < phdr->dlpi_phnum; ++i) {
          const auto& header = phdr->dlpi_phdr[i];
          if (header.p_type != PT_LOAD) continue;
          const char* begin = reinterpret_cast<const char*>(phdr->dlpi_addr + header.p_vaddr);
          module_ranges.emplace_back(begin, begin + header.p_memsz);
        }
        return 1;
      },
      info.dli_fbase);
}

void reserve() {
  if (device_begin) return;
  void* range =
      mmap(nullptr, kDeviceRange, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) return;
  device_begin = device_next = static_cast<char*>(range);
  device_end = device_begin + kDeviceRange;
  shared_arena = static_cast<char*>(
      mmap(nullptr, kSharedArena, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  find_module();
}

Allocation* find(const void* p) {
  const char* c = static_cast<const char*>(p);
  if (recent && c >= recent->region.begin && c < recent->region.end) return recent;
  auto after = allocations.upper_bound(c);
  if (after == allocations.begin()) return nullptr;
  Allocation& candidate = std::prev(after)->second;
  if (c >= candidate.region.end) return nullptr;
  return recent = &candidate;
}

char* place_shared(std::size_t bytes, std::size_t alignment, const char* name, const void* key) {
  const auto mask = static_cast<std::uintptr_t>(std::max<std::size_t>(alignment, 16) - 1);
  char* begin = reinterpret_cast<char*>(
      (reinterpret_cast<std::uintptr_t>(shared_next + kGuard) + mask) & ~mask);
  shared_bytes += (bytes + 15) / 16 * 16;
  if (shared_bytes > kSharedLimit) fail("%zu bytes of shared memory in a block", shared_bytes);
  shared_next = begin + bytes;
  make_fresh(begin - kGuard, bytes + 2 * kGuard);
  shared_regions.push_back({begin, begin + bytes, name, new_shadow(bytes), key});
  return begin;
}

}  // namespace

cudaError_t host_copy(void* to, const void* from, std::size_t bytes) {
  for (const void* end : {static_cast<const void*>(to), from}) {
    if (bytes == 0 || !in_device_range(end)) continue;
    Allocation* a = find(end);
    if (!a || static_cast<const char*>(end) + bytes > a->region.end) {
      report("copy", nullptr, format("a copy of %zu bytes leaves its allocation", bytes));
      return note(cudaErrorInvalidValue);
    }
    if (end == to) mark_written(a->region, to, bytes);
  }
  if (bytes) std::memcpy(to, from, bytes);
  return cudaSuccess;
}

cudaError_t fill(void* memory, int value, std::size_t bytes) {
  if (bytes == 0) return cudaSuccess;
  Allocation* a = find(memory);
  if (!a || static_cast<char*>(memory) + bytes > a->region.end) {
    report("memset", nullptr, format("%zu bytes leave their allocation", bytes));
    return note(cudaErrorInvalidValue);
  }
  mark_written(a->region, memory, bytes);
  std::memset(memory, value, bytes);
  return cudaSuccess;
}

bool in_device_range(const void* p) {
  return p >= device_begin && p < device_end;
}
bool is_pinned(const void* p) {
  auto after = pinned.upper_bound(static_cast<const char*>(p));
  return after != pinned.begin() && p < std::prev(after)->first + std::prev(after)->second;
}
bool in_shared_range(const void* p) {
  return p >= shared_arena && p < shared_arena + kSharedArena;
}
bool in_module(const void* p) {
  for (const auto& [begin, end] : module_ranges)
    if (p >= begin && p < end) return true;
  return false;
}

Region* find_allocation(const void* p) {
  Allocation* a = find(p);
  return a ? &a->region : nullptr;
}

Region* find_shared(const void* p) {
  for (Region& region : shared_regions)
    if (p >= region.begin && p < region.end) return &region;
  return nullptr;
}

void begin_block_memory(std::size_t dynamic_bytes) {
  reserve();
  shared_next = shared_arena;
  shared_bytes = 0;
  dynamic_size = dynamic_bytes;
  has_dynamic = false;
}

void end_block_memory() {
  for (Region& region : shared_regions) {
    for (std::size_t i = 0; i < kGuard; ++i)
      if (!is_fresh(region.begin - 1 - i) || !is_fresh(region.end + i)) {
        report("shared memory", nullptr, "written beside " + region.name);
        break;
      }
    delete_shadow(region.shadow);
  }
  shared_regions.clear();
}

void* static_shared(const void* key, std::size_t bytes, std::size_t alignment, const char* name) {
  for (Region& region : shared_regions)
    if (region.key == key) return region.begin;
  return place_shared(bytes, alignment, name, key);
}

char* shared_base() {
  return shared_arena;
}

void* dynamic_shared() {
  if (!has_dynamic) {
    place_shared(dynamic_size, 128, "the dynamic shared memory", nullptr);
    dynamic_index = shared_regions.size() - 1;
    has_dynamic = true;
  }
  return shared_regions[dynamic_index].begin;
}

}  // namespace simt

using namespace simt;
using Lock = std::lock_guard<std::recursive_mutex>;

cudaError_t cudaMalloc(void** memory, std::size_t bytes) {
  Lock lock(mutex);
  reserve();
  const std::size_t used = (bytes + 15) / 16 * 16, pages = (used + kPage - 1) / kPage * kPage;
  if (!device_begin || pages > kDeviceRange / 4) return note(cudaErrorMemoryAllocation);
  if (device_next + pages + kPage > device_end) device_next = device_begin;
  // Once round all addresses: live allocations are passed over.
  for (auto at = allocations.begin(); at != allocations.end(); ++at) {
    const Allocation& a = at->second;
    if (a.pages < device_next + pages + kPage && device_next < a.pages + a.page_bytes + kPage) {
      device_next = a.pages + a.page_bytes + kPage;
      if (device_next + pages + kPage > device_end) return note(cudaErrorMemoryAllocation);
    }
  }
  char* begin = device_next;
  if (pages && mprotect(begin, pages, PROT_READ | PROT_WRITE))
    return note(cudaErrorMemoryAllocation);
  device_next += pages + kPage;
  make_fresh(begin, pages);
  char* first = begin + pages - used;
  allocations[first] = {
      {first, first + bytes, "global memory", new_shadow(bytes), nullptr, false, current_device},
      begin,
      pages};
  *memory = first;
  return cudaSuccess;
}

cudaError_t cudaMallocManaged(void** memory, std::size_t bytes, unsigned) {
  Lock lock(mutex);
  const cudaError_t error = cudaMalloc(memory, bytes);
  if (error == cudaSuccess) allocations[static_cast<char*>(*memory)].region.visible = true;
  return error;
}

cudaError_t simt::free_now(void* memory) {
  if (!memory) return cudaSuccess;
  auto found = allocations.find(static_cast<char*>(memory));
  if (found == allocations.end()) return note(cudaErrorInvalidValue);
  const Allocation& a = found->second;
  delete_shadow(a.region.shadow);
  if (a.page_bytes)
    mmap(a.pages, a.page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
         -1, 0);
  recent = nullptr;
  allocations.erase(found);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  Lock lock(mutex);
  if (memory) run_all_streams();
  return free_now(memory);
}

// ---------------------------------------------------------------- the device

cudaError_t cudaMallocAsync(void** memory, std::size_t bytes, cudaStream_t) {
  return cudaMalloc(memory, bytes);
}
cudaError_t cudaMemPoolCreate(cudaMemPool_t* pool, const cudaMemPoolProps* properties) {
  *pool = nullptr;
  return properties->location.id == 0 ? cudaSuccess : note(cudaErrorInvalidDevice);
}
cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, cudaMemPoolAttr, void*) {
  return cudaSuccess;
}
cudaError_t cudaMallocFromPoolAsync(void** memory, std::size_t bytes, cudaMemPool_t,
                                    cudaStream_t stream) {
  const cudaError_t error = cudaMallocAsync(memory, bytes, stream);
  if (error == cudaSuccess) find_allocation(*memory)->device = 0;  // as the pool is
  return error;
}
cudaError_t cudaHostAlloc(void** memory, std::size_t bytes, unsigned) {
  Lock lock(mutex);
  const std::size_t whole = (std::max<std::size_t>(bytes, 1) + kPage - 1) / kPage * kPage;
  *memory = std::aligned_alloc(kPage, whole);
  if (!*memory) return note(cudaErrorMemoryAllocation);
  make_fresh(static_cast<char*>(*memory), whole);
  pinned[static_cast<const char*>(*memory)] = whole;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* p) {
  Lock lock(mutex);
  const Region* region = find_allocation(p);
  attributes->type = in_device_range(p) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  attributes->device = region ? region->device : 0;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) {
  Lock lock(mutex);
  if (!memory) return cudaSuccess;
  run_all_streams();
  if (!pinned.erase(static_cast<const char*>(memory))) return note(cudaErrorInvalidValue);
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = 2;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device > 1) return note(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}
cudaError_t cudaGetDevice(int* device) {
  *device = current_device;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  std::strcpy(properties->name, "CUDA kernels emulated on the CPU");
  properties->totalGlobalMem = std::size_t{4} << 30;
  properties->major = 8;
  properties->multiProcessorCount = 4;
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 0;
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  *free = *total = std::size_t{4} << 30;
  return cudaSuccess;
}

extern "C" {
#define SIMT_EXPORT __attribute__((visibility("default")))

SIMT_EXPORT std::size_t simt_allocations() {
  Lock lock(mutex);
  return allocations.size();
}
SIMT_EXPORT void simt_set_device(int device) {
  cudaSetDevice(device);
}
SIMT_EXPORT int simt_device() {
  return current_device;
}
}
