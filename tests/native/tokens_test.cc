// The work between INT8 products against plain loops in double, on buffers of exactly the sizes
// that are said, so that sanitizers see every step beyond them.
#include "tokens.h"

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

constexpr Quantisation kTo{0.017f, 117}, kSumTo{0.05f, 90};

std::vector<float> Random(int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.2f, 1.5f);
  std::vector<float> values(count);
  for (float& value : values) value = normal(generator);
  return values;
}

double Step(double x, Quantisation to) {
  return std::clamp(std::nearbyint(x / to.scale) + to.zero_point, 0.0, 255.0);
}

// Every byte within a step of what is expected, and few of them off: see QUANTISED_FLIPS of
// tests/tolerances.py.
void CheckBytes(const std::vector<uint8_t>& found, const std::vector<double>& expected,
                Quantisation to) {
  size_t off = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double difference = std::fabs(found[i] - Step(expected[i], to));
    CHECK(difference <= 1);
    off += difference > 0;
  }
  CHECK(off <= 1 + found.size() / 500);
}

void CheckSilu(int64_t count) {
  const std::vector<float> x = Random(count, 1);
  std::vector<uint8_t> y(count);
  mambapro::SiluQuantizeCpu({count, x.data(), kTo, y.data()}, mambapro::Serial());
  std::vector<double> expected;
  for (const double value : x) expected.push_back(value / (1 + std::exp(-value)));
  CheckBytes(y, expected, kTo);
}

std::vector<double> LayerNorm(const std::vector<float>& x, const std::vector<float>& gain,
                              const std::vector<float>& shift, double epsilon) {
  const size_t channels = gain.size();
  std::vector<double> y;
  for (size_t row = 0; row < x.size(); row += channels) {
    double mean = 0, variance = 0;
    for (size_t i = 0; i < channels; ++i) mean += x[row + i] / double(channels);
    for (size_t i = 0; i < channels; ++i) {
      variance += (x[row + i] - mean) * (x[row + i] - mean) / double(channels);
    }
    for (size_t i = 0; i < channels; ++i) {
      y.push_back((x[row + i] - mean) / std::sqrt(variance + epsilon) * gain[i] + shift[i]);
    }
  }
  return y;
}

void CheckNorm(int64_t rows, int64_t channels, bool with_branch) {
  const std::vector<float> x = Random(rows * channels, 2), branch = Random(rows * channels, 3);
  const std::vector<float> gain = Random(channels, 4), shift = Random(channels, 5);
  std::vector<float> sum(x);
  for (size_t i = 0; with_branch && i < sum.size(); ++i) sum[i] += branch[i];
  std::vector<float> found_sum(with_branch ? x.size() : 0);
  std::vector<uint8_t> y(x.size()), sum_y(with_branch ? x.size() : 0);
  mambapro::NormParams p;
  p.rows = rows;
  p.channels = channels;
  p.x = x.data();
  p.branch = with_branch ? branch.data() : nullptr;
  p.gain = gain.data();
  p.shift = shift.data();
  p.epsilon = 1e-3f;
  p.to = kTo;
  p.sum_to = kSumTo;
  p.y = y.data();
  p.sum = found_sum.data();
  p.sum_y = sum_y.data();
  mambapro::NormQuantizeCpu(p, mambapro::Serial());
  CheckBytes(y, LayerNorm(sum, gain, shift, 1e-3), kTo);
  if (!with_branch) return;
  CHECK(found_sum == sum);
  CheckBytes(sum_y, {sum.begin(), sum.end()}, kSumTo);
}

std::vector<double> Attention(const mambapro::AttentionParams& p) {
  const int64_t stride = p.rows * p.heads * p.head_size;
  std::vector<double> y(p.tokens * stride);
  for (int64_t head = 0; head < stride; head += p.head_size) {
    for (int64_t t = 0; t < p.tokens; ++t) {
      std::vector<double> weights(p.tokens);
      double most = -1e300, sum = 0;
      for (int64_t s = 0; s < p.tokens; ++s) {
        for (int64_t i = head; i < head + p.head_size; ++i) {
          weights[s] += double(p.factor) * p.query[t * stride + i] * p.key[s * stride + i];
        }
        most = std::max(most, weights[s]);
      }
      for (double& weight : weights) sum += weight = std::exp(weight - most);
      for (int64_t s = 0; s < p.tokens; ++s) {
        for (int64_t i = head; i < head + p.head_size; ++i) {
          y[t * stride + i] += weights[s] / sum * p.value[s * stride + i];
        }
      }
    }
  }
  return y;
}

void CheckAttention(int64_t tokens, int64_t rows, int64_t heads, int64_t head_size, float factor) {
  const int64_t count = tokens * rows * heads * head_size;
  const std::vector<float> query = Random(count, 6), key = Random(count, 7),
                           value = Random(count, 8);
  std::vector<uint8_t> y(count);
  const mambapro::AttentionParams p{tokens,     rows,         heads,  head_size, query.data(),
                                    key.data(), value.data(), factor, kTo,       y.data()};
  mambapro::AttentionQuantizeCpu(p, mambapro::Serial());
  CheckBytes(y, Attention(p), kTo);
}

}  // namespace

int main() {
  std::printf("instruction set: %s\n", mambapro::CpuInstructionSet());
  for (const int64_t count : {1, 3, 16, 17, 1000, 32768, 32769, 70001}) CheckSilu(count);
  for (const bool with_branch : {false, true}) {
    for (const int64_t channels : {1, 3, 16, 19, 64, 77, 768}) {
      for (const int64_t rows : {1, 16, 37}) CheckNorm(rows, channels, with_branch);
    }
  }
  for (const int64_t tokens : {1, 5, 6, 47, 48, 49, 141, 144, 145, 300}) {
    CheckAttention(tokens, 1, 1, 64, 0.125f);
  }
  for (const int64_t size : {1, 3, 16, 33, 65, 128}) CheckAttention(50, 2, 3, size, 0.3f);
  CheckAttention(60, 1, 1, 32, 40.0f);  // one key outweighs all others
  return Failures();
}
