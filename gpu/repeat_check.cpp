#include "gpu/repeat_check.h"

#include <optional>
#include <vector>

#include "gpu/fused_launches.h"

namespace assay::gpu {
namespace {

constexpr int kRepetitions = 20;

using Bytes = std::vector<unsigned char>;

}  // namespace

std::int64_t count_runs_that_differ(const Problem& problem, const Problem& other, const GpuOptions& options) {
  require_runnable(problem.sizes(), options);
  DeviceProblem device = upload(problem);
  const FusedWorkspace workspace(problem.sizes(), options, device.has_backward());
  const auto gradients = device.has_backward() ? std::make_optional<FusedGradients>(problem.sizes(), options)
                                               : std::optional<FusedGradients>();
  FusedRun layer = fused_run(device, workspace, options);
  if (gradients) layer.gradients = &*gradients;
  const Stream stream;
  const Stream second_stream;
  const auto launch = [&](cudaStream_t on) {
    launch_pass(Pass::Forward, layer, on);
    if (gradients) launch_pass(Pass::Backward, layer, on);
  };
  const auto everything = [&] {
    Bytes bytes = results(workspace);
    if (!gradients) return bytes;
    const Bytes behind = results(*gradients);
    bytes.insert(bytes.end(), behind.begin(), behind.end());
    return bytes;
  };
  const auto run = [&](cudaStream_t on) {
    ASSAY_CUDA(cudaDeviceSynchronize());
    launch(on);
    ASSAY_CUDA(cudaStreamSynchronize(on));
    return everything();
  };
  const Bytes first = run(stream);
  std::int64_t differing = 0;
  for (int i = 0; i < kRepetitions; ++i) differing += run(i % 2 == 0 ? stream : second_stream) != first;

  device.input.upload(other.input.bytes().data(), 0, other.input.size());
  run(stream);
  device.input.upload(problem.input.bytes().data(), 0, problem.input.size());
  differing += run(stream) != first;

  cudaGraph_t graph{};
  cudaGraphExec_t replay{};
  ASSAY_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  launch(stream);
  ASSAY_CUDA(cudaStreamEndCapture(stream, &graph));
  ASSAY_CUDA(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 2; ++i) ASSAY_CUDA(cudaGraphLaunch(replay, stream));
  ASSAY_CUDA(cudaStreamSynchronize(stream));
  ASSAY_CUDA(cudaGraphExecDestroy(replay));
  ASSAY_CUDA(cudaGraphDestroy(graph));
  differing += everything() != first;
  workspace.verify_guards();
  if (gradients) gradients->verify_guards();
  return differing;
}

}  // namespace assay::gpu
