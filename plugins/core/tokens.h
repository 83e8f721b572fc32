// What an INT8 file computes on tokens between its integer products, each in one pass that ends in
// the quantisation of the next product's input: sizes, raw pointers, and the functions on them.
//
// The operators' specification is plugins/README.md.
#pragma once

#include <cstdint>

#include "scan.h"

namespace mambapro {

// x becomes round(x / scale) + zero_point, to nearest even, saturated to 0 and 255.
struct Quantisation {
  float scale = 1.0f;
  uint8_t zero_point = 0;
};

// y = quantised x sigmoid(x); all dense.
struct SiluParams {
  int64_t count = 0;
  const float* x = nullptr;
  Quantisation to;
  uint8_t* y = nullptr;
};

// y = quantised LayerNorm(x); with a branch, LayerNorm(x + branch), and the sum and the quantised
// sum beside it.
struct NormParams {
  int64_t rows = 0;
  int64_t channels = 0;
  const float* x = nullptr;       // (rows, channels), dense as all others
  const float* branch = nullptr;  // (rows, channels) or null
  const float* gain = nullptr;    // (channels)
  const float* shift = nullptr;   // (channels)
  float epsilon = 0.0f;
  Quantisation to, sum_to;
  uint8_t* y = nullptr;      // (rows, channels)
  float* sum = nullptr;      // (rows, channels), with a branch only, as the next one
  uint8_t* sum_y = nullptr;  // (rows, channels)
};

// y = quantised softmax(factor query key^T) value, for each row and head among its tokens.
struct AttentionParams {
  int64_t tokens = 0;
  int64_t rows = 0;
  int64_t heads = 0;
  int64_t head_size = 0;         // at most kMaxHeadSize
  const float* query = nullptr;  // (tokens, rows, heads, head_size), dense as all others
  const float* key = nullptr;
  const float* value = nullptr;
  float factor = 1.0f;
  Quantisation to;
  uint8_t* y = nullptr;
};

constexpr int64_t kMaxHeadSize = 128;  // a task keeps its sums on its stack

// The arguments must fit what the structures say. Nothing is allocated.
void SiluQuantizeCpu(const SiluParams& params, const ParallelFor& parallel) noexcept;
void NormQuantizeCpu(const NormParams& params, const ParallelFor& parallel) noexcept;
void AttentionQuantizeCpu(const AttentionParams& params, const ParallelFor& parallel) noexcept;

}  // namespace mambapro
