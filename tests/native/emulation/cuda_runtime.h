// Runs CUDA kernels on the CPU, as they are written, to test them where there is no GPU.
//
// Put this folder before CUDA's own headers and compile the .cu file with the host compiler. Every
// CUDA thread of a block is a fiber, or with MAMBAPRO_EMULATION_THREADS a thread of the system (for
// ThreadSanitizer); blocks run one after the other. `__syncthreads` and the warp shuffles wait as
// on the device, so a missing one lets a thread run ahead. Fibers switch only there, in an order
// that `EmulationOptions` picks: a run is repeatable, and a race shows as a wrong result under one
// of the orders. Shared memory holds NaNs at the start of a block, and more than was asked for is
// caught. Limits: whole warps, one-dimensional grids and blocks, dynamic shared memory of one name.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>

enum cudaError_t : int {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorLaunchFailure = 719,
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16 };
typedef struct CUstream_st* cudaStream_t;
typedef struct CUevent_st* cudaEvent_t;

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
  float x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float __fdividef(float x, float y) { return x / y; }

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__  // a block's `extern __shared__` array is the variable defined below

namespace mambapro {

enum class Order { kForward, kBackward, kShuffled };

struct EmulationOptions {
  int processors = 16;            // multiprocessors the device claims to have
  Order order = Order::kForward;  // in which the threads of a block take their turns
  unsigned seed = 0;              // of kShuffled
  int skipped_barrier = -1;       // that many-th __syncthreads of every thread does nothing
  cudaError_t launch_error = cudaSuccess;  // what a launch returns instead of running
};

EmulationOptions& Emulation();
// Why the last launch failed, or "".
const char* EmulationError();
// The stream of the last launch.
cudaStream_t& EmulatedStream();

// Runs body(context) once for every thread of every block.
cudaError_t EmulateLaunch(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(void*),
                          void* context);
const dim3& EmulatedThread();
const dim3& EmulatedBlock();
uint32_t EmulatedShuffle(uint32_t mask, uint32_t bits, int source_mask);
void EmulatedSyncThreads();

namespace cuda {
constexpr size_t kMaxSharedBytes = 48 * 1024;  // what a launch gets without asking for more
alignas(16) extern unsigned char shared_memory[kMaxSharedBytes + 64];
}  // namespace cuda
}  // namespace mambapro

#define threadIdx (::mambapro::EmulatedThread())
#define blockIdx (::mambapro::EmulatedBlock())
inline void __syncthreads() { mambapro::EmulatedSyncThreads(); }
inline float __shfl_xor_sync(unsigned mask, float value, int lane_mask) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits = mambapro::EmulatedShuffle(mask, bits, lane_mask);
  std::memcpy(&value, &bits, sizeof(bits));
  return value;
}

inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = mambapro::Emulation().processors;
  return cudaSuccess;
}

inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "an error of the emulation";
}

template <typename... Arguments, size_t... kIndex>
void EmulatedCall(void (*kernel)(Arguments...), void** arguments, std::index_sequence<kIndex...>) {
  kernel(*static_cast<Arguments*>(arguments[kIndex])...);
}

template <typename... Arguments>
cudaError_t cudaLaunchKernel(void (*kernel)(Arguments...), dim3 grid, dim3 block, void** arguments,
                             size_t shared_bytes, cudaStream_t stream) {
  mambapro::EmulatedStream() = stream;
  auto thread = [=] { EmulatedCall(kernel, arguments, std::index_sequence_for<Arguments...>()); };
  return mambapro::EmulateLaunch(
      grid, block, shared_bytes,
      [](void* context) { (*static_cast<decltype(thread)*>(context))(); }, &thread);
}
