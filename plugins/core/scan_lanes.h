// The CPU scan, written once over vectors of MAMBAPRO_LANES floats and compiled once for each
// instruction set. Include it from one .cc file a set, which defines MAMBAPRO_LANES and MAMBAPRO_SET
// (a namespace of its own: the same inline function compiled with other flags is another function).
#include <cmath>
#include <cstdint>
#include <cstring>

#include "scan.h"
#include "scan_tables.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

constexpr int kLanes = MAMBAPRO_LANES;
constexpr int kSteps = 32;        // steps of a chunk: its inputs stay in the first-level cache
constexpr int kStateBlock = 16;   // states held in registers at once
constexpr int kVectors = 4;       // vectors of channels of a task: whole cache lines for halves too

typedef float Vec __attribute__((vector_size(4 * kLanes)));
typedef int32_t Int __attribute__((vector_size(4 * kLanes)));

inline Vec Set(float x) { return x - Vec{}; }
inline Int Bits(Vec x) {
  Int i;
  std::memcpy(&i, &x, sizeof(i));
  return i;
}
inline Vec FromBits(Int i) {
  Vec x;
  std::memcpy(&x, &i, sizeof(x));
  return x;
}
inline Vec Max(Vec a, Vec b) { return a > b ? a : b; }
inline Vec Min(Vec a, Vec b) { return a < b ? a : b; }

// 2^x, relative error below 2e-7 for x in [-126, 127]; clamped outside, NaN stays NaN.
inline Vec Exp2(Vec x) {
  const Vec clamped = x < Set(-126.0f) ? Set(-126.0f) : (x > Set(127.0f) ? Set(127.0f) : x);
  const Vec magic = Set(12582912.0f);  // 1.5 * 2^23: the sum's low bits hold round(x)
  const Vec rounded = clamped + magic;
  const Vec f = clamped - (rounded - magic);  // [-1/2, 1/2]
  Vec p = Set(kExp2[5]);
  for (int i = 4; i >= 0; --i) p = p * f + Set(kExp2[i]);
  return p * FromBits((Bits(rounded) << 23) + 0x3F800000);
}

// log(1 + exp(x)), relative error below 1e-6; NaN stays NaN.
inline Vec Softplus(Vec x) {
  const Vec magnitude = x < Vec{} ? x : -x;
  const Vec z = Exp2(magnitude * Set(kLog2E));
  // log(1 + z) = 2 atanh(z / (2 + z)), a short odd series for z in [0, 1].
  const Vec s = z / (Set(2.0f) + z), s2 = s * s;
  Vec p = Set(kAtanh[kAtanhTerms - 1]);
  for (int i = kAtanhTerms - 2; i >= 0; --i) p = p * s2 + Set(kAtanh[i]);
  return (x > Vec{} ? x : Vec{} * x) + p * s;
}

inline Vec Sigmoid(Vec x) {
  const Vec z = Exp2((x < Vec{} ? x : -x) * Set(kLog2E));
  const Vec smaller = z / (Set(1.0f) + z);
  return x < Vec{} ? smaller : Set(1.0f) - smaller;
}

// IEEE half to float: exponent moved by a multiplication, so that subnormals come out right.
inline Vec FromHalf(Int half) {
  const Int sign = (half & 0x8000) << 16, rest = half & 0x7FFF;
  const Vec scaled = FromBits(rest << 13) * Set(5.192296858534828e33f);  // 2^112
  const Int special = rest >= 0x7C00;                                    // infinity, NaN
  return FromBits((Bits(scaled) | (special & 0x7F800000)) | sign);
}

// Float to IEEE half, to nearest, ties to even; beyond the range infinity; NaN stays NaN.
inline Int ToHalf(Vec x) {
  const Int bits = Bits(x), sign = (bits >> 16) & 0x8000, rest = bits & 0x7FFFFFFF;
  const Int odd = (rest >> 13) & 1;
  const Int normal = (rest - 0x38000000 + 0x0FFF + odd) >> 13;
  const Int subnormal = Bits(FromBits(rest) + Set(0.5f)) - 0x3F000000;
  Int half = rest < 0x38800000 ? subnormal : normal;
  half = rest >= 0x477FF000 ? Int{} + 0x7C00 : half;
  half = rest > 0x7F800000 ? Int{} + 0x7E00 : half;
  return half | sign;
}

inline Int ToBFloat(Vec x) {
  const Int bits = Bits(x), odd = (bits >> 16) & 1;
  const Int rounded = ((bits + 0x7FFF + odd) >> 16) & 0xFFFF;
  const Int nan = (bits & 0x7FFFFFFF) > 0x7F800000;
  return nan ? Int{} + 0x7FC0 : rounded;
}

