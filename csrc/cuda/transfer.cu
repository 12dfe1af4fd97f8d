#include <cstring>
#include <list>

#include "cuda/launch.h"
#include "cuda/transfer.h"

namespace convlet::cuda {
namespace {

// Pinned memory that grows.
class Pinned {
 public:
  Pinned() = default;
  Pinned(const Pinned&) = delete;
  Pinned& operator=(const Pinned&) = delete;
  ~Pinned() { cudaFreeHost(data_); }

  char* data() const { return static_cast<char*>(data_); }
  // Nothing may be under way in or out of it.
  void reserve(std::size_t bytes) {
    if (bytes <= bytes_) return;
    cudaFreeHost(data_);
    data_ = nullptr;
    bytes_ = 0;
    const OnGpu here;
    check(cudaHostAlloc(&data_, bytes, cudaHostAllocDefault), "pinned memory");
    bytes_ = bytes;
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

class Event {
 public:
  Event() {
    const OnGpu here;
    check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "event");
  }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  ~Event() { cudaEventDestroy(event_); }

  void record(cudaStream_t stream) { check(cudaEventRecord(event_, stream), "event"); }
  // An event that was never recorded lies in the past.
  void delay(cudaStream_t stream) { check(cudaStreamWaitEvent(stream, event_, 0), "event"); }
  void wait() { check(cudaEventSynchronize(event_), "a kernel has failed"); }

 private:
  cudaEvent_t event_ = nullptr;
};

class PinnedReadback final : public Readback {
 public:
  explicit PinnedReadback(CudaContext& context) : context_(context) {}
  ~PinnedReadback() override { cudaStreamSynchronize(context_.stream()); }

  // Also where a launch comes out that has failed: the wait in take() does not know of it.
  void send(const void* memory, std::size_t bytes) override {
    check(cudaGetLastError(), "a kernel could not be launched");
    if (free_.empty()) free_.emplace_back();
    Slot& slot = free_.front();
    slot.memory.reserve(bytes);
    slot.bytes = bytes;
    if (bytes)
      check(cudaMemcpyAsync(slot.memory.data(), memory, bytes, cudaMemcpyDeviceToHost,
                            context_.stream()),
            "read");
    slot.done.record(context_.stream());
    sent_.splice(sent_.end(), free_, free_.begin());
  }

  void take(void* host) override {
    Slot& oldest = sent_.front();
    oldest.done.wait();
    if (oldest.bytes) std::memcpy(host, oldest.memory.data(), oldest.bytes);
    free_.splice(free_.begin(), sent_, sent_.begin());
  }

 private:
  struct Slot {
    Pinned memory;
    std::size_t bytes = 0;
    Event done;
  };
  CudaContext& context_;
  std::list<Slot> free_, sent_;
};

class PinnedUpload final : public Upload {
 public:
  explicit PinnedUpload(CudaContext& context) : context_(context) {
    const OnGpu here;
    check(cudaStreamCreateWithFlags(&copies_, cudaStreamNonBlocking), "stream");
  }
  ~PinnedUpload() override {
    cudaStreamSynchronize(copies_);
    for (Slot& slot : slots_) cudaFree(slot.device);  // waits for the kernels that read it
    cudaStreamDestroy(copies_);
  }

  char* fill(std::size_t bytes) override {
    slots_[now_].read.record(context_.stream());  // the kernels that read it have been called
    now_ = 1 - now_;
    Slot& slot = slots_[now_];
    slot.copied.wait();
    if (bytes > slot.capacity) grow(slot, bytes);
    slot.bytes = bytes;
    return slot.host.data();
  }

  const char* send() override {
    Slot& slot = slots_[now_];
    slot.read.delay(copies_);
    if (slot.bytes)
      check(cudaMemcpyAsync(slot.device, slot.host.data(), slot.bytes, cudaMemcpyHostToDevice,
                            copies_),
            "write");
    slot.copied.record(copies_);
    slot.copied.delay(context_.stream());
    return static_cast<const char*>(slot.device);
  }

 private:
  struct Slot {
    Pinned host;
    void* device = nullptr;
    std::size_t bytes = 0, capacity = 0;
    Event copied, read;
  };

  void grow(Slot& slot, std::size_t bytes) {
    cudaFree(slot.device);  // waits for the kernels that read it
    slot.device = nullptr;
    slot.capacity = 0;
    const OnGpu here;
    check(cudaMalloc(&slot.device, bytes), "memory for a batch");
    slot.host.reserve(bytes);
    slot.capacity = bytes;
  }

  CudaContext& context_;
  cudaStream_t copies_ = nullptr;
  Slot slots_[2];
  int now_ = 0;
};

struct Words {
  std::uint32_t word[kMostArgumentBytes / 4];
};

__global__ void __launch_bounds__(kMostArgumentBytes / 4)
    write_argument_kernel(Words words, int count, std::uint32_t* to) {
  const int i = static_cast<int>(threadIdx.x);
  if (i < count) to[i] = words.word[i];
}

}  // namespace

std::unique_ptr<Readback> readback(CudaContext& context) {
  return std::make_unique<PinnedReadback>(context);
}

std::unique_ptr<Upload> upload(CudaContext& context) {
  return std::make_unique<PinnedUpload>(context);
}

void write_argument(Context& context, void* memory, const void* host, std::size_t bytes) {
  Words words{};
  std::memcpy(words.word, host, bytes);
  launch(context, write_argument_kernel, 1, kMostArgumentBytes / 4, 0, words,
         static_cast<int>(bytes / 4), static_cast<std::uint32_t*>(memory));
}

}  // namespace convlet::cuda
