// Reads and writes the tensors of a scan as vectors of float32. Included by scan_lanes.h only.
#pragma once

#include "scan.h"
#include "scan_vectors.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

inline int64_t Blocks(int64_t n, int64_t size) { return (n + size - 1) / size; }
inline int64_t RoundUp(int64_t n, int64_t size) { return Blocks(n, size) * size; }

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

// One row and `count` <= kLanes channels of it, from `channel` on.
struct Lanes {
  int64_t row, channel, parameters;  // the last: index of (group, channel) in D and delta_bias
  int count;
  Vec d, bias;

  Lanes() = default;
  Lanes(const ScanParams& p, int64_t row_, int64_t channel_) : row(row_), channel(channel_) {
    const int64_t left = p.channels - channel, group = row / (p.rows / p.groups);
    count = left < kLanes ? static_cast<int>(left) : kLanes;
    parameters = group * p.channels + channel;
    d = LoadSome(p.d + parameters, count);
    bias = LoadSome(p.delta_bias + parameters, count);
  }

  // Transposes A's rows of these channels to one vector a state, scaled so that Exp2 serves.
  void LoadDecay(const ScanParams& p, Vec* a) const {
    const int64_t states = p.states;
    const float* from = p.a + parameters * states;
    float* to = reinterpret_cast<float*>(a);
    for (int64_t n = 0; n < states; ++n) a[n] = Vec{};
    for (int i = 0; i < count; ++i) {
      for (int64_t n = 0; n < states; ++n) to[n * kLanes + i] = from[i * states + n] * kLog2E;
    }
  }

  // Index of a step in a tensor of rows, steps and channels.
  template <typename Sequence>
  int64_t At(const Sequence& s, int64_t step) const {
    return row * s.row_stride + step * s.step_stride + channel;
  }
};

// B or C of `steps` steps of a row as float32, (steps, N).
template <ScalarType kType>
inline void LoadStates(const ScanParams& p, const ConstSequence& from, int64_t row, int64_t start,
                       int steps, float* to) {
  for (int t = 0; t < steps; ++t) {
    const int64_t offset = row * from.row_stride + (start + t) * from.step_stride;
    float* step = to + t * p.states;
    if constexpr (kType == ScalarType::kFloat32) {
      const float* values = static_cast<const float*>(from.data) + offset;
      std::memcpy(step, values, sizeof(float) * p.states);
    } else {
      for (int64_t n = 0; n < p.states; n += kLanes) {
        const int64_t left = p.states - n;
        const int count = left < kLanes ? static_cast<int>(left) : kLanes;
        const Vec x = count == kLanes ? Load<kType, true>(from.data, offset + n, count)
                                      : Load<kType, false>(from.data, offset + n, count);
        std::memcpy(step + n, &x, sizeof(float) * count);
      }
    }
  }
}

}  // namespace
}  // namespace MAMBAPRO_SET
}  // namespace mambapro
