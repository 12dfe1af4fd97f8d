#include <cstring>

#include "core/error.h"
#include "cuda/context.h"
#include "cuda/stream.h"
#include "cuda/table.h"

namespace convlet::cuda {
namespace {

// What a call needs besides its arrays comes from a pool that keeps what it has got: the default
// one gives everything back to the system whenever a stream is waited for.
cudaMemPool_t make_pool() {
  cudaMemPoolProps properties;
  std::memset(&properties, 0, sizeof properties);
  properties.allocType = cudaMemAllocationTypePinned;
  properties.location.type = cudaMemLocationTypeDevice;
  properties.location.id = kDevice;
  cudaMemPool_t pool = nullptr;
  check(cudaMemPoolCreate(&pool, &properties), "a pool of memory");
  std::uint64_t everything = UINT64_MAX;
  check(cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &everything),
        "a pool of memory");
  return pool;
}

cudaMemPool_t pool() {
  static cudaMemPool_t made = make_pool();
  return made;
}

// A point in a stream. Where there is no event to be had, it is reached when this is made.
class Mark {
 public:
  explicit Mark(cudaStream_t stream) {
    if (cudaEventCreateWithFlags(&event_, cudaEventDisableTiming) == cudaSuccess) {
      cudaEventRecord(event_, stream);
    } else {
      event_ = nullptr;
      cudaStreamSynchronize(stream);
    }
  }
  ~Mark() {
    if (event_) cudaEventDestroy(event_);
  }
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;

  cudaEvent_t event() const { return event_; }
  bool reached() const {
    if (!event_ || cudaEventQuery(event_) != cudaErrorNotReady) return true;
    cudaGetLastError();  // "not ready" is kept like an error, and the next check would find it
    return false;
  }

 private:
  cudaEvent_t event_ = nullptr;
};

class CudaStream final : public Stream {
 public:
  CudaStream(cudaStream_t stream, int multiprocessors) : context_(stream, multiprocessors) {
    pool();  // it could not be made while a stream is captured
  }

  Context& context() override { return context_; }

  void* allocate(std::size_t bytes) override {
    void* memory = nullptr;
    if (bytes == 0) return memory;
    if (cudaMallocFromPoolAsync(&memory, bytes, pool(), context_.stream()) == cudaSuccess)
      return memory;
    cudaGetLastError();
    value_error(kTableName, ": not enough memory for a block of ", bytes >> 20,
                " MB; a smaller batch needs less");
  }

  void release(void* memory) noexcept override {
    if (memory) cudaFreeAsync(memory, context_.stream());
  }

  void write(void* memory, const void* host, std::size_t bytes) override {
    expect_no_capture("numbers of the host are copied to the device");
    if (bytes)
      check(cudaMemcpyAsync(memory, host, bytes, cudaMemcpyHostToDevice, context_.stream()),
            "write");
  }

  void read(const void* memory, void* host, std::size_t bytes) override {
    expect_no_capture("values of the device are checked on the host");
    if (bytes)
      check(cudaMemcpyAsync(host, memory, bytes, cudaMemcpyDeviceToHost, context_.stream()),
            "read");
    context_.wait();
  }

  void clear(void* memory, std::size_t bytes) override {
    if (bytes) check(cudaMemsetAsync(memory, 0, bytes, context_.stream()), "clear");
  }

  void check() override { check(cudaGetLastError(), "a kernel could not be launched"); }

  void precede(std::uintptr_t other) override {
    const Mark mark(context_.stream());
    if (!mark.event()) return;
    check(cudaStreamWaitEvent(reinterpret_cast<cudaStream_t>(other), mark.event(), 0),
          "a wait of one stream for another");
  }

  std::function<bool()> mark() override {
    return [mark = std::make_shared<Mark>(context_.stream())] { return mark->reached(); };
  }

 private:
  static void check(cudaError_t error, const char* what) { cuda::check(error, what); }

  void expect_no_capture(const char* why) {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(context_.stream(), &status), "a stream");
    if (status != cudaStreamCaptureStatusNone)
      value_error(kTableName, ": this cannot be part of a captured graph, as ", why);
  }

  const OnGpu here_;
  CudaContext context_;
};

}  // namespace

std::unique_ptr<Stream> make_stream(cudaStream_t stream, int multiprocessors) {
  return std::make_unique<CudaStream>(stream, multiprocessors);
}

}  // namespace convlet::cuda
