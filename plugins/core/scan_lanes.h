// The CPU scan, written once over vectors of MAMBAPRO_LANES floats and compiled once for each
// instruction set. Include it from one .cc file a set, which defines MAMBAPRO_LANES and
// MAMBAPRO_SET (a namespace of its own: the same inline function compiled with other flags is
// another function).
#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "scan.h"
#include "scan_tables.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

constexpr int kLanes = MAMBAPRO_LANES;
constexpr int kSteps = 16;       // steps of a chunk: its inputs stay in the first-level cache
constexpr int kStateBlock = 16;  // states held in registers at once
constexpr int kSmallBlock = 4;   // and when fewer are left
constexpr int kVectors = 4;      // vectors of channels of a task: whole cache lines for halves too

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

// The larger of the two; x if x is NaN. Compilers see no maxps in a comparison of vectors.
inline Vec AtLeast(float limit, Vec x) {
#if defined(__AVX512F__)
  // The masked form: GCC 12 warns of an uninitialised operand in the plain one.
  return Vec(_mm512_maskz_max_ps(__mmask16(-1), __m512(Set(limit)), __m512(x)));
#elif defined(__AVX2__)
  return Vec(_mm256_max_ps(__m256(Set(limit)), __m256(x)));
#elif defined(__SSE2__)
  return Vec(_mm_max_ps(__m128(Set(limit)), __m128(x)));
#else
  return Set(limit) > x ? Set(limit) : x;
#endif
}

#if MAMBAPRO_LANES == 16
// 2^x, relative error below 3e-7; infinity, 0 and NaN where they belong.
//
// x = k + i / 32 + f with f in [0, 1/32): 2^(i/32) comes from two registers, 2^f from two terms.
// Multiplications are what a step of the scan has most of, so this beats a longer polynomial.
// The masked intrinsics are plain ones: GCC 12 warns of an uninitialised operand in those.
inline Vec Exp2(Vec x) {
  constexpr __mmask16 kAll = 0xFFFF;
  constexpr int kDown = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
  const __m512 power(x), magic(Set(393216.0f));  // 1.5 * 2^23 / 32: the low bits hold floor(32 x)
  // Not vreduceps, which does this in one: on Zen 5 it waits for the last use of its destination.
  const Vec f = x - Vec(_mm512_maskz_roundscale_ps(kAll, power, 5 << 4 | kDown));
  const Int index = Bits(Vec(_mm512_maskz_add_round_ps(kAll, power, magic, kDown)));
  Vec low, high;
  std::memcpy(&low, kRoots, sizeof(low));
  std::memcpy(&high, kRoots + kLanes, sizeof(high));
  const Vec root = __builtin_shuffle(low, high, index);  // by the low five bits
  const Vec p = (Set(kExp2Short[1]) * f + Set(kExp2Short[0])) * f + Set(1.0f);
  return Vec(_mm512_maskz_scalef_ps(kAll, __m512(p * root), power));  // by 2^floor(x)
}
#else
// 2^x for x <= 127, relative error below 3e-7; below -126 it is 2^-126; NaN stays NaN.
inline Vec Exp2(Vec x) {
  const Vec clamped = AtLeast(-126.0f, x);
  const Vec magic = Set(12582912.0f);  // 1.5 * 2^23: the sum's low bits hold round(x)
  const Vec rounded = clamped + magic;
  const Vec f = clamped - (rounded - magic);  // [-1/2, 1/2]
  Vec p = Set(kExp2[5]);
  for (int i = 4; i >= 0; --i) p = p * f + Set(kExp2[i]);
  return FromBits(Bits(p) + (Bits(rounded) << 23));
}
#endif