// Loads `count` <= kLanes elements of `type`; the other lanes are 0.
inline Vec Load(const void* data, int64_t offset, ScalarType type, int count) {
  Vec x{};
  if (type == ScalarType::kFloat32) {
    const float* p = static_cast<const float*>(data) + offset;
    if (count == kLanes) {
      std::memcpy(&x, p, sizeof(x));
    } else {
      std::memcpy(&x, p, sizeof(float) * count);
    }
    return x;
  }
  const uint16_t* p = static_cast<const uint16_t*>(data) + offset;
  Int bits{};
  for (int i = 0; i < count; ++i) bits[i] = p[i];
  return type == ScalarType::kFloat16 ? FromHalf(bits) : FromBits(bits << 16);
}

inline void Store(Vec x, void* data, int64_t offset, ScalarType type, int count) {
  if (type == ScalarType::kFloat32) {
    float* p = static_cast<float*>(data) + offset;
    if (count == kLanes) {
      std::memcpy(p, &x, sizeof(x));
    } else {
      std::memcpy(p, &x, sizeof(float) * count);
    }
    return;
  }
  uint16_t* p = static_cast<uint16_t*>(data) + offset;
  const Int bits = type == ScalarType::kFloat16 ? ToHalf(x) : ToBFloat(x);
  for (int i = 0; i < count; ++i) p[i] = static_cast<uint16_t>(bits[i]);
}

// One row and `count` <= kLanes channels from `channel` on, `states` of them transposed to vectors.
struct Lanes {
  const ScanParams* params;
  int64_t row, channel;
  int count;
  Vec d, bias;

  Lanes(const ScanParams& p, int64_t row_, int64_t channel_)
      : params(&p), row(row_), channel(channel_) {
    const int64_t left = p.channels - channel_;
    count = left < kLanes ? static_cast<int>(left) : kLanes;
    d = Load(p.d, group() * p.channels + channel, ScalarType::kFloat32, count);
    bias = Load(p.delta_bias, group() * p.channels + channel, ScalarType::kFloat32, count);
  }
  int64_t group() const { return row / (params->rows / params->groups); }

  // Transposes A's rows of these channels to one vector a state, scaled so that Exp2 serves.
  void LoadDecay(Vec* a) const {
    const int64_t states = params->states;
    const float* rows = params->a + (group() * params->channels + channel) * states;
    for (int64_t n = 0; n < states; ++n) {
      Vec x{};
      for (int i = 0; i < count; ++i) x[i] = rows[i * states + n] * kLog2E;
      a[n] = x;
    }
  }
};

// B and C of `steps` steps of a row as float32, (steps, N) each.
inline void LoadStates(const ScanParams& p, const ConstSequence& from, int64_t row, int64_t start,
                       int steps, float* to) {
  for (int t = 0; t < steps; ++t) {
    const int64_t offset = row * from.row_stride + (start + t) * from.step_stride;
    for (int64_t n = 0; n < p.states; n += kLanes) {
      const int64_t left = p.states - n;
      const int count = left < kLanes ? static_cast<int>(left) : kLanes;
      const Vec x = Load(from.data, offset + n, p.type, count);
      std::memcpy(to + t * p.states + n, &x, sizeof(float) * count);
    }
  }
}

// Advances kBlock states of one vector of channels by `steps` steps and adds what they read to y.
template <int kBlock>
inline void Advance(int steps, int64_t stride, const Vec* delta, const Vec* driven, const Vec* a,
                    const float* b, const float* c, Vec* h, Vec* y) {
  Vec state[kBlock];
  for (int n = 0; n < kBlock; ++n) state[n] = h[n];
  for (int t = 0; t < steps; ++t, b += stride, c += stride) {
    Vec even = y[t], odd{};
    for (int n = 0; n < kBlock; n += 2) {
      state[n] = Exp2(delta[t] * a[n]) * state[n] + driven[t] * b[n];
      state[n + 1] = Exp2(delta[t] * a[n + 1]) * state[n + 1] + driven[t] * b[n + 1];
      even += state[n] * c[n];
      odd += state[n + 1] * c[n + 1];
    }
    y[t] = even + odd;
  }
  for (int n = 0; n < kBlock; ++n) h[n] = state[n];
}

