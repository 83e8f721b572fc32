// The selective scan on CUDA, forward only.
#pragma once

#include <cuda_runtime_api.h>

#include "scan.h"

namespace mambapro {

// The CUDA scan takes at most this many states a channel: they are kept in shared memory.
constexpr int64_t kMaxCudaStates = 1024;

// Returns nullptr when the CUDA scan can run these sizes, else one sentence that says what is
// legal. The sentence is a static string. Looks at no pointer.
const char* CheckScanCuda(const ScanParams& params) noexcept;

// Queues the scan on `stream`; all pointers are device memory and y overlaps no input. Needs no
// workspace, allocates nothing, does not wait, and can be captured in a CUDA graph.
// cudaErrorInvalidValue if CheckScanCuda refuses the sizes.
cudaError_t ScanForwardCuda(const ScanParams& params, cudaStream_t stream) noexcept;

}  // namespace mambapro