// log(1 + exp(x)), relative error below 1e-6 + 8e-8 |x|: the exponent is rounded. NaN stays NaN.
inline Vec Softplus(Vec x) {
  const Vec magnitude = x < Vec{} ? x : -x;
  const Vec z = Exp2(magnitude * Set(kLog2E));
  // log(1 + z) = 2 atanh(z / (2 + z)), a short odd series for z in [0, 1].
  const Vec s = z / (Set(2.0f) + z), s2 = s * s;
  Vec p = Set(kAtanh[kAtanhTerms - 1]);
  for (int i = kAtanhTerms - 2; i >= 0; --i) p = p * s2 + Set(kAtanh[i]);
  return AtLeast(0.0f, x) + p * s;
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

typedef uint16_t Words __attribute__((vector_size(2 * kLanes)));

// kLanes elements of 16 bits, as their bits.
inline Int LoadWords(const uint16_t* p) {
  Words words;
  std::memcpy(&words, p, sizeof(words));
  return __builtin_convertvector(words, Int);
}

template <ScalarType kType>
inline Vec Widen(Int bits) {
  return kType == ScalarType::kFloat16 ? FromHalf(bits) : FromBits(bits << 16);
}

// Loads the first `count` elements at `offset`, the other lanes are 0; all of them if kWhole.
template <ScalarType kType, bool kWhole>
inline Vec Load(const void* data, int64_t offset, int count) {
  const size_t lanes = kWhole ? kLanes : count;
  if constexpr (kType == ScalarType::kFloat32) {
    Vec x{};
    std::memcpy(&x, static_cast<const float*>(data) + offset, sizeof(float) * lanes);
    return x;
  } else {
    const uint16_t* p = static_cast<const uint16_t*>(data) + offset;
    uint16_t padded[kLanes] = {};
    if (!kWhole) std::memcpy(padded, p, sizeof(uint16_t) * lanes);
    return Widen<kType>(LoadWords(kWhole ? p : padded));
  }
}

template <ScalarType kType, bool kWhole>
inline void Store(Vec x, void* data, int64_t offset, int count) {
  const size_t lanes = kWhole ? kLanes : count;
  if constexpr (kType == ScalarType::kFloat32) {
    std::memcpy(static_cast<float*>(data) + offset, &x, sizeof(float) * lanes);
  } else {
    const Int bits = kType == ScalarType::kFloat16 ? ToHalf(x) : ToBFloat(x);
    const Words words = __builtin_convertvector(bits, Words);
    std::memcpy(static_cast<uint16_t*>(data) + offset, &words, sizeof(uint16_t) * lanes);
  }
}

// Parameters and gradients: always float32.
inline Vec LoadSome(const float* from, int count) {
  return Load<ScalarType::kFloat32, false>(from, 0, count);
}

inline void StoreSome(Vec x, float* to, int count) {
  Store<ScalarType::kFloat32, false>(x, to, 0, count);
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
    d = LoadSome(p.d + group() * p.channels + channel, count);
    bias = LoadSome(p.delta_bias + group() * p.channels + channel, count);
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

// B or C of `steps` steps of a row as float32, (steps, N).
template <ScalarType kType>
inline void LoadStates(const ScanParams& p, const ConstSequence& from, int64_t row, int64_t start,
                       int steps, float* to) {
  for (int t = 0; t < steps; ++t) {
    const int64_t offset = row * from.row_stride + (start + t) * from.step_stride;
    for (int64_t n = 0; n < p.states; n += kLanes) {
      const int64_t left = p.states - n;
      const int count = left < kLanes ? static_cast<int>(left) : kLanes;
      const Vec x = count == kLanes ? Load<kType, true>(from.data, offset + n, count)
                                    : Load<kType, false>(from.data, offset + n, count);
      std::memcpy(to + t * p.states + n, &x, sizeof(float) * count);
    }
  }
}

// Advances kBlock states of one vector of channels by `steps` steps and adds what they read to y.
template <int kBlock>
__attribute__((noinline)) void Advance(int steps, int64_t stride, const Vec* delta,
                                       const Vec* driven, const Vec* a, const float* b,
                                       const float* c, Vec* h, Vec* y) {
  Vec state[kBlock];
  for (int n = 0; n < kBlock; ++n) state[n] = h[n];
  for (int t = 0; t < steps; ++t, b += stride, c += stride) {
    Vec even = y[t], odd{};
#pragma GCC unroll 16
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
  for (; n + kSmallBlock <= states; n += kSmallBlock) {
    Advance<kSmallBlock>(steps, states, delta, driven, a + n, b + n, c + n, h + n, y);
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

// The inputs of one vector of channels over a chunk, and what follows from them step by step.
struct Chunk {
  Vec delta[kSteps], driven[kSteps], y[kSteps];

  template <ScalarType kType, bool kWhole>
  void Read(const ScanParams& p, const Lanes& lanes, int64_t start, int steps) {
    int64_t u_at = lanes.row * p.u.row_stride + start * p.u.step_stride + lanes.channel;
    int64_t delta_at = lanes.row * p.delta.row_stride + start * p.delta.step_stride + lanes.channel;
    for (int t = 0; t < steps; ++t, u_at += p.u.step_stride, delta_at += p.delta.step_stride) {
      const Vec u = Load<kType, kWhole>(p.u.data, u_at, lanes.count);
      delta[t] = Softplus(lanes.bias + Load<kType, kWhole>(p.delta.data, delta_at, lanes.count));
      driven[t] = delta[t] * u;
      y[t] = lanes.d * u;
    }
  }

  template <ScalarType kType, bool kWhole>
  void Write(const ScanParams& p, const Lanes& lanes, int64_t start, int steps) const {
    int64_t at = lanes.row * p.y.row_stride + start * p.y.step_stride + lanes.channel;
    for (int t = 0; t < steps; ++t, at += p.y.step_stride) {
      Store<kType, kWhole>(y[t], p.y.data, at, lanes.count);
    }
  }
};

// Runs kVectors vectors of channels of one row from its first step to its last; kWhole: each of
// them is there and full.
template <ScalarType kType, bool kWhole>
__attribute__((noinline)) void ForwardTile(const ScanParams& p, int64_t row, int64_t first) {
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
    LoadStates<kType>(p, p.b, row, start, steps, b);
    LoadStates<kType>(p, p.c, row, start, steps, c);
    for (int v = 0; v < vectors; ++v) {
      const Lanes lanes(p, row, first + v * kLanes);
      Chunk chunk;
      chunk.Read<kType, kWhole>(p, lanes, start, steps);
      AdvanceAll(steps, p.states, chunk.delta, chunk.driven, a[v], b, c, h[v], chunk.y);
      chunk.Write<kType, kWhole>(p, lanes, start, steps);
    }
  }
}

template <ScalarType kType>
void ForwardTask(void* context, int64_t index) {
  const ScanParams& p = *static_cast<const ScanParams*>(context);
  const Tiles tiles(p);
  const int64_t row = index / tiles.per_row, first = index % tiles.per_row * tiles.channels;
  if (first + tiles.channels <= p.channels) {
    ForwardTile<kType, true>(p, row, first);
  } else {
    ForwardTile<kType, false>(p, row, first);
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

// A chunk with what the gradients need besides.
struct ReverseInputs {
  int64_t start;
  int steps;
  Vec u[kSteps], raw[kSteps], delta[kSteps], driven[kSteps];

  ReverseInputs(const ScanParams& p, const Lanes& lanes, int64_t index) : start(index * kSteps) {
    const int64_t left = p.length - start;
    steps = left < kSteps ? static_cast<int>(left) : kSteps;
    for (int t = 0; t < steps; ++t) {
      u[t] = LoadStep(p.u, lanes, start + t);
      raw[t] = lanes.bias + LoadStep(p.delta, lanes, start + t);
      delta[t] = Softplus(raw[t]);
      driven[t] = delta[t] * u[t];
    }
  }
  static Vec LoadStep(const ConstSequence& s, const Lanes& lanes, int64_t step) {
    const int64_t offset = lanes.row * s.row_stride + step * s.step_stride + lanes.channel;
    return LoadSome(static_cast<const float*>(s.data) + offset, lanes.count);
  }
};

// Computes decay and state of every step of a chunk from the state before it, states[0].
inline void Retrace(const ReverseInputs& chunk, int64_t states, const Vec* a, const Scratch& s) {
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

// Gradients of one vector of channels over one chunk, last step first. `carried` (N) is the
// gradient of the state after the chunk and becomes that of the state before it.
inline void ReverseChunk(const BackwardContext& context, const Lanes& lanes,
                         const ReverseInputs& chunk, const Vec* a, const Scratch& s, Vec* carried,
                         Vec* grad_a, Vec* grad_d, Vec* grad_bias) {
  const ScanParams& p = *context.params;
  const ScanGradients& g = *context.gradients;
  const int64_t states = p.states;
  for (int t = chunk.steps - 1; t >= 0; --t) {
    const int64_t step = chunk.start + t;
    const Vec grad_y = ReverseInputs::LoadStep(g.y, lanes, step);
    const Vec *before = s.states + t * states, *after = before + states,
              *decay = s.decay + t * states;
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
    StoreSome(grad_u, StepOf(g.u, lanes.row, step) + lanes.channel, lanes.count);
    StoreSome(grad_delta, StepOf(g.delta, lanes.row, step) + lanes.channel, lanes.count);
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
    const ReverseInputs chunk(p, lanes, k);
    LoadStates<ScalarType::kFloat32>(p, p.b, lanes.row, chunk.start, chunk.steps, s.b);
    for (int t = 0; t < chunk.steps; ++t) ignored[t] = Vec{};
    AdvanceAll(chunk.steps, states, chunk.delta, chunk.driven, a, s.b, s.b, h, ignored);
  }
  for (int64_t k = chunks - 1; k >= 0; --k) {
    const ReverseInputs chunk(p, lanes, k);
    LoadStates<ScalarType::kFloat32>(p, p.b, lanes.row, chunk.start, chunk.steps, s.b);
    LoadStates<ScalarType::kFloat32>(p, p.c, lanes.row, chunk.start, chunk.steps, s.c);
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

template <Vec (*kFunction)(Vec)>
void Map(const float* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Store<ScalarType::kFloat32, true>(kFunction(Load<ScalarType::kFloat32, true>(x, i, kLanes)), y,
                                      i, kLanes);
  }
  const int rest = static_cast<int>(count - i);
  if (rest > 0) StoreSome(kFunction(LoadSome(x + i, rest)), y + i, rest);
}

}  // namespace

void MapExp2(const float* x, float* y, int64_t count) noexcept { Map<Exp2>(x, y, count); }
void MapSoftplus(const float* x, float* y, int64_t count) noexcept { Map<Softplus>(x, y, count); }

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
  const auto task = params.type == ScalarType::kFloat32   ? ForwardTask<ScalarType::kFloat32>
                    : params.type == ScalarType::kFloat16 ? ForwardTask<ScalarType::kFloat16>
                                                          : ForwardTask<ScalarType::kBFloat16>;
  parallel.run(parallel.pool, params.rows * Tiles(params).per_row, task,
               const_cast<ScanParams*>(&params));
}

}  // namespace MAMBAPRO_SET
}  // namespace mambapro
