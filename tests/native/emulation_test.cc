// The emulation catches the faults it is there for. Needs fibers: their order can be chosen.
#include <cuda_runtime.h>

#include <cmath>
#include <string>
#include <vector>

#include "check.h"

namespace mambapro {
namespace cuda {

constexpr int kThreads = 64;

__global__ void Reverse(float* out, bool with_barrier) {
  extern __shared__ __align__(16) unsigned char shared_memory[];
  float* values = reinterpret_cast<float*>(shared_memory);
  values[threadIdx.x] = static_cast<float>(threadIdx.x);
  if (with_barrier) __syncthreads();
  out[blockIdx.x * kThreads + threadIdx.x] = values[kThreads - 1 - threadIdx.x];
}

__global__ void HalfAtABarrier() {
  if (threadIdx.x < 32) __syncthreads();
}

__global__ void HalfAtAShuffle(float* out) {
  const float x = static_cast<float>(threadIdx.x);
  if (threadIdx.x % 2 == 0) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x, 1);
}

__global__ void Shuffle(float* out, unsigned mask) {
  out[threadIdx.x] = __shfl_xor_sync(mask, static_cast<float>(threadIdx.x), 5);
}

__global__ void WriteBehind(int index) {
  extern __shared__ __align__(16) unsigned char shared_memory[];
  shared_memory[index] = 1;
}

__global__ void ReadUnwritten(float* out) {
  extern __shared__ __align__(16) unsigned char shared_memory[];
  out[threadIdx.x] = reinterpret_cast<float*>(shared_memory)[threadIdx.x];
}

}  // namespace cuda

namespace {

using cuda::kThreads;

template <typename... Arguments>
cudaError_t Launch(void (*kernel)(Arguments...), int blocks, size_t shared,
                   Arguments... arguments) {
  void* pointers[] = {&arguments..., nullptr};
  return cudaLaunchKernel(kernel, dim3(blocks), dim3(kThreads), pointers, shared, nullptr);
}

bool Reversed(bool with_barrier) {
  std::vector<float> out(3 * kThreads);
  const size_t shared = kThreads * sizeof(float);
  CHECK(Launch(cuda::Reverse, 3, shared, out.data(), with_barrier) == cudaSuccess);
  for (int i = 0; i < 3 * kThreads; ++i) {
    if (out[i] != static_cast<float>(kThreads - 1 - i % kThreads)) return false;
  }
  return true;
}

void TestMissingBarrier() {
  for (Order order : {Order::kForward, Order::kBackward, Order::kShuffled}) {
    Emulation() = {16, order, 7, -1};
    CHECK(Reversed(true));
    CHECK(!Reversed(false));
    Emulation().skipped_barrier = 0;
    CHECK(!Reversed(true));
  }
  Emulation() = {};
}

void TestUnreachedBarriers() {
  CHECK(Launch(cuda::HalfAtABarrier, 1, 0) == cudaErrorLaunchFailure);
  CHECK(std::string(EmulationError()).find("never reach") != std::string::npos);
  std::vector<float> out(kThreads);
  CHECK(Launch(cuda::HalfAtAShuffle, 1, 0, out.data()) == cudaErrorLaunchFailure);
  CHECK(Reversed(true));  // and the next launch is well again
}

void TestShuffle() {
  std::vector<float> out(kThreads);
  CHECK(Launch(cuda::Shuffle, 1, 0, out.data(), 0xffffffffu) == cudaSuccess);
  for (int i = 0; i < kThreads; ++i) CHECK(out[i] == static_cast<float>(i ^ 5));
  CHECK(Launch(cuda::Shuffle, 1, 0, out.data(), 0xffffu) == cudaErrorLaunchFailure);
}

void TestSharedMemory() {
  CHECK(Launch(cuda::WriteBehind, 1, 128, 127) == cudaSuccess);
  CHECK(Launch(cuda::WriteBehind, 1, 128, 128) == cudaErrorLaunchFailure);
  CHECK(Reversed(true));  // leaves numbers behind, which the next block must not see
  std::vector<float> out(kThreads);
  CHECK(Launch(cuda::ReadUnwritten, 1, kThreads * sizeof(float), out.data()) == cudaSuccess);
  for (float x : out) CHECK(std::isnan(x));
}

void TestBadLaunches() {
  void* none[] = {nullptr};
  const auto launch = [&](unsigned blocks, unsigned threads, size_t shared) {
    return cudaLaunchKernel(cuda::HalfAtABarrier, dim3(blocks), dim3(threads), none, shared,
                            nullptr);
  };
  CHECK(launch(0, 32, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 33, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 2048, 0) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 32, cuda::kMaxSharedBytes + 1) == cudaErrorInvalidConfiguration);
  CHECK(launch(1, 32, cuda::kMaxSharedBytes) == cudaSuccess);
}

}  // namespace
}  // namespace mambapro

int main() {
  mambapro::TestMissingBarrier();
  mambapro::TestUnreachedBarriers();
  mambapro::TestShuffle();
  mambapro::TestSharedMemory();
  mambapro::TestBadLaunches();
  return Failures();
}
