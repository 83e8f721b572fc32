// The backward pass of the CPU scan, float32 only. Included by scan_lanes.h only.
//
// A task owns one row. It takes a block of channels, walks forward and keeps the state before every
// chunk, then walks back: a chunk's states are computed again, and the gradients follow from them.
// Gradients of B and C are sums over channels: over the vectors of a block first, then over lanes.
#pragma once

#include "scan_forward.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

constexpr int kReverseVectors = 8;  // vectors of a block
constexpr int kReverseBlock = 8;    // states that are walked back at once, in registers

// Sums the lanes of kLanes vectors; lane i of the result is the sum of rows[i].
inline Vec SumLanes(const Vec* from) {
  Vec rows[kLanes];
  for (int i = 0; i < kLanes; ++i) rows[i] = from[i];
  Int low{}, high{};  // the first, and the second of each pair of lanes `width` apart
#pragma GCC unroll 8
  for (int width = kLanes / 2; width >= 1; width /= 2) {
    for (int i = 0; i < kLanes; ++i) {
      const int lane = i % (2 * width);
      low[i] = lane < width ? i : kLanes + i - width;
      high[i] = lane < width ? i + width : kLanes + i;
    }
#pragma GCC unroll 8
    for (int i = 0; i < width; ++i) {
      const Vec a = rows[i], b = rows[i + width];
      rows[i] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
    }
  }
  return rows[0];
}

// What the backward pass of one row keeps in scratch memory.
struct Scratch {
  Vec* starts;                // (chunks, kReverseVectors, N): states before each chunk
  Vec *a, *carried, *grad_a;  // (kReverseVectors, N)
  Vec *for_b, *for_c;         // (kSteps, N), and up to whole blocks of kLanes vectors
  float *b, *c, *sums;        // the same number of floats

  static int64_t Chunks(const ScanParams& p) { return Blocks(p.length, kSteps); }
  static int64_t OfChunk(const ScanParams& p) { return RoundUp(kSteps * p.states, kLanes); }
  static int64_t OfBlock(const ScanParams& p) { return kReverseVectors * p.states; }
  static int64_t RowFloats(const ScanParams& p) {
    const int64_t vectors = (Chunks(p) + 3) * OfBlock(p) + 2 * OfChunk(p);
    return RoundUp(vectors * kLanes + 3 * OfChunk(p), 16);
  }
  // Per row: gradients of A, D and delta_bias, to be summed over the rows of a group.
  static int64_t PartialFloats(const ScanParams& p) {
    return RoundUp(p.channels * (p.states + 2), 16);
  }

  Scratch(const ScanParams& p, float* memory) {
    starts = reinterpret_cast<Vec*>(memory);
    a = starts + Chunks(p) * OfBlock(p);
    carried = a + OfBlock(p);
    grad_a = carried + OfBlock(p);
    for_b = grad_a + OfBlock(p);
    for_c = for_b + OfChunk(p);
    b = reinterpret_cast<float*>(for_c + OfChunk(p));
    c = b + OfChunk(p);
    sums = c + OfChunk(p);
  }
};

struct BackwardContext {
  const ScanParams* params;
  const ScanGradients* gradients;
  float* scratch;

  float* OfRow(int64_t row) const { return scratch + row * Scratch::RowFloats(*params); }
  float* Partial(int64_t row) const {
    return OfRow(params->rows) + row * Scratch::PartialFloats(*params);
  }
};

// The inputs of one vector of channels over a chunk, and what the gradients become step by step.
struct ReverseChunk {
  Vec u[kSteps], delta[kSteps], slope[kSteps], driven[kSteps];
  Vec grad_y[kSteps], into_input[kSteps], into_delta[kSteps];

