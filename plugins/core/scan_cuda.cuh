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

// B and C of two neighbouring states, read in one access.
struct alignas(16) StatePair {
  float2 of[2];
};

// Two tiles, one being computed while the other is filled.
template <int kChannels>
struct Tiles {
  StatePair state[2][kTileSteps][kGroup / 2];
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
// that a warp touches neighbouring addresses; for the recurrence it has channel `own`. Pointers
// move on from tile to tile, so that a tile costs no 64-bit multiplications.
template <typename T, int kLanes, int kChannels>
struct Worker {
  static constexpr int kThreads = Threads<kLanes, kChannels>();
  static constexpr int kOwn = kGroup / kLanes;           // states of a thread
  static constexpr int kWideHop = kThreads / kChannels;  // steps between two elements it loads
  static constexpr int kWide = kTileSteps / kWideHop;    // elements of a tile it loads
  static constexpr int kNarrowHop = kThreads / kGroup;   // the same for B and C
  static constexpr int kNarrow = kTileSteps / kNarrowHop;
  static_assert(kThreads % 32 == 0 && kThreads % kChannels == 0 && kThreads % kGroup == 0, "");
  static_assert(kOwn % 2 == 0, "a thread reads its states in pairs");

  const ScanParams& p;
  Tiles<kChannels>& tiles;
  const int thread = threadIdx.x;
  const int lane = thread % kLanes, own = thread / kLanes;
  const int wide = thread % kChannels, wide_step = thread / kChannels;
  const int narrow = thread % kGroup, narrow_step = thread / kGroup;
  const int length, states;
  bool has_wide, has_own;
  float skip = 0, bias = 0;
  const float* decay;                                // A of channel `own`
  const T *u_next, *delta_next, *b_next, *c_next;    // what the thread loads first of the next tile
  T* y_next;                                         // and stores first of the next finished one
  T u[kWide], delta[kWide], b[kNarrow], c[kNarrow];  // the tile that is on its way

  __device__ Worker(const ScanParams& params, Tiles<kChannels>& tiles_)
      : p(params),
        tiles(tiles_),
        length(static_cast<int>(params.length)),
        states(static_cast<int>(params.states)) {
    const unsigned per_row = static_cast<unsigned>((p.channels + kChannels - 1) / kChannels);
    const unsigned row = blockIdx.x / per_row;
    const unsigned group = row / (static_cast<unsigned>(p.rows) / static_cast<unsigned>(p.groups));
    const int64_t first = static_cast<int64_t>(blockIdx.x % per_row) * kChannels;
    has_wide = first + wide < p.channels;
    has_own = first + own < p.channels;
    if (has_wide) {
      skip = p.d[group * p.channels + first + wide];
      bias = p.delta_bias[group * p.channels + first + wide];
    }
    decay = p.a + (group * p.channels + first + own) * p.states;
    u_next = At<const T*>(p.u, row, wide_step, first + wide);
    delta_next = At<const T*>(p.delta, row, wide_step, first + wide);
    y_next = At<T*>(p.y, row, wide_step, first + wide);
    b_next = At<const T*>(p.b, row, narrow_step, narrow);
    c_next = At<const T*>(p.c, row, narrow_step, narrow);
  }

  template <typename Pointer, typename S>
  __device__ static Pointer At(const S& s, int64_t row, int64_t step, int64_t column) {
    return static_cast<Pointer>(s.data) + row * s.row_stride + step * s.step_stride + column;
  }

  // Starts loading u and delta of the next tile, of which `left` steps or more are to come.
  __device__ __forceinline__ void FetchInput(int left) {
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      const bool inside = has_wide && wide_step + i * kWideHop < left;
      u[i] = inside ? u_next[i * kWideHop * p.u.step_stride] : FromFloat<T>(0.0f);
      delta[i] = inside ? delta_next[i * kWideHop * p.delta.step_stride] : FromFloat<T>(0.0f);
    }
    u_next += kTileSteps * p.u.step_stride;
    delta_next += kTileSteps * p.delta.step_stride;
  }

