// The CUDA kernel of the selective scan. docs/decisions/0010-cuda-scan.md explains the design.
//
// A block owns kChannels channels of one row and walks along L in tiles of kTileSteps steps. kLanes
// threads share a channel and each keeps kGroup / kLanes of its states in registers. While a tile
// is computed from shared memory, the next one is on its way from global memory into registers.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "scan.h"
#include "scan_tables.h"

namespace mambapro {
namespace cuda {

constexpr int kTileSteps = 16;
constexpr int kGroup = 16;  // states that a block advances at once; more states take several turns

__device__ __forceinline__ float ToFloat(float x) { return x; }
__device__ __forceinline__ float ToFloat(__half x) { return __half2float(x); }
__device__ __forceinline__ float ToFloat(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
__device__ __forceinline__ T FromFloat(float x);
template <>
__device__ __forceinline__ float FromFloat<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half FromFloat<__half>(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 FromFloat<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// 2^x; results below 2^-126 are zero.
__device__ __forceinline__ float Exp2(float x) {
#ifdef __CUDA_ARCH__
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#else
  return exp2f(x);
#endif
}

// log(1 + exp(x)), relative error below 1e-6, as on the CPU; NaN stays NaN.
__device__ __forceinline__ float Softplus(float x) {
  const float z = Exp2(-fabsf(x) * kLog2E);
  const float s = __fdividef(z, 2.0f + z), s2 = s * s;
  // Device code may not index a constexpr array, but may use what was read from it.
  constexpr float k0 = kAtanh[0], k1 = kAtanh[1], k2 = kAtanh[2], k3 = kAtanh[3], k4 = kAtanh[4];
  static_assert(kAtanhTerms == 5, "the series below has five terms");
  const float p = (((k4 * s2 + k3) * s2 + k2) * s2 + k1) * s2 + k0;
  return (x < 0.0f ? 0.0f : x) + p * s;
}

// Sums kLanes values over kLanes neighbouring threads with kLanes - 1 shuffles: thread `lane`
// returns the sum over the threads of values[lane]. Spoils values.
template <int kLanes>
__device__ __forceinline__ float TransposedSum(float* values, int lane) {
#pragma unroll
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    const bool upper = (lane & width) != 0;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float given = upper ? values[i] : values[i + width];
      const float kept = upper ? values[i + width] : values[i];
      values[i] = kept + __shfl_xor_sync(0xffffffffu, given, width);
    }
  }
  return values[0];
}

// Two tiles, one being computed while the other is filled.
template <int kChannels>
struct Tiles {
  float2 state[2][kTileSteps][kGroup];         // B, C
  float2 input[2][kTileSteps][kChannels];      // delta, delta * u
  float output[2][kTileSteps][kChannels + 1];  // y; the odd width spreads a column over the banks
};

template <int kLanes, int kChannels>
constexpr int Threads() {
  return kLanes * kChannels;
}

template <int kLanes, int kChannels>
constexpr size_t SharedBytes(int64_t groups) {
  const size_t kept = groups > 1 ? groups * kGroup * kChannels * sizeof(float) : 0;
  return sizeof(Tiles<kChannels>) + kept;
}

// What one thread does for its block. For loads and stores a thread has channel `wide`, chosen so
// that a warp touches neighbouring addresses; for the recurrence it has channel `own`.
template <typename T, int kLanes, int kChannels>
struct Worker {
  static constexpr int kThreads = Threads<kLanes, kChannels>();
  static constexpr int kOwn = kGroup / kLanes;                     // states of a thread
  static constexpr int kWide = kTileSteps * kChannels / kThreads;  // steps of a tile it loads
  static constexpr int kPairs = kTileSteps * kGroup / kThreads;    // pairs of B and C it loads
  static_assert(kThreads % 32 == 0 && kThreads % kChannels == 0 && kThreads % kGroup == 0, "");

  const ScanParams& p;
  Tiles<kChannels>& tiles;
  const int thread = threadIdx.x;
  const int lane = thread % kLanes, own = thread / kLanes;
  const int wide = thread % kChannels, wide_step = thread / kChannels;
  int64_t row, wide_channel, own_channel;  // own_channel counts through all groups
  bool has_wide, has_own;
  float skip = 0, bias = 0;
  T u[kWide], delta[kWide], b[kPairs], c[kPairs];  // the tile that is on its way

  __device__ Worker(const ScanParams& params, Tiles<kChannels>& tiles_) : p(params), tiles(tiles_) {
    const int64_t per_row = (p.channels + kChannels - 1) / kChannels;
    row = blockIdx.x / per_row;
    const int64_t first = blockIdx.x % per_row * kChannels;
    const int64_t base = row / (p.rows / p.groups) * p.channels;
    wide_channel = first + wide;
    has_wide = wide_channel < p.channels;
    own_channel = base + first + own;
    has_own = first + own < p.channels;
    if (has_wide) {
      skip = p.d[base + wide_channel];
      bias = p.delta_bias[base + wide_channel];
    }
  }

  __device__ __forceinline__ static T Load(const ConstSequence& s, int64_t row, int64_t step,
                                           int64_t column) {
    return static_cast<const T*>(s.data)[row * s.row_stride + step * s.step_stride + column];
  }

  __device__ __forceinline__ void FetchInput(int64_t tile) {
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      const int64_t step = tile * kTileSteps + wide_step + i * (kThreads / kChannels);
      const bool inside = has_wide && step < p.length;
      u[i] = inside ? Load(p.u, row, step, wide_channel) : FromFloat<T>(0.0f);
      delta[i] = inside ? Load(p.delta, row, step, wide_channel) : FromFloat<T>(0.0f);
    }
  }

