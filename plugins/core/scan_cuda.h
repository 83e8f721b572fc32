// The selective scan on CUDA, forward only.
#pragma once

#include <cuda_runtime_api.h>

#include "scan.h"

namespace mambapro {

// The CUDA scan takes at most this many states a channel: they are kept in shared memory.
constexpr int64_t kMaxCudaStates = 1024;

// Queues the scan on `stream`; all pointers are device memory and y overlaps no input. Needs no
// workspace, allocates nothing, does not wait, and can be captured in a CUDA graph.
// cudaErrorInvalidValue if a size is zero, the groups do not divide the rows, or a size is beyond
// the limits (kMaxCudaStates states, sizes and thread blocks below 2^31).
cudaError_t ScanForwardCuda(const ScanParams& params, cudaStream_t stream) noexcept;

}  // namespace mambapro
