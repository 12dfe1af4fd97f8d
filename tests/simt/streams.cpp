// Streams, events and graphs. What is put into a lazy stream runs as late as it may: when the host
// or another stream waits for it; with a seed, by chance, at once. So what forgets to wait meets
// memory that is not written yet, or written over. Streams that the backend makes are lazy; those
// that tests make for it run at once unless they say otherwise, and so do default streams.
#include <cstdio>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <set>

#include "internal.h"

using namespace simt;
using Lock = std::lock_guard<std::recursive_mutex>;
using Work = std::function<cudaError_t()>;

struct SimtGraph {
  std::vector<std::pair<std::string, Work>> nodes;
};
struct SimtStream {
  SimtGraph* capture = nullptr;
  bool lazy = false, own = false;  // whether it waits; whether the backend has made it
  int device = current_device;
  std::deque<Work> waiting;
  std::uint64_t done = 0;   // how much has run
  std::uint64_t waits = 0;  // how often the host has waited for it
};
struct SimtEvent {
  SimtStream* stream = nullptr;
  std::uint64_t position = 0;  // it has happened when so much of the stream has run
  int device = current_device;
};

namespace {

std::map<std::pair<int, const void*>, std::size_t> shared_limits;  // by device and kernel
int launches_to_refusal = 0;                                       // 0: none is refused
std::set<SimtStream*> streams;
void (*during_capture)() = nullptr;

// The handles 1 and 2 stand for default streams.
bool is_made(cudaStream_t stream) {
  return reinterpret_cast<std::uintptr_t>(stream) > 2;
}
bool is_captured(cudaStream_t stream) {
  return is_made(stream) && stream->capture;
}

// Kernels, and what is like them, need the stream's device to be the thread's.
bool is_elsewhere(cudaStream_t stream) {
  return is_made(stream) && stream->device != current_device;
}

cudaError_t run_until(SimtStream* stream, std::uint64_t position) {
  if (!streams.count(stream)) return cudaSuccess;
  while (stream->done < position && !stream->waiting.empty()) {
    const Work work = std::move(stream->waiting.front());
    stream->waiting.pop_front();
    ++stream->done;
    if (cudaError_t error = work()) return error;
  }
  return cudaSuccess;
}

bool runs_at_once() {
  static std::uint32_t state = 1;
  if (options.seed <= 0) return false;
  state = state * 1664525u + 1013904223u;
  return state >> 31;
}

// Into the stream, or into the graph that is being captured from it.
cudaError_t put(cudaStream_t stream, const std::string& name, Work work) {
  Lock lock(mutex);
  if (is_captured(stream)) {
    stream->capture->nodes.emplace_back(name, std::move(work));
    return cudaSuccess;
  }
  if (!is_made(stream)) return work();
  stream->waiting.push_back(std::move(work));
  return !stream->lazy || (stream->own && runs_at_once()) ? run_until(stream, UINT64_MAX)
                                                          : cudaSuccess;
}

}  // namespace

namespace simt {

int launch_device = 0;

cudaError_t run_launch(const cudaLaunchConfig_t& config, std::size_t shared_limit,
                       const Call& call);

void run_all_streams() {
  for (SimtStream* stream : streams) run_until(stream, UINT64_MAX);
}

cudaError_t set_shared_limit(const void* kernel, int bytes) {
  Lock lock(mutex);
  if (bytes < 0 || static_cast<std::size_t>(bytes) > kSharedLimit)
    return note(cudaErrorInvalidValue);
  shared_limits[{current_device, kernel}] = static_cast<std::size_t>(bytes);
  return cudaSuccess;
}

cudaError_t launch(const cudaLaunchConfig_t& config, const Call& call) {
  if (during_capture && is_captured(config.stream)) during_capture();
  Lock lock(mutex);
  if (launches_to_refusal > 0 && --launches_to_refusal == 0)
    return note(cudaErrorInvalidConfiguration);
  if (is_elsewhere(config.stream)) return note(cudaErrorInvalidResourceHandle);
  const int device = current_device;
  auto found = shared_limits.find({device, call.kernel});
  const std::size_t limit = found == shared_limits.end() ? std::size_t{48} << 10 : found->second;
  const bool captured = is_captured(config.stream);
  return put(config.stream, captured ? function_name(call.kernel) : "", [=] {
    launch_device = device;
    return run_launch(config, limit, call);
  });
}

}  // namespace simt

// As in CUDA, a copy from the host's memory that is not pinned has read it when the call returns,
// and one to such memory has written it.
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  Lock lock(mutex);
  const bool inside = kind == cudaMemcpyDeviceToDevice;
  if (is_captured(stream) && !inside) return note(cudaErrorStreamCaptureUnsupported);
  if (kind == cudaMemcpyHostToDevice && !is_pinned(from) && !in_device_range(from)) {
    auto source = std::make_shared<std::vector<char>>(bytes);
    if (bytes) std::memcpy(source->data(), from, bytes);
    return put(stream, "copy", [=] { return host_copy(to, source->data(), bytes); });
  }
  const cudaError_t error = put(stream, "copy", [=] { return host_copy(to, from, bytes); });
  if (error || inside || kind == cudaMemcpyHostToDevice || is_pinned(to)) return error;
  return run_until(stream, UINT64_MAX);
}
cudaError_t cudaMemsetAsync(void* memory, int value, std::size_t bytes, cudaStream_t stream) {
  if (is_elsewhere(stream)) return note(cudaErrorInvalidResourceHandle);
  return put(stream, "memset", [=] { return fill(memory, value, bytes); });
}