  __device__ __forceinline__ void StageInput(int buffer) {
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      const int t = wide_step + i * (kThreads / kChannels);
      const float input = ToFloat(u[i]), step = Softplus(ToFloat(delta[i]) + bias);
      tiles.input[buffer][t][wide] = make_float2(step, step * input);
      tiles.output[buffer][t][wide] = skip * input;
    }
  }

  __device__ __forceinline__ void FetchStates(int64_t tile, int64_t group) {
    const int64_t n = group * kGroup + thread % kGroup;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int64_t step = tile * kTileSteps + thread / kGroup + i * (kThreads / kGroup);
      const bool inside = n < p.states && step < p.length;
      b[i] = inside ? Load(p.b, row, step, n) : FromFloat<T>(0.0f);
      c[i] = inside ? Load(p.c, row, step, n) : FromFloat<T>(0.0f);
    }
  }

  __device__ __forceinline__ void StageStates(int buffer) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int t = thread / kGroup + i * (kThreads / kGroup);
      tiles.state[buffer][t][thread % kGroup] = make_float2(ToFloat(b[i]), ToFloat(c[i]));
    }
  }

  // A of the thread's states, times log2(e); zero where there is no state.
  __device__ __forceinline__ void LoadDecay(int64_t group, float* a) const {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int64_t n = group * kGroup + lane * kOwn + i;
      a[i] = has_own && n < p.states ? p.a[own_channel * p.states + n] * kLog2E : 0.0f;
    }
  }

  // Advances the thread's states h by a tile and adds what they read to the tile's output.
  __device__ __forceinline__ void Advance(int input_buffer, int state_buffer, const float* a,
                                          float* h) const {
#pragma unroll
    for (int start = 0; start < kTileSteps; start += kLanes) {
      float read[kLanes];
#pragma unroll
      for (int t = 0; t < kLanes; ++t) {
        const float2 step = tiles.input[input_buffer][start + t][own];
        const float2* state = &tiles.state[state_buffer][start + t][lane * kOwn];
        read[t] = 0.0f;
#pragma unroll
        for (int i = 0; i < kOwn; ++i) {
          h[i] = Exp2(step.x * a[i]) * h[i] + step.y * state[i].x;
          read[t] += h[i] * state[i].y;
        }
      }
      const float sum = TransposedSum<kLanes>(read, lane);
      tiles.output[input_buffer][start + lane][own] += sum;
    }
  }

  __device__ __forceinline__ void Store(int64_t tile, int buffer) const {
    if (!has_wide) return;
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      const int t = wide_step + i * (kThreads / kChannels);
      const int64_t step = tile * kTileSteps + t;
      if (step >= p.length) break;
      static_cast<T*>(p.y.data)[row * p.y.row_stride + step * p.y.step_stride + wide_channel] =
          FromFloat<T>(tiles.output[buffer][t][wide]);
    }
  }
};

// kMany: more than kGroup states, so that the states take turns and rest in shared memory.
template <typename T, int kLanes, int kChannels, bool kMany>
__global__ void __launch_bounds__(Threads<kLanes, kChannels>()) ScanKernel(const ScanParams p) {
  extern __shared__ __align__(16) unsigned char shared_memory[];
  using W = Worker<T, kLanes, kChannels>;
  W worker(p, *reinterpret_cast<Tiles<kChannels>*>(shared_memory));
  float* kept = reinterpret_cast<float*>(shared_memory + sizeof(Tiles<kChannels>)) + threadIdx.x;

  const int64_t count = (p.length + kTileSteps - 1) / kTileSteps;
  const int groups = kMany ? static_cast<int>((p.states + kGroup - 1) / kGroup) : 1;
  float a[W::kOwn], h[W::kOwn];
#pragma unroll
  for (int i = 0; i < W::kOwn; ++i) h[i] = 0.0f;
  if (kMany) {
    for (int i = 0; i < groups * W::kOwn; ++i) kept[i * W::kThreads] = 0.0f;
  } else {
    worker.LoadDecay(0, a);
  }

  worker.FetchInput(0);
  worker.FetchStates(0, 0);
  worker.StageInput(0);
  worker.StageStates(0);
  __syncthreads();

  int turn = 0;  // parity of the states' buffer
  for (int64_t tile = 0; tile < count; ++tile) {
    const int buffer = static_cast<int>(tile & 1);
    for (int group = 0; group < groups; ++group, turn ^= 1) {
      const bool last = group + 1 == groups, more = tile + 1 < count;
      if (last && more) worker.FetchInput(tile + 1);
      if (!last || more) worker.FetchStates(last ? tile + 1 : tile, last ? 0 : group + 1);
      if (kMany) {
        worker.LoadDecay(group, a);
#pragma unroll
        for (int i = 0; i < W::kOwn; ++i) h[i] = kept[(group * W::kOwn + i) * W::kThreads];
      }
      worker.Advance(buffer, turn, a, h);
      if (kMany) {
#pragma unroll
        for (int i = 0; i < W::kOwn; ++i) kept[(group * W::kOwn + i) * W::kThreads] = h[i];
      }
      // A thread writes back the finished outputs that it is about to replace by the next tile's.
      if (group == 0 && tile > 0) worker.Store(tile - 1, buffer ^ 1);
      if (last && more) worker.StageInput(buffer ^ 1);
      if (!last || more) worker.StageStates(turn ^ 1);
      __syncthreads();
    }
  }
  worker.Store(count - 1, static_cast<int>((count - 1) & 1));
}

}  // namespace cuda
}  // namespace mambapro
