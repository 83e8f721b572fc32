// The product that ends in SiLU against plain loops in double, on buffers of exactly the sizes that
// are said. Passes with a line that says so where there is no AMX.
#include "product.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "check.h"

namespace {

using mambapro::Quantisation;

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

struct Case {
  int64_t rows, depth, columns;
  std::vector<uint8_t> x;
  std::vector<int8_t> weight;
  std::vector<float> scale, bias;
  Quantisation from{0.03f, 117}, to{0.02f, 14};

  Case(int64_t rows_, int64_t depth_, int64_t columns_)
      : rows(rows_), depth(depth_), columns(columns_) {
    std::mt19937 generator(static_cast<unsigned>(rows + depth + columns));
    std::uniform_int_distribution<int> byte(0, 255), small(-127, 127);
    std::uniform_real_distribution<float> factor(0.5f, 1.5f);
    for (int64_t i = 0; i < rows * depth; ++i) x.push_back(static_cast<uint8_t>(byte(generator)));
    for (int64_t i = 0; i < depth * columns; ++i) {
      weight.push_back(static_cast<int8_t>(small(generator)));
    }
    const float one = 0.01f / std::sqrt(static_cast<float>(depth));
    for (int64_t i = 0; i < columns; ++i) {
      scale.push_back(one * factor(generator));
      bias.push_back(factor(generator) - 1.0f);
    }
  }

  double Expected(int64_t row, int64_t column) const {
    int64_t sum = 0;
    for (int64_t k = 0; k < depth; ++k) {
      sum += (x[row * depth + k] - from.zero_point) * weight[k * columns + column];
    }
    const double value = double(sum) * double(from.scale) * double(scale[column]) + bias[column];
    const double steps = std::nearbyint(value / (1 + std::exp(-value)) / to.scale);
    return std::clamp(steps + to.zero_point, 0.0, 255.0);
  }
};

void Check(int64_t rows, int64_t depth, int64_t columns) {
  const Case made(rows, depth, columns);
  const std::unique_ptr<int8_t, Free> packed(
      static_cast<int8_t*>(std::aligned_alloc(64, made.weight.size())));
  std::vector<int32_t> totals(columns);
  mambapro::PackWeight(made.weight.data(), depth, columns, packed.get(), totals.data());
  std::vector<uint8_t> y(rows * columns);
  const mambapro::ProductParams p{
      rows,         depth,         columns,           made.x.data(),    made.from,
      packed.get(), totals.data(), made.scale.data(), made.bias.data(), made.to,
      y.data()};
  mambapro::ProductSiluQuantizeCpu(p, mambapro::Serial());
  size_t off = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i);
    const double difference = std::fabs(y[i] - made.Expected(at / columns, at % columns));
    CHECK(difference <= 1);
    off += difference > 0;
  }
  CHECK(off <= 1 + y.size() / 500);  // QUANTISED_FLIPS of tests/tolerances.py
}

}  // namespace

int main() {
  if (!mambapro::HasProduct()) {
    std::printf("no AMX: nothing to test\n");
    return 0;
  }
  for (const int64_t rows : {1, 15, 16, 17, 31, 32, 33, 63, 64, 141}) Check(rows, 64, 64);
  for (const int64_t depth : {32, 96, 128, 384, 768}) {
    for (const int64_t columns : {32, 96, 128}) Check(45, depth, columns);
  }
  Check(0, 64, 64);
  return Failures();
}
