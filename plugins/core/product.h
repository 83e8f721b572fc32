// An integer product that ends in SiLU and the quantisation of the next product's input, for
// processors with AMX. The operator's specification is plugins/README.md.
#pragma once

#include <cstdint>

#include "tokens.h"

namespace mambapro {

constexpr int64_t kProductStep = 32;  // divides the sizes of every weight

// y = quantised SiLU((x - zero point) weight, scaled, + bias).
struct ProductParams {
  int64_t rows = 0;
  int64_t depth = 0;
  int64_t columns = 0;
  const uint8_t* x = nullptr;  // (rows, depth), dense
  Quantisation from;
  const int8_t* weight = nullptr;       // (depth, columns), from PackWeight, on a whole cache line
  const int32_t* totals = nullptr;      // (columns), from PackWeight
  const float* weight_scale = nullptr;  // (columns)
  const float* bias = nullptr;          // (columns)
  Quantisation to;
  uint8_t* y = nullptr;  // (rows, columns)
};

// Whether this processor, its system and MAMBAPRO_SIMD allow ProductSiluQuantizeCpu.
bool HasProduct() noexcept;

// Reorders a dense (depth, columns) weight for ProductSiluQuantizeCpu, and sums its columns.
void PackWeight(const int8_t* weight, int64_t depth, int64_t columns, int8_t* packed,
                int32_t* totals) noexcept;

// The arguments must fit what the structure says. Nothing is allocated.
void ProductSiluQuantizeCpu(const ProductParams& params, const ParallelFor& parallel) noexcept;

}  // namespace mambapro
