// mbarriers, which count arrivals and bytes, and the engine that copies boxes of tensors, after the
// PTX manual, sections "mbarrier" and "Tensors". What the driver requires of a tensor map is what
// cuda.h lists.
#include <map>

#include "internal.h"
#include "ptx_sm90.h"

namespace simt {

// ---------------------------------------------------------------- mbarriers

namespace {

struct Mbarrier {
  int index;
  int count, pending;                             // arrivals
  std::int64_t bytes;                             // that this phase still expects
  std::uint32_t phase = 0, copied = 0, seen = 0;  // completed; of the last copy; waited for
  bool known_to_engine = false;
  int maker;
  const void* place;
  Knowledge collected, complete;
  std::vector<int> waiters;
};
std::map<const void*, Mbarrier> mbarriers;

constexpr int kMostCount = (1 << 20) - 1;

Mbarrier& find_mbarrier(const void* b, const char* what, const void* place) {
  auto found = mbarriers.find(b);
  if (found == mbarriers.end())
    fail("%s: %s of an mbarrier that nobody has initialised", describe(place).c_str(), what);
  access(b, 8, Access::atomic, place);
  return found->second;
}

void complete_phase(Mbarrier& m) {
  if (m.pending || m.bytes) return;
  ++m.phase;
  m.pending = m.count;
  m.complete = m.collected;
  for (int waiter : m.waiters) set_ready(thread_at(waiter));
  m.waiters.clear();
}

}  // namespace

void mbarrier_init(void* b, int count, const void* place) {
  if (reinterpret_cast<std::uintptr_t>(b) % 8 || !in_shared_range(b))
    fail("%s: an mbarrier is 8 aligned bytes of shared memory", describe(place).c_str());
  if (count < 1 || count > kMostCount)
    fail("%s: an mbarrier counts 1 to %d arrivals", describe(place).c_str(), kMostCount);
  access(b, 8, Access::write, place);
  const int index = static_cast<int>(mbarriers.size());
  if (index >= kMostMbarriers || block_threads + kMostMbarriers > kMostThreads)
    fail("%s: too many threads or mbarriers in a block for the emulator", describe(place).c_str());
  if (mbarriers.count(b)) fail("%s: an mbarrier is initialised twice", describe(place).c_str());
  if (index == 0)
    for (int i = 0; i < block_threads; ++i)
      thread_at(i).seen.assign(static_cast<std::size_t>(block_threads + kMostMbarriers), 0);
  Mbarrier m = {};
  m.index = index;
  m.count = m.pending = count;
  m.maker = running->index;
  m.place = place;
  mbarriers[b] = m;
}

void mbarrier_fence_init() {
  for (auto& [b, m] : mbarriers) m.known_to_engine |= m.maker == running->index;
}

void mbarrier_arrive(void* b, int bytes, const void* place) {
  Mbarrier& m = find_mbarrier(b, "an arrival", place);
  if (m.pending == 0)
    fail("%s: more arrivals than the %d that the mbarrier counts", describe(place).c_str(),
         m.count);
  release_to(m.collected);
  m.bytes += bytes;
  --m.pending;
  complete_phase(m);
}

void mbarrier_wait(void* b, int parity, const char* file, int line) {
  const void* place = place_of(file, line);
  while (find_mbarrier(b, "a wait", place).phase % 2 == static_cast<unsigned>(parity & 1)) {
    mbarriers[b].waiters.push_back(running->index);
    wait(file, line);
  }
  Mbarrier& m = mbarriers[b];
  acquire_from(m.complete);
  phase_seen(m.index, m.phase);
  m.seen = m.phase;
}

std::string stuck_mbarriers() {
  std::string text;
  for (const auto& [b, m] : mbarriers)
    if (!m.waiters.empty())
      text += format("; phase %u of the mbarrier of %s lacks %d arrivals and %lld bytes", m.phase,
                     describe(m.place).c_str(), m.pending, static_cast<long long>(m.bytes));
  return text;
}

// ---------------------------------------------------------------- copies of boxes

namespace {

struct TensorMap {
  const char* data;
  std::uint64_t stride[5];  // in bytes
  std::uint32_t last[5];    // index
  std::int16_t lower[3], upper[3];
  std::uint16_t box[5];  // im2col: channels, pixels
  std::uint8_t step[5];
  std::uint8_t rank, im2col, swizzle, made;
};
static_assert(sizeof(TensorMap) <= sizeof(CUtensorMap), "a tensor map has 128 bytes");
constexpr std::uint8_t kMade = 0xA5;
constexpr std::size_t kElement = 2;  // bytes of a bfloat16

struct TensorCopy {
  TensorMap map;
  char* shared;
  const void* mbarrier;
  std::int64_t at[5];
  std::int64_t offset[3];
  const void* place;
};
std::vector<TensorCopy> tensor_copies;

// Calls row(bytes of the box, where they come from or null for zeros).
template <class Row>
void for_each_row(const TensorCopy& copy, Row&& row) {
  const TensorMap& m = copy.map;
  std::int64_t at[5];
  std::copy(copy.at, copy.at + 5, at);
  std::int64_t rows = 1;
  if (m.im2col)
    rows = m.box[1];
  else
    for (int d = 1; d < m.rank; ++d) rows *= m.box[d];
  for (std::int64_t r = 0; r < rows; ++r) {
    const char* from = m.data;
    bool inside = true;
    for (int d = 1; d < m.rank; ++d) {
      std::int64_t index = at[d];
      if (m.im2col && d < m.rank - 1) index += copy.offset[d - 1];
      inside = inside && index >= 0 && index <= m.last[d];
      from += index * static_cast<std::int64_t>(m.stride[d]);
    }
    row(r, inside ? from : nullptr);
    // The next place of the box; of an image, within the corners, then the next image.
    for (int d = 1; d < m.rank; ++d) {
      at[d] += m.step[d];
      if (m.im2col) {
        if (d == m.rank - 1 || at[d] <= static_cast<std::int64_t>(m.last[d]) + m.upper[d - 1])
          break;
        at[d] = m.lower[d - 1];
      } else {
        if (at[d] < copy.at[d] + m.box[d]) break;
        at[d] = copy.at[d];
      }
    }
  }
}

std::size_t row_bytes(const TensorMap& m) {
  return m.box[0] * kElement;
}

std::size_t box_bytes(const TensorMap& m) {
  std::size_t bytes = row_bytes(m);
  for (int d = 1; d < (m.im2col ? 2 : m.rank); ++d) bytes *= m.box[d];
  return bytes;
}

// The part of a row of the box that lies in the tensor: [first, end) of its elements.
void channels_inside(const TensorCopy& copy, std::int64_t* first, std::int64_t* end) {
  const std::int64_t size = static_cast<std::int64_t>(copy.map.last[0]) + 1;
  *first = std::min<std::int64_t>(std::max<std::int64_t>(-copy.at[0], 0), copy.map.box[0]);
  *end = std::max(std::min<std::int64_t>(size - copy.at[0], copy.map.box[0]), *first);
}

void land(const TensorCopy& copy) {
  const std::size_t bytes = row_bytes(copy.map);
  std::int64_t first, end;
  channels_inside(copy, &first, &end);
  for_each_row(copy, [&](std::int64_t r, const char* from) {
    for (std::int64_t c = 0; c < copy.map.box[0]; ++c) {
      char* to = swizzled(copy.shared + static_cast<std::size_t>(r) * bytes +
                              static_cast<std::size_t>(c) * kElement,
                          copy.map.swizzle);
      if (from && c >= first && c < end)
        std::memcpy(to, from + (copy.at[0] + c) * static_cast<std::int64_t>(kElement), kElement);
      else
        std::memset(to, 0, kElement);
    }
  });
  Mbarrier& m = mbarriers[copy.mbarrier];
  m.copied = m.phase + 1;
  engine_has_written(copy.shared, box_bytes(copy.map), m.index, m.copied);
  m.bytes -= static_cast<std::int64_t>(box_bytes(copy.map));
  complete_phase(m);
}

void check_tensor_copy(const TensorCopy& copy) {
  const TensorMap& m = copy.map;
  const std::string where = describe(copy.place);
  if (m.made != kMade) fail("%s: not a tensor map", where.c_str());
  const std::uintptr_t alignment = m.swizzle ? std::uintptr_t{128} << m.swizzle : 128;
  if (reinterpret_cast<std::uintptr_t>(copy.shared) % alignment)
    fail("%s: a box in shared memory begins at a multiple of %zu bytes", where.c_str(),
         static_cast<std::size_t>(alignment));
  if (m.im2col)
    for (int d = 1; d < m.rank - 1; ++d)
      if (copy.at[d] < m.lower[d - 1] ||
          copy.at[d] > static_cast<std::int64_t>(m.last[d]) + m.upper[d - 1] ||
          copy.offset[d - 1] < 0 || copy.offset[d - 1] > (m.rank == 4 ? 255 : 31))
        fail("%s: coordinate %d of an image is outside its corners, or its offset too large",
             where.c_str(), d);
}

}  // namespace

void tensor_copy(void* shared, const CUtensorMap* map, const int* at, const int* offset,
                 void* mbarrier, const void* place) {
  if (reinterpret_cast<std::uintptr_t>(map) % 64)
    fail("%s: a tensor map is aligned to 64 bytes", describe(place).c_str());
  TensorCopy copy = {};
  std::memcpy(&copy.map, map, sizeof copy.map);
  copy.shared = static_cast<char*>(shared);
  copy.mbarrier = mbarrier;
  copy.place = place;
  const TensorMap& m = copy.map;
  for (int d = 0; d < m.rank; ++d) copy.at[d] = at[d];
  if (offset != nullptr)
    for (int d = 0; d < m.rank - 2; ++d) copy.offset[d] = offset[d];
  check_tensor_copy(copy);
  if ((offset != nullptr) != (m.im2col != 0))
    fail("%s: a tensor map of the other kind", describe(place).c_str());
  if (!find_mbarrier(mbarrier, "a copy", place).known_to_engine)
    report("proxy", place, "the copy engine does not know the mbarrier: no fence after its init");

  std::int64_t first, end;
  channels_inside(copy, &first, &end);
  for_each_row(copy, [&](std::int64_t, const char* from) {
    if (from && end > first)
      access(from + (at[0] + first) * static_cast<std::int64_t>(kElement),
             static_cast<std::size_t>(end - first) * kElement, Access::read, place);
  });
  engine_writes(shared, box_bytes(m), place);
  tensor_copies.push_back(copy);
  if (options.async == Async::early || (options.async == Async::random && random_bits() % 2)) {
    tensor_copies.pop_back();
    land(copy);
  }
}

bool land_tensor_copy() {
  if (tensor_copies.empty()) return false;
  const std::size_t i = options.seed > 0 ? random_bits() % tensor_copies.size() : 0;
  const TensorCopy copy = tensor_copies[i];
  tensor_copies.erase(tensor_copies.begin() + static_cast<std::ptrdiff_t>(i));
  land(copy);
  return true;
}

// ---------------------------------------------------------------- blocks

void begin_block_copies() {
  mbarriers.clear();
  tensor_copies.clear();
}

void end_block_copies() {
  for (bool any = true; any;) any = land_tensor_copy();
  for (const auto& [b, m] : mbarriers) {
    if (m.copied > m.seen)
      report("mbarrier", m.place, "nobody has waited for the last copies of this mbarrier");
    if (m.bytes)
      report(
          "mbarrier", m.place,
          format("%lld bytes more were expected than have come", static_cast<long long>(m.bytes)));
  }
}

}  // namespace simt