  __device__ __forceinline__ void StageInput(int buffer) {
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      const int t = wide_step + i * kWideHop;
      const float input = ToFloat(u[i]), step = Softplus(ToFloat(delta[i]) + bias);
      tiles.input[buffer][t][wide] = make_float2(step, step * input);
      tiles.output[buffer][t][wide] = skip * input;
    }
  }

  // The same for B and C, of which the states from `first` on are loaded.
  __device__ __forceinline__ void FetchStates(int left, int first, bool last) {
#pragma unroll
    for (int i = 0; i < kNarrow; ++i) {
      const bool inside = first + narrow < states && narrow_step + i * kNarrowHop < left;
      b[i] = inside ? b_next[first + i * kNarrowHop * p.b.step_stride] : FromFloat<T>(0.0f);
      c[i] = inside ? c_next[first + i * kNarrowHop * p.c.step_stride] : FromFloat<T>(0.0f);
    }
    if (last) {
      b_next += kTileSteps * p.b.step_stride;
      c_next += kTileSteps * p.c.step_stride;
    }
  }

  __device__ __forceinline__ void StageStates(int buffer) {
#pragma unroll
    for (int i = 0; i < kNarrow; ++i) {
      const int t = narrow_step + i * kNarrowHop;
      tiles.state[buffer][t][narrow / 2].of[narrow % 2] = make_float2(ToFloat(b[i]), ToFloat(c[i]));
    }
  }

  // A of the thread's states from `first` on, times log2(e); zero where there is no state.
  __device__ __forceinline__ void LoadDecay(int first, float* a) const {
#pragma unroll
    for (int i = 0; i < kOwn; ++i) {
      const int n = first + lane * kOwn + i;
      a[i] = has_own && n < states ? decay[n] * kLog2E : 0.0f;
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
        read[t] = 0.0f;
#pragma unroll
        for (int i = 0; i < kOwn; i += 2) {
          const StatePair pair = tiles.state[state_buffer][start + t][(lane * kOwn + i) / 2];
#pragma unroll
          for (int k = 0; k < 2; ++k) {
            h[i + k] = Exp2(step.x * a[i + k]) * h[i + k] + step.y * pair.of[k].x;
            read[t] += h[i + k] * pair.of[k].y;
          }
        }
      }
      const float sum = TransposedSum<kLanes>(read, lane);
      tiles.output[input_buffer][start + lane][own] += sum;
    }
  }

  // Stores a finished tile, of which `left` steps or more lie before the end.
  __device__ __forceinline__ void Store(int left, int buffer) {
#pragma unroll
    for (int i = 0; i < kWide; ++i) {
      const int t = wide_step + i * kWideHop;
      if (has_wide && t < left) {
        y_next[i * kWideHop * p.y.step_stride] = FromFloat<T>(tiles.output[buffer][t][wide]);
      }
    }
    y_next += kTileSteps * p.y.step_stride;
  }
};

// kMany: more than kGroup states, so that the states take turns and rest in shared memory.
template <typename T, int kLanes, int kChannels, bool kMany>
__global__ void __launch_bounds__(Threads<kLanes, kChannels>()) ScanKernel(const ScanParams p) {
  extern __shared__ __align__(16) unsigned char shared_memory[];
  using W = Worker<T, kLanes, kChannels>;
  W worker(p, *reinterpret_cast<Tiles<kChannels>*>(shared_memory));
  float* kept = reinterpret_cast<float*>(shared_memory + sizeof(Tiles<kChannels>)) + threadIdx.x;

  const int groups = kMany ? (worker.states + kGroup - 1) / kGroup : 1;
  float a[W::kOwn], h[W::kOwn];
#pragma unroll
  for (int i = 0; i < W::kOwn; ++i) h[i] = 0.0f;
  if (kMany) {
    for (int i = 0; i < groups * W::kOwn; ++i) kept[i * W::kThreads] = 0.0f;
  } else {
    worker.LoadDecay(0, a);
  }

  int left = worker.length;  // steps from the tile's first on
  worker.FetchInput(left);
  worker.FetchStates(left, 0, groups == 1);
  worker.StageInput(0);
  worker.StageStates(0);
  __syncthreads();

  int buffer = 0, turn = 0;  // the halves of `tiles` with the current inputs, and states
  for (; left > 0; left -= kTileSteps, buffer ^= 1) {
    for (int group = 0; group < groups; ++group, turn ^= 1) {
      const bool last = group + 1 == groups, more = left > kTileSteps;
      if (last && more) worker.FetchInput(left - kTileSteps);
      if (!last) worker.FetchStates(left, (group + 1) * kGroup, group + 2 == groups);
      if (last && more) worker.FetchStates(left - kTileSteps, 0, groups == 1);
      if (kMany) {
        worker.LoadDecay(group * kGroup, a);
#pragma unroll
        for (int i = 0; i < W::kOwn; ++i) h[i] = kept[(group * W::kOwn + i) * W::kThreads];
      }
      worker.Advance(buffer, turn, a, h);
      if (kMany) {
#pragma unroll
        for (int i = 0; i < W::kOwn; ++i) kept[(group * W::kOwn + i) * W::kThreads] = h[i];
      }
      // A thread stores the finished outputs that it is about to replace by the next tile's.
      if (group == 0 && left < worker.length) worker.Store(kTileSteps, buffer ^ 1);
      if (last && more) worker.StageInput(buffer ^ 1);
      if (!last || more) worker.StageStates(turn ^ 1);
      __syncthreads();
    }
  }
  worker.Store(left + kTileSteps, buffer ^ 1);
}

}  // namespace cuda
}  // namespace mambapro
