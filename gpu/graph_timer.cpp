#include "gpu/graph_timer.h"

#include <optional>
#include <utility>

#include <dlfcn.h>

#include "gpu/kernels/kernels.h"

namespace assay::gpu {
namespace {

constexpr int kWarmUps = 3;
constexpr std::int64_t kFlushBytes = std::int64_t{256} << 20;  // several times the L2

struct Event {
  cudaEvent_t event{};
  Event() { ASSAY_CUDA(cudaEventCreate(&event)); }
  ~Event() { cudaEventDestroy(event); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
};

/// Clock and power of the current device from NVML, which comes with the driver. Without it there are no
/// samples.
class Board {
 public:
  Board() {
    void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);  // stays open
    if (library == nullptr) return;
    const auto init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
    const auto by_bus =
        reinterpret_cast<int (*)(const char*, void**)>(dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
    clock_ = reinterpret_cast<Read>(dlsym(library, "nvmlDeviceGetClockInfo"));
    power_ = reinterpret_cast<ReadPower>(dlsym(library, "nvmlDeviceGetPowerUsage"));
    int device = 0;
    char bus[32] = {};
    ASSAY_CUDA(cudaGetDevice(&device));
    ASSAY_CUDA(cudaDeviceGetPCIBusId(bus, sizeof bus, device));
    if (init == nullptr || by_bus == nullptr || clock_ == nullptr || power_ == nullptr || init() != 0 ||
        by_bus(bus, &device_) != 0)
      device_ = nullptr;
  }
  std::optional<BoardSample> sample() const {
    constexpr int kSmClock = 1;  // NVML_CLOCK_SM
    unsigned clock = 0;
    unsigned milliwatts = 0;
    if (device_ == nullptr || clock_(device_, kSmClock, &clock) != 0 || power_(device_, &milliwatts) != 0)
      return std::nullopt;
    return BoardSample{static_cast<int>(clock), static_cast<int>(milliwatts / 1000)};
  }

 private:
  using Read = int (*)(void*, int, unsigned*);
  using ReadPower = int (*)(void*, unsigned*);
  Read clock_ = nullptr;
  ReadPower power_ = nullptr;
  void* device_ = nullptr;
};

}  // namespace

Graph::Graph(cudaStream_t stream, const std::function<void()>& work) {
  cudaGraph_t graph{};
  ASSAY_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  work();
  ASSAY_CUDA(cudaStreamEndCapture(stream, &graph));
  ASSAY_CUDA(cudaGraphInstantiate(&replay_, graph, 0));
  ASSAY_CUDA(cudaGraphDestroy(graph));
}

Graph::Graph(Graph&& other) noexcept : replay_(std::exchange(other.replay_, nullptr)) {}

Graph::~Graph() {
  if (replay_ != nullptr) cudaGraphExecDestroy(replay_);
}

void Graph::launch(cudaStream_t stream) const { ASSAY_CUDA(cudaGraphLaunch(replay_, stream)); }

Replays time_replays(const std::vector<Graph>& graphs, int repetitions, cudaStream_t stream) {
  const Event begin;
  const Event end;
  const Board board;
  const Buffer<char> flush("flush", kFlushBytes);
  ASSAY_CUDA(cudaDeviceSynchronize());  // it is filled on the default stream
  Replays replays;
  replays.microseconds.resize(graphs.size());
  for (int round = 0; round < kWarmUps + repetitions; ++round) {
    for (std::size_t i = 0; i < graphs.size(); ++i) {
      flush_l2(flush.data(), flush.size(), stream);
      ASSAY_CUDA(cudaEventRecord(begin.event, stream));
      graphs[i].launch(stream);
      ASSAY_CUDA(cudaEventRecord(end.event, stream));
      ASSAY_CUDA(cudaEventSynchronize(end.event));
      float milliseconds = 0.0f;
      ASSAY_CUDA(cudaEventElapsedTime(&milliseconds, begin.event, end.event));
      if (round >= kWarmUps) replays.microseconds[i].push_back(milliseconds * 1e3);
    }
    if (round < kWarmUps) continue;
    if (const auto sample = board.sample()) replays.board.push_back(*sample);
  }
  return replays;
}

}  // namespace assay::gpu
