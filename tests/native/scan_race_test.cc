// Runs the CUDA scan with a thread of the system for each CUDA thread, for ThreadSanitizer, which
// fails the run if it sees a race. It must if an argument n leaves out the n-th barrier, or if the
// argument is "shuffle", which runs a kernel that takes a shuffle for a barrier instead.
#include <cuda_runtime.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "check.h"
#include "scan_cuda.h"

namespace mambapro {
namespace cuda {

__global__ void OrderByShuffle(float* out) {
  extern __shared__ __align__(16) unsigned char shared_memory[];
  float* values = reinterpret_cast<float*>(shared_memory);
  values[threadIdx.x] = 1.0f;
  const float x = __shfl_xor_sync(0xffffffffu, 1.0f, 1);
  out[threadIdx.x] = x * values[threadIdx.x ^ 1];
}

}  // namespace cuda
}  // namespace mambapro

namespace {

int RunFaulty() {
  float out[32], *pointer = out;
  void* arguments[] = {&pointer};
  CHECK(cudaLaunchKernel(mambapro::cuda::OrderByShuffle, dim3(1), dim3(32), arguments, sizeof(out),
                         nullptr) == cudaSuccess);
  return Failures();
}

void Run(int processors, int64_t channels, int64_t states) {
  mambapro::ScanParams p;
  p.rows = p.groups = 1;
  p.length = 33;  // three tiles: both buffers are used again
  p.channels = channels;
  p.states = states;
  std::vector<float> wide(p.length * channels, 0.5f), narrow(p.length * states, 0.25f);
  std::vector<float> a(channels * states, -1.0f), d(channels, 1.0f), y(wide.size(), NAN);
  p.u = p.delta = {wide.data(), p.length * channels, channels};
  p.b = p.c = {narrow.data(), p.length * states, states};
  p.y = {y.data(), p.length * channels, channels};
  p.a = a.data();
  p.d = p.delta_bias = d.data();
  mambapro::Emulation().processors = processors;
  CHECK(mambapro::ScanForwardCuda(p, nullptr) == cudaSuccess);
  if (mambapro::Emulation().skipped_barrier >= 0) return;
  // All channels are alike: h_t = decay h_{t-1} + driven, from 0.
  const double delta = std::log1p(std::exp(1.5)), decay = std::exp(-delta);
  double h = 0;
  for (int64_t t = 0; t < p.length; ++t) {
    h = decay * h + delta * 0.5 * 0.25;
    for (int64_t c = 0; c < channels; ++c) {
      CHECK(std::fabs(y[t * channels + c] - (states * 0.25 * h + 0.5)) < 1e-4);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && std::strcmp(argv[1], "shuffle") == 0) return RunFaulty();
  if (argc > 1) mambapro::Emulation().skipped_barrier = std::atoi(argv[1]);
  Run(0, 32, 16);    // throughput
  Run(1000, 8, 16);  // latency
  Run(1000, 8, 20);  // states that take turns
  return Failures();
}
