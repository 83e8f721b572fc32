// Chooses how the CUDA scan is spread over the device, and launches it.
#include <initializer_list>
#include <limits>

#include "scan_cuda.cuh"
#include "scan_cuda.h"

namespace mambapro {
namespace {

// Throughput: 4 threads a channel do the least work beside the recurrence. Latency: four times the
// blocks, for launches that would leave multiprocessors idle.
constexpr int kThroughputLanes = 4, kThroughputChannels = 32;
constexpr int kLatencyLanes = 8, kLatencyChannels = 8;
constexpr int kBlocksToFill = 2;  // a multiprocessor

static_assert(cuda::SharedBytes<kLatencyLanes, kLatencyChannels>(kMaxCudaStates / cuda::kGroup) <=
                  48 * 1024,
              "more shared memory than a launch gets without asking for it");

int64_t CeilDivide(int64_t a, int64_t b) { return (a + b - 1) / b; }

constexpr int64_t kLargest = std::numeric_limits<int32_t>::max();

template <typename T, int kLanes, int kChannels, bool kMany>
cudaError_t Launch(const ScanParams& params, cudaStream_t stream) {
  const int64_t blocks = params.rows * CeilDivide(params.channels, kChannels);
  const size_t shared =
      cuda::SharedBytes<kLanes, kChannels>(CeilDivide(params.states, cuda::kGroup));
  ScanParams copy = params;
  void* arguments[] = {&copy};
  return cudaLaunchKernel(cuda::ScanKernel<T, kLanes, kChannels, kMany>,
                          dim3(static_cast<unsigned>(blocks)),
                          dim3(cuda::Threads<kLanes, kChannels>()), arguments, shared, stream);
}

template <typename T>
cudaError_t Dispatch(const ScanParams& params, cudaStream_t stream) {
  if (params.states > cuda::kGroup) {
    return Launch<T, kLatencyLanes, kLatencyChannels, true>(params, stream);
  }
  int device = 0, processors = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  if (error != cudaSuccess) return error;
  if (params.rows * CeilDivide(params.channels, kThroughputChannels) >=
      kBlocksToFill * processors) {
    return Launch<T, kThroughputLanes, kThroughputChannels, false>(params, stream);
  }
  return Launch<T, kLatencyLanes, kLatencyChannels, false>(params, stream);
}

}  // namespace

const char* CheckScanCuda(const ScanParams& p) noexcept {
  for (int64_t size : {p.rows, p.groups, p.length, p.channels, p.states}) {
    if (size < 1) return "no size of the scan may be zero";
    if (size > kLargest - cuda::kTileSteps) return "the CUDA scan takes sizes below 2^31 - 16";
  }
  if (p.rows % p.groups != 0) return "the groups of A must divide the first size of u";
  if (p.states > kMaxCudaStates) return "the CUDA scan takes at most 1024 states";
  if (p.rows * CeilDivide(p.channels, kLatencyChannels) > kLargest) {
    return "the CUDA scan takes less than 2^31 blocks of 8 channels";
  }
  return nullptr;
}

cudaError_t ScanForwardCuda(const ScanParams& params, cudaStream_t stream) noexcept {
  if (CheckScanCuda(params)) return cudaErrorInvalidValue;
  switch (params.type) {
    case ScalarType::kFloat32:
      return Dispatch<float>(params, stream);
    case ScalarType::kFloat16:
      return Dispatch<__half>(params, stream);
    case ScalarType::kBFloat16:
      return Dispatch<__nv_bfloat16>(params, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace mambapro