inline void AdvanceOne(int steps, int64_t stride, const Vec* delta, const Vec* driven, Vec a,
                       const float* b, const float* c, Vec* h, Vec* y) {
  for (int t = 0; t < steps; ++t) {
    *h = Exp2(delta[t] * a) * *h + driven[t] * b[t * stride];
    y[t] += *h * c[t * stride];
  }
}

inline void AdvanceAll(int steps, int64_t states, const Vec* delta, const Vec* driven, const Vec* a,
                       const float* b, const float* c, Vec* h, Vec* y) {
  int64_t n = 0;
  for (; n + kStateBlock <= states; n += kStateBlock) {
    Advance<kStateBlock>(steps, states, delta, driven, a + n, b + n, c + n, h + n, y);
  }
  for (; n < states; ++n) {
    AdvanceOne(steps, states, delta, driven, a[n], b + n, c + n, h + n, y);
  }
}

struct Tiles {
  int64_t channels, per_row;
  explicit Tiles(const ScanParams& p)
      : channels(static_cast<int64_t>(kVectors) * kLanes),
        per_row((p.channels + channels - 1) / channels) {}
};

void ForwardTask(void* context, int64_t index) {
  const ScanParams& p = *static_cast<const ScanParams*>(context);
  const Tiles tiles(p);
  const int64_t row = index / tiles.per_row, first = index % tiles.per_row * tiles.channels;
  alignas(64) Vec a[kVectors][kMaxStates], h[kVectors][kMaxStates];
  alignas(64) float b[kSteps * kMaxStates], c[kSteps * kMaxStates];
  int vectors = 0;
  for (int v = 0; v < kVectors && first + v * kLanes < p.channels; ++v, ++vectors) {
    Lanes(p, row, first + v * kLanes).LoadDecay(a[v]);
    for (int64_t n = 0; n < p.states; ++n) h[v][n] = Vec{};
  }
  for (int64_t start = 0; start < p.length; start += kSteps) {
    const int64_t left = p.length - start;
    const int steps = left < kSteps ? static_cast<int>(left) : kSteps;
    LoadStates(p, p.b, row, start, steps, b);
    LoadStates(p, p.c, row, start, steps, c);
    for (int v = 0; v < vectors; ++v) {
      const Lanes lanes(p, row, first + v * kLanes);
      Vec delta[kSteps], driven[kSteps], y[kSteps];
      for (int t = 0; t < steps; ++t) {
        const int64_t step = start + t;
        const Vec u = Load(p.u.data, row * p.u.row_stride + step * p.u.step_stride + lanes.channel,
                           p.type, lanes.count);
        const Vec raw =
            Load(p.delta.data, row * p.delta.row_stride + step * p.delta.step_stride + lanes.channel,
                 p.type, lanes.count);
        delta[t] = Softplus(raw + lanes.bias);
        driven[t] = delta[t] * u;
        y[t] = lanes.d * u;
      }
      AdvanceAll(steps, p.states, delta, driven, a[v], b, c, h[v], y);
      for (int t = 0; t < steps; ++t) {
        Store(y[t], p.y.data, row * p.y.row_stride + (start + t) * p.y.step_stride + lanes.channel,
              p.type, lanes.count);
      }
    }
  }
}

// --- backward ------------------------------------------------------------------------------------

// Sums the lanes of kLanes vectors; lane i of the result is the sum of rows[i]. Spoils rows.
inline Vec SumLanes(Vec* rows) {
  Int low{}, high{};  // the first, and the second of each pair of lanes `width` apart
  for (int width = kLanes / 2, count = kLanes; width >= 1; width /= 2, count /= 2) {
    for (int i = 0; i < kLanes; ++i) {
      const int lane = i % (2 * width);
      low[i] = lane < width ? i : kLanes + i - width;
      high[i] = lane < width ? i + width : kLanes + i;
    }
    for (int i = 0; i < count / 2; ++i) {
      const Vec a = rows[i], b = rows[i + count / 2];
      rows[i] = __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
    }
  }
  return rows[0];
}

// What the backward pass of one row keeps in scratch memory.
struct Scratch {
  Vec *starts, *states, *decay;  // (chunks, N), (kSteps + 1, N), (kSteps, N)
  float *b, *c;                  // (kSteps, N)

  static int64_t Chunks(const ScanParams& p) { return (p.length + kSteps - 1) / kSteps; }
  static int64_t RowFloats(const ScanParams& p) {
    return (Chunks(p) + 2 * kSteps + 1) * p.states * kLanes + RoundUp(2 * kSteps * p.states);
  }
  // Per row: gradients of A, D and delta_bias, to be summed over the rows of a group.
  static int64_t PartialFloats(const ScanParams& p) { return RoundUp(p.channels * (p.states + 2)); }
  static int64_t RoundUp(int64_t n) { return (n + 15) / 16 * 16; }

