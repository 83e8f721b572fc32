// Half precision for the emulation; see cuda_runtime.h. Rounds to nearest, ties to even.
#pragma once

#include "cuda_runtime.h"

struct __half {
  uint16_t bits;
};

inline float __half2float(__half h) {
  const int exponent = (h.bits >> 10) & 31, mantissa = h.bits & 1023;
  float magnitude = std::ldexp(static_cast<float>(exponent ? mantissa | 1024 : mantissa),
                               (exponent ? exponent : 1) - 25);
  if (exponent == 31) magnitude = mantissa ? NAN : INFINITY;
  return h.bits & 0x8000 ? -magnitude : magnitude;
}

inline __half __float2half_rn(float x) {
  const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
  const float magnitude = std::fabs(x);
  if (std::isnan(x)) return {static_cast<uint16_t>(sign | 0x7E00)};
  if (magnitude == 0.0f) return {sign};
  if (magnitude >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7C00)};
  int exponent;
  std::frexp(magnitude, &exponent);  // magnitude in [2^(exponent - 1), 2^exponent)
  const int unit = exponent - 11 < -24 ? -24 : exponent - 11;
  const int count = static_cast<int>(std::nearbyint(std::ldexp(magnitude, -unit)));
  // A count of 2048 carries into the exponent, and one below 1024 is subnormal, by itself.
  return {static_cast<uint16_t>(sign | (((unit + 24) << 10) + count))};
}
