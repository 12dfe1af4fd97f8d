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
  void replay() override { check(cudaGraphLaunch(instance_, stream_), "replay of a step"); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t instance_;
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
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture of a step");
  cudaGraph_t graph = nullptr;
  try {
    calls();
  } catch (...) {
    if (cudaStreamEndCapture(stream, &graph) == cudaSuccess) cudaGraphDestroy(graph);
    throw;
  }
  check(cudaStreamEndCapture(stream, &graph), "capture of a step");
  cudaGraphExec_t instance = nullptr;
  const cudaError_t error = cudaGraphInstantiate(&instance, graph, 0);
  if (error == cudaSuccess) dump(graph, name);
  cudaGraphDestroy(graph);
  check(error, "capture of a step");
  return std::make_unique<Graph>(stream, instance);
}

}  // namespace convlet::cuda