  Scratch(const ScanParams& p, float* memory) {
    starts = reinterpret_cast<Vec*>(memory);
    states = starts + Chunks(p) * p.states;
    decay = states + (kSteps + 1) * p.states;
    b = reinterpret_cast<float*>(decay + kSteps * p.states);
    c = b + kSteps * p.states;
  }
};

struct BackwardContext {
  const ScanParams* params;
  const ScanGradients* gradients;
  float* scratch;
  float* Partial(int64_t row) const {
    return scratch + params->rows * Scratch::RowFloats(*params) +
           row * Scratch::PartialFloats(*params);
  }
};

// The inputs of one vector of channels over a chunk, and what follows from them step by step.
struct Chunk {
  int64_t start;
  int steps;
  Vec u[kSteps], raw[kSteps], delta[kSteps], driven[kSteps];

  Chunk(const ScanParams& p, const Lanes& lanes, int64_t index) : start(index * kSteps) {
    const int64_t left = p.length - start, row = lanes.row;
    steps = left < kSteps ? static_cast<int>(left) : kSteps;
    for (int t = 0; t < steps; ++t) {
      const int64_t s = start + t;
      u[t] = Load(p.u.data, row * p.u.row_stride + s * p.u.step_stride + lanes.channel, p.type,
                  lanes.count);
      raw[t] = lanes.bias + Load(p.delta.data,
                                 row * p.delta.row_stride + s * p.delta.step_stride + lanes.channel,
                                 p.type, lanes.count);
      delta[t] = Softplus(raw[t]);
      driven[t] = delta[t] * u[t];
    }
  }
};

// Computes decay and state of every step of a chunk from the state before it, states[0].
inline void Retrace(const Chunk& chunk, int64_t states, const Vec* a, const Scratch& s) {
  for (int t = 0; t < chunk.steps; ++t) {
    const Vec* before = s.states + t * states;
    Vec *after = s.states + (t + 1) * states, *decay = s.decay + t * states;
    for (int64_t n = 0; n < states; ++n) {
      decay[n] = Exp2(chunk.delta[t] * a[n]);
      after[n] = decay[n] * before[n] + chunk.driven[t] * s.b[t * states + n];
    }
  }
}

// Adds the lane sums of `count` vectors to `to`.
inline void AddSums(Vec* rows, int count, float* to) {
  for (int i = count; i < kLanes; ++i) rows[i] = Vec{};
  const Vec sums = SumLanes(rows);
  for (int i = 0; i < count; ++i) to[i] += sums[i];
}

inline float* StepOf(const MutableSequence& s, int64_t row, int64_t step) {
  return static_cast<float*>(s.data) + row * s.row_stride + step * s.step_stride;
}

// Gradients of one vector of channels over one chunk, last step first. `carried` (N) is the gradient
// of the state after the chunk and becomes that of the state before it.
inline void ReverseChunk(const BackwardContext& context, const Lanes& lanes, const Chunk& chunk,
                         const Vec* a, const Scratch& s, Vec* carried, Vec* grad_a, Vec* grad_d,
                         Vec* grad_bias) {
  const ScanParams& p = *context.params;
  const ScanGradients& g = *context.gradients;
  const int64_t states = p.states;
  for (int t = chunk.steps - 1; t >= 0; --t) {
    const int64_t step = chunk.start + t;
    const Vec grad_y = Load(g.y.data, lanes.row * g.y.row_stride + step * g.y.step_stride + lanes.channel,
                            ScalarType::kFloat32, lanes.count);
    const Vec *before = s.states + t * states, *after = before + states, *decay = s.decay + t * states;
    const float *b = s.b + t * states, *c = s.c + t * states;
    float *to_b = StepOf(g.b, lanes.row, step), *to_c = StepOf(g.c, lanes.row, step);
    Vec into_input{}, into_delta{};
    for (int64_t n = 0; n < states; n += kLanes) {
      const int count = states - n < kLanes ? static_cast<int>(states - n) : kLanes;
      Vec for_b[kLanes], for_c[kLanes];
      for (int i = 0; i < count; ++i) {
        const int64_t k = n + i;
        const Vec grad = carried[k] + grad_y * c[k];
        for_c[i] = after[k] * grad_y;
        for_b[i] = grad * chunk.driven[t];
        into_input += grad * b[k];
        const Vec kept = grad * decay[k], owed = kept * before[k];
        grad_a[k] += owed * chunk.delta[t];
        into_delta += owed * a[k];
        carried[k] = kept;
      }
      AddSums(for_b, count, to_b + n);
      AddSums(for_c, count, to_c + n);
    }
    // a is scaled by log2(e), so into_delta is too.
    const Vec grad_delta =
        (into_delta * Set(1 / kLog2E) + into_input * chunk.u[t]) * Sigmoid(chunk.raw[t]);
    const Vec grad_u = into_input * chunk.delta[t] + lanes.d * grad_y;
    *grad_d += grad_y * chunk.u[t];
    *grad_bias += grad_delta;
    Store(grad_u, StepOf(g.u, lanes.row, step), lanes.channel, ScalarType::kFloat32, lanes.count);
    Store(grad_delta, StepOf(g.delta, lanes.row, step), lanes.channel, ScalarType::kFloat32,
          lanes.count);
  }
}

