#include <atomic>
#include <cstdlib>

#include "core/error.h"
#include "cuda/capture.h"
#include "cuda/context.h"

namespace convlet::cuda {
namespace {

class Graph final : public Recording {
 public:
  Graph(cudaStream_t stream, cudaGraphExec_t instance) : stream_(stream), instance_(instance) {}
  ~Graph() override { cudaGraphExecDestroy(instance_); }
  void replay() override {
    const OnGpu here;
    check(cudaGraphLaunch(instance_, stream_), "replay of a step");
  }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t instance_;
};

// What this thread launches goes into a stream of its own, and from there into a graph: what other
// threads launch meanwhile does not become a part of the step.
class Capture {
 public:
  Capture() {
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), kWhat);
    const cudaError_t error = cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal);
    if (error != cudaSuccess) cudaStreamDestroy(stream_);
    check(error, kWhat);
    CudaContext::recorded_from = stream_;
  }
  ~Capture() {
    end();
    if (graph_) cudaGraphDestroy(graph_);
    cudaStreamDestroy(stream_);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  // The graph is this object's.
  cudaGraph_t graph() {
    check(end(), kWhat);
    return graph_;
  }

 private:
  static constexpr const char* kWhat = "capture of a step";
  cudaError_t end() {
    if (!CudaContext::recorded_from) return cudaSuccess;
    CudaContext::recorded_from = nullptr;
    return cudaStreamEndCapture(stream_, &graph_);
  }

  cudaStream_t stream_ = nullptr;
  cudaGraph_t graph_ = nullptr;
};

void dump(cudaGraph_t graph, const std::string& name) {
  static std::atomic<int> number{0};
  const char* folder = std::getenv("CONVLET_DUMP_GRAPHS");
  if (!folder || !*folder) return;
  const std::string path = concat(folder, '/', number++, '-', name, ".dot");
  check(cudaGraphDebugDotPrint(graph, path.c_str(), cudaGraphDebugDotFlagsVerbose),
        ("CONVLET_DUMP_GRAPHS: " + path).c_str());
}

}  // namespace

std::unique_ptr<Recording> capture(cudaStream_t stream, const std::string& name,
                                   const std::function<void()>& calls) {
  const char* wanted = std::getenv("CONVLET_CAPTURE");
  if (wanted && std::string(wanted) == "0") return nullptr;
  const OnGpu here;
  Capture capture;
  calls();
  // What is missing from the graph, the graph would run without.
  check(cudaGetLastError(), "a kernel could not be launched");
  cudaGraph_t graph = capture.graph();
  dump(graph, name);
  cudaGraphExec_t instance = nullptr;
  check(cudaGraphInstantiate(&instance, graph, 0), "capture of a step");
  return std::make_unique<Graph>(stream, instance);
}

}  // namespace convlet::cuda
