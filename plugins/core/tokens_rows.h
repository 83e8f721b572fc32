// SiLU and LayerNorm with the quantisation of their result. Included by tokens_lanes.h only.
#pragma once

#include <algorithm>
#include <cmath>

#include "tokens_vectors.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

constexpr int64_t kSiluTask = 1 << 15;  // values
constexpr int64_t kNormRows = 16;

void SiluTask(void* context, int64_t index) {
  const SiluParams& p = *static_cast<const SiluParams*>(context);
  const int64_t start = index * kSiluTask;
  const float* x = p.x + start;
  uint8_t* y = p.y + start;
  const Quantiser quantise(p.to);
  ForLanes(std::min(kSiluTask, p.count - start), [&](int64_t i, int lanes) {
    StoreFirst(quantise(Silu(LoadLanes(x + i, lanes))), y + i, lanes);
  });
}

// The mean of f(x) over a row; lanes beyond its end count as f's zeros.
template <typename Function>
inline float Mean(const float* x, int64_t channels, Function f) {
  Vec sums[4] = {};
  ForLanes(channels, [&](int64_t i, int lanes) {
    Vec term = f(LoadLanes(x + i, lanes));
    if (lanes < kLanes) term = LoadFirst(reinterpret_cast<const float*>(&term), lanes);
    sums[i / kLanes % 4] += term;
  });
  return Sum((sums[0] + sums[1]) + (sums[2] + sums[3])) / static_cast<float>(channels);
}

inline void AddRow(const float* x, const float* branch, int64_t channels, Quantisation to,
                   float* sum, uint8_t* y) {
  const Quantiser quantise(to);
  ForLanes(channels, [&](int64_t i, int lanes) {
    const Vec added = LoadLanes(x + i, lanes) + LoadLanes(branch + i, lanes);
    StoreFirst(added, sum + i, lanes);
    StoreFirst(quantise(added), y + i, lanes);
  });
}

inline void NormRow(const NormParams& p, const float* x, uint8_t* y) {
  const float mean = Mean(x, p.channels, [](Vec v) { return v; });
  const float variance = Mean(x, p.channels, [&](Vec v) { return (v - mean) * (v - mean); });
  const float factor = 1.0f / std::sqrt(variance + p.epsilon);
  const Quantiser quantise(p.to);
  ForLanes(p.channels, [&](int64_t i, int lanes) {
    const Vec scaled = (LoadLanes(x + i, lanes) - mean) * Set(factor);
    const Vec normed = scaled * LoadLanes(p.gain + i, lanes) + LoadLanes(p.shift + i, lanes);
    StoreFirst(quantise(normed), y + i, lanes);
  });
}

void NormTask(void* context, int64_t index) {
  const NormParams& p = *static_cast<const NormParams*>(context);
  const int64_t end = std::min(p.rows, (index + 1) * kNormRows);
  for (int64_t row = index * kNormRows; row < end; ++row) {
    const int64_t at = row * p.channels;
    const float* x = p.x + at;
    if (p.branch) {
      AddRow(x, p.branch + at, p.channels, p.sum_to, p.sum + at, p.sum_y + at);
      x = p.sum + at;
    }
    NormRow(p, x, p.y + at);
  }
}

}  // namespace
}  // namespace MAMBAPRO_SET
}  // namespace mambapro