void BackwardVector(const BackwardContext& context, const Lanes& lanes, const Scratch& s) {
  const ScanParams& p = *context.params;
  const int64_t states = p.states, chunks = Scratch::Chunks(p);
  alignas(64) Vec a[kMaxStates], h[kMaxStates], carried[kMaxStates], grad_a[kMaxStates];
  lanes.LoadDecay(a);
  for (int64_t n = 0; n < states; ++n) h[n] = carried[n] = grad_a[n] = Vec{};
  Vec grad_d{}, grad_bias{}, ignored[kSteps];
  for (int64_t k = 0; k < chunks; ++k) {
    std::memcpy(s.starts + k * states, h, sizeof(Vec) * states);
    if (k + 1 == chunks) break;
    const Chunk chunk(p, lanes, k);
    LoadStates(p, p.b, lanes.row, chunk.start, chunk.steps, s.b);
    for (int t = 0; t < chunk.steps; ++t) ignored[t] = Vec{};
    AdvanceAll(chunk.steps, states, chunk.delta, chunk.driven, a, s.b, s.b, h, ignored);
  }
  for (int64_t k = chunks - 1; k >= 0; --k) {
    const Chunk chunk(p, lanes, k);
    LoadStates(p, p.b, lanes.row, chunk.start, chunk.steps, s.b);
    LoadStates(p, p.c, lanes.row, chunk.start, chunk.steps, s.c);
    std::memcpy(s.states, s.starts + k * states, sizeof(Vec) * states);
    Retrace(chunk, states, a, s);
    ReverseChunk(context, lanes, chunk, a, s, carried, grad_a, &grad_d, &grad_bias);
  }
  float* partial = context.Partial(lanes.row);
  for (int i = 0; i < lanes.count; ++i) {
    float* own = partial + (lanes.channel + i) * (states + 2);
    for (int64_t n = 0; n < states; ++n) own[n] = grad_a[n][i];
    own[states] = grad_d[i];
    own[states + 1] = grad_bias[i];
  }
}

void BackwardTask(void* context, int64_t row) {
  const BackwardContext& c = *static_cast<const BackwardContext*>(context);
  const ScanParams& p = *c.params;
  for (int64_t t = 0; t < p.length; ++t) {
    std::memset(StepOf(c.gradients->b, row, t), 0, sizeof(float) * p.states);
    std::memset(StepOf(c.gradients->c, row, t), 0, sizeof(float) * p.states);
  }
  const Scratch scratch(p, c.scratch + row * Scratch::RowFloats(p));
  for (int64_t channel = 0; channel < p.channels; channel += kLanes) {
    BackwardVector(c, Lanes(p, row, channel), scratch);
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

size_t BackwardScratchBytes(const ScanParams& p) noexcept {
  return sizeof(float) * p.rows * (Scratch::RowFloats(p) + Scratch::PartialFloats(p));
}

void Backward(const ScanParams& params, const ScanGradients& gradients, void* scratch,
              const ParallelFor& parallel) noexcept {
  BackwardContext context{&params, &gradients, static_cast<float*>(scratch)};
  parallel.run(parallel.pool, params.rows, BackwardTask, &context);
  parallel.run(parallel.pool, params.groups * params.channels, SumTask, &context);
}

void Forward(const ScanParams& params, const ParallelFor& parallel) noexcept {
  parallel.run(parallel.pool, params.rows * Tiles(params).per_row, ForwardTask,
               const_cast<ScanParams*>(&params));
}

}  // namespace MAMBAPRO_SET
}  // namespace mambapro