// ---------------------------------------------------------------- tensor maps

using simt::TensorMap;

namespace {

constexpr std::uint64_t kMostBytesApart = std::uint64_t{1} << 40;

bool fill_map(TensorMap& m, CUtensorMapDataType type, cuuint32_t rank, const void* data,
              const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* steps,
              CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle) {
  if (type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
      rank < 1 || rank > 5 || reinterpret_cast<std::uintptr_t>(data) % 16)
    return false;
  m = {};
  m.data = static_cast<const char*>(data);
  m.rank = static_cast<std::uint8_t>(rank);
  m.swizzle = static_cast<std::uint8_t>(swizzle);
  m.made = simt::kMade;
  for (cuuint32_t d = 0; d < rank; ++d) {
    if (sizes[d] == 0 || sizes[d] > std::uint64_t{1} << 32 || steps[d] < 1 || steps[d] > 8)
      return false;
    m.last[d] = static_cast<std::uint32_t>(sizes[d] - 1);
    m.step[d] = static_cast<std::uint8_t>(steps[d]);
    m.stride[d] = d ? strides[d - 1] : simt::kElement;
    if (d && (m.stride[d] % 16 || m.stride[d] >= kMostBytesApart)) return false;
  }
  return true;
}

// A line that is shorter than the swizzle's is possible, but not emulated.
bool fits_swizzle(const TensorMap& m) {
  const std::size_t bytes = simt::row_bytes(m);
  return bytes % 16 == 0 && (!m.swizzle || bytes == std::size_t{16} << m.swizzle);
}

CUresult made(CUtensorMap* map, const TensorMap& m) {
  std::memcpy(map, &m, sizeof m);
  return CUDA_SUCCESS;
}

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                      const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* steps, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                      CUtensorMapFloatOOBfill fill) {
  TensorMap m;
  if (!fill_map(m, type, rank, data, sizes, strides, steps, interleave, swizzle) ||
      fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
    return CUDA_ERROR_INVALID_VALUE;
  for (cuuint32_t d = 0; d < rank; ++d) {
    if (box[d] < 1 || box[d] > 256 || steps[d] != 1) return CUDA_ERROR_INVALID_VALUE;
    m.box[d] = static_cast<std::uint16_t>(box[d]);
  }
  return fits_swizzle(m) ? made(map, m) : CUDA_ERROR_INVALID_VALUE;
}

CUresult encode_im2col(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* data,
                       const cuuint64_t* sizes, const cuuint64_t* strides, const int* lower,
                       const int* upper, cuuint32_t channels, cuuint32_t pixels,
                       const cuuint32_t* steps, CUtensorMapInterleave interleave,
                       CUtensorMapSwizzle swizzle, CUtensorMapL2promotion,
                       CUtensorMapFloatOOBfill fill) {
  TensorMap m;
  if (rank != 4 || !fill_map(m, type, rank, data, sizes, strides, steps, interleave, swizzle) ||
      fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE || channels > 256 || pixels > 1024)
    return CUDA_ERROR_INVALID_VALUE;
  m.im2col = 1;
  m.box[0] = static_cast<std::uint16_t>(channels);
  m.box[1] = static_cast<std::uint16_t>(pixels);
  for (int i = 0; i < 2; ++i) {
    for (int corner : {lower[i], upper[i]})
      if (corner < -128 || corner > 127) return CUDA_ERROR_INVALID_VALUE;
    if (lower[i] > static_cast<std::int64_t>(m.last[i + 1]) + upper[i])
      return CUDA_ERROR_INVALID_VALUE;
    m.lower[i] = static_cast<std::int16_t>(lower[i]);
    m.upper[i] = static_cast<std::int16_t>(upper[i]);
  }
  return fits_swizzle(m) ? made(map, m) : CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

cudaError_t cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned,
                                             unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  const std::string wanted = name;
  *function = wanted == "cuTensorMapEncodeTiled"    ? reinterpret_cast<void*>(encode_tiled)
              : wanted == "cuTensorMapEncodeIm2col" ? reinterpret_cast<void*>(encode_im2col)
                                                    : nullptr;
  *found = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}
