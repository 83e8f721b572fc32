// The forward pass of the CPU scan. Included by scan_lanes.h only.
//
// A task owns some vectors of channels of one row and walks along L in chunks: a chunk's inputs of
// one vector, then all its states, then the next vector.
#pragma once

#include <algorithm>

#include "scan_loads.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

constexpr int kSteps = 8;  // steps of a chunk: processors follow reads of so many pages at once
constexpr int kStateBlock = 16;   // states held in registers at once
constexpr int kSmallBlock = 4;    // and when fewer are left
constexpr int kMaxVectors = 32;   // vectors of channels of a task
constexpr int kMinVectors = 4;    // whole cache lines for halves too
constexpr int kTileStates = 512;  // and the most states of a task, on its stack

inline int StepsFrom(int64_t start, int64_t length) {
  return length - start < kSteps ? static_cast<int>(length - start) : kSteps;
}

// Advances kBlock states of one vector of channels by `steps` steps and adds what they read to y.
// `stride` is that of b and c from step to step.
template <int kBlock>
__attribute__((noinline)) void Advance(int steps, int64_t stride, const Vec* delta,
                                       const Vec* driven, const Vec* a, const float* b,
                                       const float* c, Vec* h, Vec* y) {
  Vec state[kBlock];
#pragma GCC unroll 16  // else a copy through memory
  for (int n = 0; n < kBlock; ++n) state[n] = h[n];
  for (int t = 0; t < steps; ++t, b += stride, c += stride) {
    Vec sums[2] = {y[t], Vec{}};  // two, for they are added to in every state
#pragma GCC unroll 16
    for (int n = 0; n < kBlock; ++n) {
      state[n] = Exp2Product(delta[t], a[n]) * state[n] + driven[t] * b[n];
      sums[n % 2] += state[n] * c[n];
    }
    y[t] = sums[0] + sums[1];
  }
#pragma GCC unroll 16
  for (int n = 0; n < kBlock; ++n) h[n] = state[n];
}

inline void AdvanceAll(int steps, int64_t states, const Vec* delta, const Vec* driven, const Vec* a,
                       const float* b, const float* c, Vec* h, Vec* y) {
  int64_t n = 0;
  for (; n + kStateBlock <= states; n += kStateBlock) {
    Advance<kStateBlock>(steps, states, delta, driven, a + n, b + n, c + n, h + n, y);
  }
  for (; n + kSmallBlock <= states; n += kSmallBlock) {
    Advance<kSmallBlock>(steps, states, delta, driven, a + n, b + n, c + n, h + n, y);
  }
  for (; n < states; ++n) {
    Advance<1>(steps, states, delta, driven, a + n, b + n, c + n, h + n, y);
  }
}

// The inputs of one vector of channels over a chunk, and what follows from them step by step.
struct Chunk {
  Vec delta[kSteps], driven[kSteps], y[kSteps];

  template <ScalarType kType, bool kWhole>
  void Read(const ScanParams& p, const Lanes& lanes, int64_t start, int steps) {
    int64_t u_at = lanes.At(p.u, start), delta_at = lanes.At(p.delta, start);
    for (int t = 0; t < steps; ++t, u_at += p.u.step_stride, delta_at += p.delta.step_stride) {
      const Vec u = Load<kType, kWhole>(p.u.data, u_at, lanes.count);
      const Vec step =
          Softplus(lanes.bias + Load<kType, kWhole>(p.delta.data, delta_at, lanes.count));
      delta[t] = AtMost(kLargestFactor, step);
      driven[t] = step * u;
      y[t] = lanes.d * u;
    }
  }

  template <ScalarType kType, bool kWhole>
  void Write(const ScanParams& p, const Lanes& lanes, int64_t start, int steps) const {
    int64_t at = lanes.At(p.y, start);
    for (int t = 0; t < steps; ++t, at += p.y.step_stride) {
      Store<kType, kWhole>(y[t], p.y.data, at, lanes.count);
    }
  }
};

// Advances one vector of channels by a chunk.
template <ScalarType kType, bool kWhole>
inline void ForwardChunk(const ScanParams& p, const Lanes& lanes, int64_t start, const Vec* a,
                         const float* b, const float* c, Vec* h) {
  const int steps = StepsFrom(start, p.length);
  Chunk chunk;
  chunk.Read<kType, kWhole>(p, lanes, start, steps);
  AdvanceAll(steps, p.states, chunk.delta, chunk.driven, a, b, c, h, chunk.y);
  chunk.Write<kType, kWhole>(p, lanes, start, steps);
}

// How the channels of a row are dealt out to tasks: a task for each worker, and wide tiles, because
// a chunk of a wide tile reads long runs of memory. A narrow one reads a little of many pages,
// which costs twice the time of the whole scan once u, delta and y no longer fit the cache.
struct Tiles {
  int64_t vectors, per_row;

  Tiles(const ScanParams& p, int64_t workers) {
    const int64_t per_worker = Blocks(p.rows * Blocks(p.channels, kLanes), workers);
    const int64_t most =
        std::min<int64_t>(kMaxVectors, std::max<int64_t>(1, kTileStates / p.states));
    vectors = std::min(std::max<int64_t>(kMinVectors, RoundUp(per_worker, 2)), most);
    per_row = Blocks(p.channels, vectors * kLanes);
  }
};

struct ForwardContext {
  const ScanParams* params;
  Tiles tiles;
};

// Runs a tile of one row from its first step to its last.
template <ScalarType kType>
void ForwardTask(void* context, int64_t index) {
  const ScanParams& p = *static_cast<const ForwardContext*>(context)->params;
  const Tiles& tiles = static_cast<const ForwardContext*>(context)->tiles;
  const int64_t row = index / tiles.per_row, states = p.states;
  const int64_t first = index % tiles.per_row * tiles.vectors * kLanes;
  Vec a[kTileStates], h[kTileStates];
  alignas(64) float b[kSteps * kMaxStates], c[kSteps * kMaxStates];
  Lanes lanes[kMaxVectors];
  int64_t vectors = 0;
  for (; vectors < tiles.vectors && first + vectors * kLanes < p.channels; ++vectors) {
    lanes[vectors] = Lanes(p, row, first + vectors * kLanes);
    lanes[vectors].LoadDecay(p, a + vectors * states);
  }
  for (int64_t n = 0; n < vectors * states; ++n) h[n] = Vec{};
  for (int64_t start = 0; start < p.length; start += kSteps) {
    LoadStates<kType>(p, p.b, row, start, StepsFrom(start, p.length), b);
    LoadStates<kType>(p, p.c, row, start, StepsFrom(start, p.length), c);
    for (int64_t v = 0; v < vectors; ++v) {
      const auto advance =
          lanes[v].count == kLanes ? ForwardChunk<kType, true> : ForwardChunk<kType, false>;
      advance(p, lanes[v], start, a + v * states, b, c, h + v * states);
    }
  }
}

}  // namespace
}  // namespace MAMBAPRO_SET
}  // namespace mambapro