// The block goes back in the stream's order; a graph keeps it for its replays.
cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  Lock lock(mutex);
  if (is_captured(stream)) return cudaSuccess;
  return put(stream, "free", [=] { return free_now(memory); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Lock lock(mutex);
  *stream = new SimtStream;
  (*stream)->lazy = (*stream)->own = true;
  streams.insert(*stream);
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(mutex);
  if (is_captured(stream)) return note(cudaErrorStreamCaptureUnsupported);
  if (is_made(stream)) ++stream->waits;
  return run_until(stream, UINT64_MAX);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Lock lock(mutex);
  run_until(stream, UINT64_MAX);
  streams.erase(stream);
  delete stream;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new SimtEvent;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Lock lock(mutex);
  const int device = is_made(stream) ? stream->device : current_device;
  if (device != event->device) return note(cudaErrorInvalidResourceHandle);
  *event = is_made(stream) ? SimtEvent{stream, stream->done + stream->waiting.size(), device}
                           : SimtEvent{nullptr, 0, device};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(mutex);
  return run_until(event->stream, event->position);
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  Lock lock(mutex);
  const bool reached = !event->stream || event->stream->done >= event->position;
  return reached ? cudaSuccess : note(cudaErrorNotReady);
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
// Waits for the event as it was last recorded before this call.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return put(stream, "wait", [was = *event] { return run_until(was.stream, was.position); });
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Lock lock(mutex);
  *status = is_captured(stream) ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  Lock lock(mutex);
  if (!is_made(stream) || stream->capture) return note(cudaErrorStreamCaptureUnsupported);
  stream->capture = new SimtGraph;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(mutex);
  *graph = stream->capture;
  stream->capture = nullptr;
  return *graph ? cudaSuccess : note(cudaErrorStreamCaptureUnsupported);
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* instance, cudaGraph_t graph, unsigned long long) {
  *instance = new SimtGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t instance, cudaStream_t stream) {
  if (is_elsewhere(stream)) return note(cudaErrorInvalidResourceHandle);
  return put(stream, "graph", [graph = *instance] {
    for (const auto& [name, work] : graph.nodes)
      if (cudaError_t error = work()) return error;
    return cudaSuccess;
  });
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t instance) {
  delete instance;
  return cudaSuccess;
}
cudaError_t cudaGraphDebugDotPrint(cudaGraph_t graph, const char* path, unsigned) {
  FILE* file = std::fopen(path, "w");
  if (!file) return note(cudaErrorInvalidValue);
  std::fprintf(file, "digraph step {\n");
  for (std::size_t i = 0; i < graph->nodes.size(); ++i) {
    std::fprintf(file, "  n%zu [label=\"%s\"];\n", i, graph->nodes[i].first.c_str());
    if (i) std::fprintf(file, "  n%zu -> n%zu;\n", i - 1, i);
  }
  std::fprintf(file, "}\n");
  std::fclose(file);
  return cudaSuccess;
}

// ---------------------------------------------------------------- for tests

extern "C" {
#define SIMT_EXPORT __attribute__((visibility("default")))

SIMT_EXPORT SimtStream* simt_stream() {
  Lock lock(mutex);
  return *streams.insert(new SimtStream).first;
}
// Whether the stream runs nothing before somebody waits for it.
SIMT_EXPORT void simt_set_lazy(SimtStream* stream, int lazy) {
  Lock lock(mutex);
  run_until(stream, UINT64_MAX);
  stream->lazy = lazy != 0;
}
// Runs what it has got, as a GPU would in its own time.
SIMT_EXPORT void simt_run_stream(SimtStream* stream) {
  Lock lock(mutex);
  run_until(stream, UINT64_MAX);
}
// What to call before each launch that becomes part of a graph.
SIMT_EXPORT void simt_during_capture(void (*function)()) {
  during_capture = function;
}
// The n-th launch from now on fails, as one does that asks for too much.
SIMT_EXPORT void simt_refuse_launch(int n) {
  Lock lock(mutex);
  launches_to_refusal = n;
}
// How often somebody has waited for it.
SIMT_EXPORT std::size_t simt_waits(const SimtStream* stream) {
  return stream->waits;
}
SIMT_EXPORT void simt_begin_capture(SimtStream* stream) {
  cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal);
}
SIMT_EXPORT SimtGraph* simt_end_capture(SimtStream* stream) {
  SimtGraph* graph = nullptr;
  cudaStreamEndCapture(stream, &graph);
  return graph;
}
SIMT_EXPORT void simt_replay(SimtGraph* graph) {
  cudaGraphLaunch(graph, nullptr);
}
}
