// The scan's exponential and softplus against the C library's in double.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "scan.h"

namespace {

// Relative, as scan_lanes.h says.
double Exp2Bound(double) { return 3e-7; }
double SoftplusBound(double x) { return 1e-6 + 8e-8 * std::fabs(x); }

using Function = void (*)(const float*, float*, int64_t) noexcept;

std::vector<float> Apply(Function function, const std::vector<float>& x) {
  std::vector<float> y(x.size());
  function(x.data(), y.data(), static_cast<int64_t>(x.size()));
  return y;
}

// Evenly spaced values, and powers of two down to the smallest.
std::vector<float> Values(float low, float high) {
  std::vector<float> x;
  constexpr int kCount = 1 << 20;
  for (int i = 0; i <= kCount; ++i) x.push_back(low + (high - low) * i / kCount);
  for (int e = -149; e < 7; ++e) {
    for (const float value : {std::ldexp(1.0f, e), -std::ldexp(1.0f, e)}) {
      if (value >= low && value <= high) x.push_back(value);
    }
  }
  return x;
}

template <typename Exact>
void CheckError(const char* name, Function function, Exact exact, float low, float high,
                double (*bound)(double)) {
  const std::vector<float> x = Values(low, high), y = Apply(function, x);
  double worst = 0, worst_share = 0, where = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const double expected = exact(static_cast<double>(x[i]));
    const double error = std::fabs(y[i] - expected) / expected;
    const double share = error / bound(x[i]);
    if (!(share <= worst_share)) {
      worst = error;
      worst_share = share;
      where = x[i];
    }
  }
  std::printf("%s: relative error %.3g at %.9g, %.0f %% of its bound\n", name, worst, where,
              100 * worst_share);
  CHECK(worst_share <= 1);
}

// Exactly 1 at 0 and never above before it: a decay that grew would make the state grow.
void CheckDecayNeverGrows() {
  std::vector<float> x;
  for (float value = 1e-30f; value < 1.0f; value *= 1.01f) x.push_back(-value);
  const std::vector<float> y = Apply(mambapro::Exp2Cpu, x);
  CHECK(*std::max_element(y.begin(), y.end()) <= 1.0f);
  CHECK(Apply(mambapro::Exp2Cpu, {0.0f})[0] == 1.0f);
}

void CheckExtremes() {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> powers = Apply(mambapro::Exp2Cpu, {-infinity, -1e30f, -127.0f, nan});
  for (int i = 0; i < 3; ++i) CHECK(powers[i] >= 0 && powers[i] < 1.2e-38f);
  CHECK(std::isnan(powers[3]));
  const std::vector<float> steps =
      Apply(mambapro::SoftplusCpu, {-infinity, -1e30f, 1e30f, infinity, nan});
  CHECK(steps[0] >= 0 && steps[0] < 1.2e-38f);
  CHECK(steps[1] >= 0 && steps[1] < 1.2e-38f);
  CHECK(steps[2] == 1e30f);
  CHECK(steps[3] == infinity);
  CHECK(std::isnan(steps[4]));
}

// Counts that are no multiple of the vector's width write exactly what they should.
void CheckOddCounts() {
  for (size_t count = 0; count < 40; ++count) {
    const std::vector<float> y = Apply(mambapro::Exp2Cpu, std::vector<float>(count, -1.0f));
    for (const float value : y) CHECK(std::fabs(value - 0.5f) < 1e-6f);
  }
}

}  // namespace

int main() {
  std::printf("%s\n", mambapro::CpuInstructionSet());
  CheckError(
      "2^x", mambapro::Exp2Cpu, [](double x) { return std::exp2(x); }, -125.9f, 126.9f, Exp2Bound);
  CheckError(
      "softplus", mambapro::SoftplusCpu, [](double x) { return std::log1p(std::exp(x)); }, -86.0f,
      88.0f, SoftplusBound);
  CheckDecayNeverGrows();
  CheckExtremes();
  CheckOddCounts();
  return Failures();
}
