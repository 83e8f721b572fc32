// Vectors of floats to quantised bytes. Included by the tokens_*.h only.
#pragma once

#include <cstdint>
#include <cstring>

#include "scan_vectors.h"
#include "tokens.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

typedef uint8_t Bytes __attribute__((vector_size(kLanes)));

inline Vec LoadAll(const float* from) {
  Vec x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

// The first `count` lanes, zeros in the others.
inline Vec LoadFirst(const float* from, int count) {
  Vec x{};
  std::memcpy(&x, from, sizeof(float) * count);
  return x;
}

template <typename Vector, typename Element>
inline void StoreFirst(const Vector& x, Element* to, int count) {
  std::memcpy(to, &x, sizeof(Element) * count);
}

// Calls body(offset, lanes) over [0, count): with kLanes lanes as a constant, and once with fewer.
template <typename Body>
inline void ForLanes(int64_t count, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) body(i, kLanes);
  if (i < count) body(i, static_cast<int>(count - i));
}

inline Vec LoadLanes(const float* from, int lanes) {
  return lanes == kLanes ? LoadAll(from) : LoadFirst(from, lanes);
}

inline float Sum(Vec x) {
  float sum = 0.0f;
  for (int i = 0; i < kLanes; ++i) sum += x[i];
  return sum;
}

// 1 / x for finite x of normal magnitude, relative error below 2e-7.
inline Vec Reciprocal(Vec x) {
#if defined(__AVX512F__)
  const Vec guess = Vec(_mm512_maskz_rcp14_ps(__mmask16(-1), __m512(x)));
  return guess * (Set(2.0f) - x * guess);
#else
  return Set(1.0f) / x;
#endif
}

// x sigmoid(x), relative error below 1e-5 for x in [-87, infinity); below -87 nothing of note.
inline Vec Silu(Vec x) {
  const Vec z = Exp2Product(AtMost(87.0f, AtLeast(-87.0f, x)), Set(-kLog2E));
  return x * Reciprocal(Set(1.0f) + z);
}

// Multiplies by 1 / scale where QuantizeLinear divides: the last bit of a quotient may differ, and
// so may the rounding of one that lies between two steps.
class Quantiser {
 public:
  explicit Quantiser(const Quantisation& to)
      : steps_(1.0f / to.scale),
        low_(-static_cast<float>(to.zero_point)),
        high_(255.0f - static_cast<float>(to.zero_point)),
        offset_(to.zero_point - kMagicBits) {}

  Bytes operator()(Vec x) const {
    const Vec steps = AtMost(high_, AtLeast(low_, x * Set(steps_)));
    return __builtin_convertvector(Bits(steps + Set(kMagic)) + offset_, Bytes);
  }

 private:
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: the sum's low bits hold the integer
  static constexpr int32_t kMagicBits = 0x4B400000;

  float steps_, low_, high_;
  int32_t offset_;
};

}  // namespace
}  // namespace MAMBAPRO_SET
}  // namespace mambapro
