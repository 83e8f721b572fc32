// Vectors of MAMBAPRO_LANES floats and the functions that the CPU kernels need of them. Included by
// what scan_lanes.h and tokens_lanes.h include only.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "scan_tables.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

constexpr int kLanes = MAMBAPRO_LANES;

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

// The larger and the smaller of the two; x if x is NaN. Compilers see neither maxps nor minps in a
// comparison of vectors. The masked forms: GCC 12 warns of an uninitialised operand in the plain
// ones.
#if defined(__AVX512F__)
inline Vec AtLeast(float limit, Vec x) {
  return Vec(_mm512_maskz_max_ps(__mmask16(-1), __m512(Set(limit)), __m512(x)));
}
inline Vec AtMost(float limit, Vec x) {
  return Vec(_mm512_maskz_min_ps(__mmask16(-1), __m512(Set(limit)), __m512(x)));
}
#elif defined(__AVX2__)
inline Vec AtLeast(float limit, Vec x) { return Vec(_mm256_max_ps(__m256(Set(limit)), __m256(x))); }
inline Vec AtMost(float limit, Vec x) { return Vec(_mm256_min_ps(__m256(Set(limit)), __m256(x))); }
#elif defined(__SSE2__)
inline Vec AtLeast(float limit, Vec x) { return Vec(_mm_max_ps(__m128(Set(limit)), __m128(x))); }
inline Vec AtMost(float limit, Vec x) { return Vec(_mm_min_ps(__m128(Set(limit)), __m128(x))); }
#else
inline Vec AtLeast(float limit, Vec x) { return Set(limit) > x ? Set(limit) : x; }
inline Vec AtMost(float limit, Vec x) { return Set(limit) < x ? Set(limit) : x; }
#endif

inline Vec Magnitude(Vec x) { return FromBits(Bits(x) & 0x7FFFFFFF); }

#if MAMBAPRO_LANES == 16
// 2^(x y), relative error below 3e-7; infinity, 0 and NaN where they belong, while x y is below
// 1e26 in magnitude. One of the factors may be 1.
//
// x y = k + i / 32 + f with f in [-1/64, 1/64]: 2^(i/32) comes from two registers, 2^f from two
// terms. The product is never formed: it is rounded to 32nds in one operation, and the rest is
// exact.
inline Vec Exp2Product(Vec x, Vec y) {
  const Vec magic = Set(393216.0f);  // 1.5 * 2^23 / 32: the sum's low bits hold round(32 x y)
  const Vec shifted = x * y + magic, rounded = shifted - magic, f = x * y - rounded;
  Vec low, high;
  std::memcpy(&low, kRoots, sizeof(low));
  std::memcpy(&high, kRoots + kLanes, sizeof(high));
  const Vec root = __builtin_shuffle(low, high, Bits(shifted));  // by the low five bits
  const Vec p = (Set(kExp2Short[1]) * f + Set(kExp2Short[0])) * f + Set(1.0f);
  // Times 2^floor(rounded). Masked: GCC 12 warns of an uninitialised operand in the plain one.
  return Vec(_mm512_maskz_scalef_ps(__mmask16(-1), __m512(p * root), __m512(rounded)));
}
#else
// 2^(x y) for x y <= 127, relative error below 3e-7; below -126 it is 2^-126; NaN stays NaN.
inline Vec Exp2Product(Vec x, Vec y) {
  const Vec clamped = AtLeast(-126.0f, x * y);
  const Vec magic = Set(12582912.0f);  // 1.5 * 2^23: the sum's low bits hold round(x y)
  const Vec shifted = clamped + magic;
  const Vec f = clamped - (shifted - magic);  // [-1/2, 1/2]
  Vec p = Set(kExp2[5]);
  for (int i = 4; i >= 0; --i) p = p * f + Set(kExp2[i]);
  return FromBits(Bits(p) + (Bits(shifted) << 23));
}
#endif

inline Vec Exp2(Vec x) { return Exp2Product(x, Set(1.0f)); }

// exp(-|x|), of which softplus and its derivative are made.
inline Vec ExpOfMinusMagnitude(Vec x) {
  return Exp2Product(AtMost(kLargestFactor, Magnitude(x)), Set(-kLog2E));
}

// log(1 + exp(x)), relative error below 1e-6 + 8e-8 |x|: log2(e) is rounded. NaN stays NaN.
inline Vec Softplus(Vec x) {
  const Vec z = ExpOfMinusMagnitude(x);
  Vec p = Set(kLog1p[kLog1pTerms - 1]);  // log(1 + z) / z
  for (int i = kLog1pTerms - 2; i >= 0; --i) p = p * z + Set(kLog1p[i]);
  return p * z + AtLeast(0.0f, x);
}

// The derivative of softplus.
inline Vec Sigmoid(Vec x) {
  const Vec z = ExpOfMinusMagnitude(x);
  return (x < Vec{} ? z : Set(1.0f)) / (Set(1.0f) + z);
}

}  // namespace
}  // namespace MAMBAPRO_SET
}  // namespace mambapro