  template <bool kWhole>
  void Read(const ScanParams& p, const ConstSequence& grad, const Lanes& lanes, int64_t start,
            int steps) {
    for (int t = 0; t < steps; ++t) {
      const Vec raw = lanes.bias + LoadStep<kWhole>(p.delta, lanes, start + t);
      u[t] = LoadStep<kWhole>(p.u, lanes, start + t);
      grad_y[t] = LoadStep<kWhole>(grad, lanes, start + t);
      delta[t] = AtMost(kLargestFactor, Softplus(raw));
      slope[t] = Sigmoid(raw);
      driven[t] = delta[t] * u[t];
      into_input[t] = into_delta[t] = Vec{};
    }
  }

  template <bool kWhole>
  void Write(const ScanGradients& g, const Lanes& lanes, int64_t start, int steps, Vec* grad_d,
             Vec* grad_bias) const {
    for (int t = 0; t < steps; ++t) {
      const Vec grad_u = into_input[t] * delta[t] + lanes.d * grad_y[t];
      // a is scaled by log2(e), so into_delta is too.
      const Vec grad_delta = (into_delta[t] * Set(1 / kLog2E) + into_input[t] * u[t]) * slope[t];
      *grad_d += grad_y[t] * u[t];
      *grad_bias += grad_delta;
      StoreStep<kWhole>(grad_u, g.u, lanes, start + t);
      StoreStep<kWhole>(grad_delta, g.delta, lanes, start + t);
    }
  }

  template <bool kWhole>
  static Vec LoadStep(const ConstSequence& s, const Lanes& lanes, int64_t step) {
    return Load<ScalarType::kFloat32, kWhole>(s.data, lanes.At(s, step), lanes.count);
  }
  template <bool kWhole>
  static void StoreStep(Vec x, const MutableSequence& s, const Lanes& lanes, int64_t step) {
    Store<ScalarType::kFloat32, kWhole>(x, s.data, lanes.At(s, step), lanes.count);
  }
};

// Walks kBlock states of one vector of channels forward through a chunk from `start`, then back.
// `carried` is the gradient of the state after the chunk and becomes that of the state before it;
// b, c, for_b and for_c have `stride` elements a step.
template <int kBlock>
__attribute__((noinline)) void Reverse(ReverseChunk& chunk, int steps, int64_t stride,
                                       const Vec* start, const Vec* a, const float* b,
                                       const float* c, Vec* carried, Vec* grad_a, Vec* for_b,
                                       Vec* for_c) {
  Vec states[kSteps + 1][kBlock], decay[kSteps][kBlock], into[kBlock], owed[kBlock];
#pragma GCC unroll 8  // else a copy through memory
  for (int n = 0; n < kBlock; ++n) states[0][n] = start[n];
  for (int t = 0; t < steps; ++t) {
#pragma GCC unroll 8
    for (int n = 0; n < kBlock; ++n) {
      decay[t][n] = Exp2Product(chunk.delta[t], a[n]);
      states[t + 1][n] = decay[t][n] * states[t][n] + chunk.driven[t] * b[t * stride + n];
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < kBlock; ++n) into[n] = carried[n], owed[n] = grad_a[n];
  for (int t = steps - 1; t >= 0; --t) {
    const Vec grad_y = chunk.grad_y[t], driven = chunk.driven[t], delta = chunk.delta[t];
    Vec into_input = chunk.into_input[t], into_delta = chunk.into_delta[t];
#pragma GCC unroll 8
    for (int n = 0; n < kBlock; ++n) {
      const int64_t at = t * stride + n;
      const Vec grad = into[n] + grad_y * c[at];
      for_c[at] += states[t + 1][n] * grad_y;
      for_b[at] += grad * driven;
      into_input += grad * b[at];
      into[n] = grad * decay[t][n];
      const Vec share = into[n] * states[t][n];  // what the state owes to its decay
      owed[n] += share * delta;
      into_delta += share * a[n];
    }
    chunk.into_input[t] = into_input;
    chunk.into_delta[t] = into_delta;
  }
#pragma GCC unroll 8
  for (int n = 0; n < kBlock; ++n) carried[n] = into[n], grad_a[n] = owed[n];
}

inline void ReverseAll(ReverseChunk& chunk, int steps, int64_t states, const Vec* start,
                       const Scratch& s, int64_t v) {
  const Vec* a = s.a + v * states;
  Vec *carried = s.carried + v * states, *grad_a = s.grad_a + v * states;
  int64_t n = 0;
  for (; n + kReverseBlock <= states; n += kReverseBlock) {
    Reverse<kReverseBlock>(chunk, steps, states, start + n, a + n, s.b + n, s.c + n, carried + n,
                           grad_a + n, s.for_b + n, s.for_c + n);
  }
  for (; n + kSmallBlock <= states; n += kSmallBlock) {
    Reverse<kSmallBlock>(chunk, steps, states, start + n, a + n, s.b + n, s.c + n, carried + n,
                         grad_a + n, s.for_b + n, s.for_c + n);
  }
  for (; n < states; ++n) {
    Reverse<1>(chunk, steps, states, start + n, a + n, s.b + n, s.c + n, carried + n, grad_a + n,
               s.for_b + n, s.for_c + n);
  }
}

inline float* StepOf(const MutableSequence& s, int64_t row, int64_t step) {
  return static_cast<float*>(s.data) + row * s.row_stride + step * s.step_stride;
}

// Adds the lane sums of a chunk, (steps, N), to a gradient of B or C.
inline void AddSums(const Vec* vectors, int64_t states, const MutableSequence& to, int64_t row,
                    int64_t start, int steps, float* sums) {
  for (int64_t i = 0; i < steps * states; i += kLanes) {
    const Vec x = SumLanes(vectors + i);
    std::memcpy(sums + i, &x, sizeof(x));
  }
  for (int t = 0; t < steps; ++t) {
    float* step = StepOf(to, row, start + t);
    for (int64_t n = 0; n < states; ++n) step[n] += sums[t * states + n];
  }
}

// A block of channels of one row: kReverseVectors vectors or, at the end of the row, fewer.
struct ChannelBlock {
  Lanes lanes[kReverseVectors];
  Vec grad_d[kReverseVectors], grad_bias[kReverseVectors];
  int vectors = 0;

  ChannelBlock(const ScanParams& p, int64_t row, int64_t first, const Scratch& s) {
    for (int64_t channel = first; vectors < kReverseVectors && channel < p.channels;
         channel += kLanes, ++vectors) {
      lanes[vectors] = Lanes(p, row, channel);
      lanes[vectors].LoadDecay(p, s.a + vectors * p.states);
      grad_d[vectors] = grad_bias[vectors] = Vec{};
    }
    for (int64_t n = 0; n < Scratch::OfBlock(p); ++n) s.carried[n] = s.grad_a[n] = Vec{};
  }
};

// Keeps the state before every chunk.
template <bool kWhole>
void KeepStarts(const ScanParams& p, const ChannelBlock& block, const Scratch& s) {
  const int64_t states = p.states, chunks = Scratch::Chunks(p);
  Vec h[kReverseVectors * kMaxStates];
  for (int64_t n = 0; n < block.vectors * states; ++n) h[n] = Vec{};
  for (int64_t k = 0; k < chunks; ++k) {
    std::memcpy(s.starts + k * Scratch::OfBlock(p), h, sizeof(Vec) * block.vectors * states);
    if (k + 1 == chunks) break;
    const int64_t start = k * kSteps;
    LoadStates<ScalarType::kFloat32>(p, p.b, block.lanes[0].row, start, kSteps, s.b);
    for (int v = 0; v < block.vectors; ++v) {
      Chunk chunk;
      chunk.Read<ScalarType::kFloat32, kWhole>(p, block.lanes[v], start, kSteps);
      // It reads b for c: nobody wants y.
      AdvanceAll(kSteps, states, chunk.delta, chunk.driven, s.a + v * states, s.b, s.b,
                 h + v * states, chunk.y);
    }
  }
}

template <bool kWhole>
void WalkBack(const BackwardContext& context, ChannelBlock& block, const Scratch& s) {
  const ScanParams& p = *context.params;
  const ScanGradients& g = *context.gradients;
  const int64_t row = block.lanes[0].row, states = p.states;
  for (int64_t k = Scratch::Chunks(p) - 1; k >= 0; --k) {
    const int64_t start = k * kSteps;
    const int steps = StepsFrom(start, p.length);
    LoadStates<ScalarType::kFloat32>(p, p.b, row, start, steps, s.b);
    LoadStates<ScalarType::kFloat32>(p, p.c, row, start, steps, s.c);
    for (int64_t i = 0; i < Scratch::OfChunk(p); ++i) s.for_b[i] = s.for_c[i] = Vec{};
    for (int v = 0; v < block.vectors; ++v) {
      ReverseChunk chunk;
      chunk.Read<kWhole>(p, g.y, block.lanes[v], start, steps);
      ReverseAll(chunk, steps, states, s.starts + (k * kReverseVectors + v) * states, s, v);
      chunk.Write<kWhole>(g, block.lanes[v], start, steps, &block.grad_d[v], &block.grad_bias[v]);
    }
    AddSums(s.for_b, states, g.b, row, start, steps, s.sums);
    AddSums(s.for_c, states, g.c, row, start, steps, s.sums);
  }
}

// Writes a row's own gradients of A, D and delta_bias.
inline void WritePartial(const BackwardContext& context, const ChannelBlock& block,
                         const Scratch& s) {
  const int64_t states = context.params->states;
  for (int v = 0; v < block.vectors; ++v) {
    const Lanes& lanes = block.lanes[v];
    float* partial = context.Partial(lanes.row) + lanes.channel * (states + 2);
    for (int i = 0; i < lanes.count; ++i, partial += states + 2) {
      for (int64_t n = 0; n < states; ++n) partial[n] = s.grad_a[v * states + n][i];
      partial[states] = block.grad_d[v][i];
      partial[states + 1] = block.grad_bias[v][i];
    }
  }
}

template <bool kWhole>
void BackwardBlock(const BackwardContext& context, int64_t row, int64_t first, const Scratch& s) {
  ChannelBlock block(*context.params, row, first, s);
  KeepStarts<kWhole>(*context.params, block, s);
  WalkBack<kWhole>(context, block, s);
  WritePartial(context, block, s);
}

void BackwardTask(void* context, int64_t row) {
  const BackwardContext& c = *static_cast<const BackwardContext*>(context);
  const ScanParams& p = *c.params;
  for (int64_t t = 0; t < p.length; ++t) {
    std::memset(StepOf(c.gradients->b, row, t), 0, sizeof(float) * p.states);
    std::memset(StepOf(c.gradients->c, row, t), 0, sizeof(float) * p.states);
  }
  const Scratch scratch(p, c.OfRow(row));
  constexpr int64_t kChannels = kReverseVectors * kLanes;
  for (int64_t first = 0; first < p.channels; first += kChannels) {
    if (first + kChannels <= p.channels) {
      BackwardBlock<true>(c, row, first, scratch);
    } else {
      BackwardBlock<false>(c, row, first, scratch);
    }
  }
}

// Sums the partial gradients of one channel of one group over the group's rows.
void SumTask(void* context, int64_t index) {
  const BackwardContext& c = *static_cast<const BackwardContext*>(context);
  const ScanParams& p = *c.params;
  const int64_t group = index / p.channels, channel = index % p.channels, rows = p.rows / p.groups;
  float* to_a = c.gradients->a + index * p.states;
  float d = 0, bias = 0;
  for (int64_t n = 0; n < p.states; ++n) to_a[n] = 0;
  for (int64_t row = group * rows; row < (group + 1) * rows; ++row) {
    const float* own = c.Partial(row) + channel * (p.states + 2);
    for (int64_t n = 0; n < p.states; ++n) to_a[n] += own[n];
    d += own[p.states];
    bias += own[p.states + 1];
  }
  c.gradients->d[index] = d;
  c.gradients->delta_bias[index] = bias;
}

}  // namespace
}  // namespace MAMBAPRO_SET
}  // namespace mambapro
