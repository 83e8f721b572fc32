// The CPU scan against the recurrence in double: sizes off every tile, strides, types, threads,
// gradients, and what CheckScan refuses. Buffers have exactly the legal size, so that the address
// sanitizer sees whatever is read or written beyond it.
#include "scan.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "check.h"

namespace {

using mambapro::ScalarType;

constexpr double kForwardBound = 2e-5, kGradientBound = 1e-4;  // relative to the largest value
constexpr double kHalfBound = 2e-3, kBFloatBound = 2e-2;

struct Size {
  int64_t rows, groups, length, channels, states;
};

const std::initializer_list<Size> kSizes = {
    {1, 1, 1, 1, 1},   {2, 1, 7, 10, 16},  {6, 3, 7, 64, 16},   {1, 1, 131, 24, 16},
    {2, 2, 33, 37, 5}, {4, 2, 16, 129, 4}, {2, 1, 17, 15, 24},  {1, 1, 40, 65, 33},
    {3, 3, 5, 3, 256}, {1, 1, 2, 200, 17}, {1, 1, 19, 1100, 4},
};

// Values of one tensor, as double and as what the scan reads.
struct Values {
  std::vector<double> exact;
  std::unique_ptr<unsigned char[]> bytes;
};

uint16_t ToHalf(double value) {
  // Values of the tests are normal halves: round to 10 bits of mantissa.
  int exponent;
  const double mantissa = std::frexp(value, &exponent);
  if (value == 0 || exponent < -13) return 0;
  const auto digits = static_cast<int>(std::nearbyint(std::fabs(mantissa) * 2048));
  return static_cast<uint16_t>((value < 0 ? 0x8000 : 0) + ((exponent + 13) << 10) + digits);
}
double FromHalf(uint16_t half) {
  const int exponent = half >> 10 & 31, digits = half & 1023;
  const double value =
      exponent ? std::ldexp(1024 + digits, exponent - 25) : std::ldexp(digits, -24);
  return half & 0x8000 ? -value : value;
}
uint16_t ToBFloat(double value) {
  const auto single = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &single, sizeof(bits));
  return static_cast<uint16_t>(bits >> 16);
}
double FromBFloat(uint16_t bfloat) {
  const uint32_t bits = static_cast<uint32_t>(bfloat) << 16;
  float single;
  std::memcpy(&single, &bits, sizeof(single));
  return single;
}

std::mt19937 random_bits(1);

Values Random(int64_t count, ScalarType type, double low, double high) {
  std::uniform_real_distribution<double> uniform(low, high);
  const size_t width = type == ScalarType::kFloat32 ? 4 : 2;
  Values values{std::vector<double>(count), std::make_unique<unsigned char[]>(count * width)};
  for (int64_t i = 0; i < count; ++i) {
    double& exact = values.exact[i];
    if (type == ScalarType::kFloat32) {
      const auto single = static_cast<float>(uniform(random_bits));
      std::memcpy(&values.bytes[4 * i], &single, 4);
      exact = single;
    } else {
      const double value = uniform(random_bits);
      const uint16_t bits = type == ScalarType::kFloat16 ? ToHalf(value) : ToBFloat(value);
      std::memcpy(&values.bytes[2 * i], &bits, 2);
      exact = type == ScalarType::kFloat16 ? FromHalf(bits) : FromBFloat(bits);
    }
  }
  return values;
}

double Read(const unsigned char* bytes, int64_t i, ScalarType type) {
  if (type == ScalarType::kFloat32) {
    float single;
    std::memcpy(&single, bytes + 4 * i, 4);
    return single;
  }
  uint16_t bits;
  std::memcpy(&bits, bytes + 2 * i, 2);
  return type == ScalarType::kFloat16 ? FromHalf(bits) : FromBFloat(bits);
}

struct Case {
  Size size;
  ScalarType type;
  Values u, delta, a, b, c, d, bias;
  std::unique_ptr<unsigned char[]> y;

  explicit Case(Size s, ScalarType t = ScalarType::kFloat32)
      : size(s),
        type(t),
        u(Random(s.rows * s.length * s.channels, t, -2, 2)),
        delta(Random(s.rows * s.length * s.channels, t, -4, 4)),
        a(Random(s.groups * s.channels * s.states, ScalarType::kFloat32, -8, -0.01)),
        b(Random(s.rows * s.length * s.states, t, -2, 2)),
        c(Random(s.rows * s.length * s.states, t, -2, 2)),
        d(Random(s.groups * s.channels, ScalarType::kFloat32, -1, 1)),
        bias(Random(s.groups * s.channels, ScalarType::kFloat32, -4, 1)),
        y(new unsigned char[s.rows * s.length * s.channels * (t == ScalarType::kFloat32 ? 4 : 2)]) {
  }

  mambapro::ScanParams Params() const {
    mambapro::ScanParams p;
    p.rows = size.rows;
    p.groups = size.groups;
    p.length = size.length;
    p.channels = size.channels;
    p.states = size.states;
    p.type = type;
    p.u = {u.bytes.get(), size.length * size.channels, size.channels};
    p.delta = {delta.bytes.get(), size.length * size.channels, size.channels};
    p.b = {b.bytes.get(), size.length * size.states, size.states};
    p.c = {c.bytes.get(), size.length * size.states, size.states};
    p.y = {y.get(), size.length * size.channels, size.channels};
    p.a = reinterpret_cast<const float*>(a.bytes.get());
    p.d = reinterpret_cast<const float*>(d.bytes.get());
    p.delta_bias = reinterpret_cast<const float*>(bias.bytes.get());
    return p;
  }
};

double Softplus(double x) { return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

// The recurrence, one channel after the other. `weight` (like y) gives the gradients of sum(w y).
struct Oracle {
  std::vector<double> y, u, delta, a, b, c, d, bias;

  explicit Oracle(const Case& k, const std::vector<double>& weight = {}) {
    const Size& s = k.size;
    for (auto* v : {&y, &u, &delta}) v->assign(s.rows * s.length * s.channels, 0);
    for (auto* v : {&b, &c}) v->assign(s.rows * s.length * s.states, 0);
    for (auto* v : {&d, &bias}) v->assign(s.groups * s.channels, 0);
    a.assign(s.groups * s.channels * s.states, 0);
    for (int64_t row = 0; row < s.rows; ++row) {
      const int64_t group = row / (s.rows / s.groups);
      for (int64_t i = 0; i < s.channels; ++i) Channel(k, weight, row, group, i);
    }
  }

  void Channel(const Case& k, const std::vector<double>& weight, int64_t row, int64_t group,
               int64_t channel) {
    const Size& s = k.size;
    const int64_t at = group * s.channels + channel, N = s.states;
    const double* A = &k.a.exact[at * N];
    std::vector<double> h((s.length + 1) * N, 0.0), carried(N, 0.0);
    const auto wide = [&](int64_t t) { return (row * s.length + t) * s.channels + channel; };
    const auto narrow = [&](int64_t t) { return (row * s.length + t) * N; };
    for (int64_t t = 0; t < s.length; ++t) {
      const double step = Softplus(k.delta.exact[wide(t)] + k.bias.exact[at]);
      const double input = k.u.exact[wide(t)];
      y[wide(t)] = k.d.exact[at] * input;
      for (int64_t n = 0; n < N; ++n) {
        h[(t + 1) * N + n] =
            std::exp(step * A[n]) * h[t * N + n] + step * input * k.b.exact[narrow(t) + n];
        y[wide(t)] += h[(t + 1) * N + n] * k.c.exact[narrow(t) + n];
      }
    }
    if (weight.empty()) return;
    for (int64_t t = s.length - 1; t >= 0; --t) {
      const double raw = k.delta.exact[wide(t)] + k.bias.exact[at], step = Softplus(raw);
      const double input = k.u.exact[wide(t)], w = weight[wide(t)];
      double into_step = 0, into_input = k.d.exact[at] * w;
      d[at] += w * input;
      for (int64_t n = 0; n < N; ++n) {
        const double grad = carried[n] + w * k.c.exact[narrow(t) + n];
        const double decay = std::exp(step * A[n]), before = h[t * N + n];
        c[narrow(t) + n] += w * h[(t + 1) * N + n];
        b[narrow(t) + n] += grad * step * input;
        into_input += grad * step * k.b.exact[narrow(t) + n];
        into_step += grad * (input * k.b.exact[narrow(t) + n] + before * decay * A[n]);
        a[at * N + n] += grad * before * decay * step;
        carried[n] = grad * decay;
      }
      u[wide(t)] = into_input;
      delta[wide(t)] = into_step / (1 + std::exp(-raw));
      bias[at] += delta[wide(t)];
    }
  }
};

template <typename At>
double Error(const std::vector<double>& expected, At actual) {
  double worst = 0, largest = 1;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double error = std::fabs(actual(static_cast<int64_t>(i)) - expected[i]);
    if (!(error <= worst)) worst = error;
    largest = std::max(largest, std::fabs(expected[i]));
  }
  return worst / largest;
}

void CheckForward(const Case& k, double bound, const mambapro::ParallelFor& parallel) {
  const mambapro::ScanParams p = k.Params();
  CHECK(!mambapro::CheckScan(p));
  mambapro::ScanForwardCpu(p, parallel);
  const Oracle oracle(k);
  CHECK(Error(oracle.y, [&](int64_t i) { return Read(k.y.get(), i, k.type); }) <= bound);
}

void CheckGradients(const Case& k, const mambapro::ParallelFor& parallel) {
  const Size& s = k.size;
  const Values weight = Random(s.rows * s.length * s.channels, ScalarType::kFloat32, -1, 1);
  const Oracle oracle(k, weight.exact);
  std::vector<float> u(oracle.u.size()), delta(u.size()), b(oracle.b.size()), c(b.size()),
      a(oracle.a.size()), d(oracle.d.size()), bias(d.size());
  mambapro::ScanGradients g;
  g.y = {weight.bytes.get(), s.length * s.channels, s.channels};
  g.u = {u.data(), s.length * s.channels, s.channels};
  g.delta = {delta.data(), s.length * s.channels, s.channels};
  g.b = {b.data(), s.length * s.states, s.states};
  g.c = {c.data(), s.length * s.states, s.states};
  g.a = a.data();
  g.d = d.data();
  g.delta_bias = bias.data();
  const mambapro::ScanParams p = k.Params();
  const size_t bytes = (mambapro::ScanBackwardScratchBytes(p) + 63) / 64 * 64;
  std::unique_ptr<void, void (*)(void*)> scratch(std::aligned_alloc(64, bytes), std::free);
  mambapro::ScanBackwardCpu(p, g, scratch.get(), parallel);
  const auto check = [](const std::vector<double>& expected, const std::vector<float>& actual) {
    return Error(expected, [&](int64_t i) { return actual[i]; }) <= kGradientBound;
  };
  CHECK(check(oracle.u, u));
  CHECK(check(oracle.delta, delta));
  CHECK(check(oracle.a, a));
  CHECK(check(oracle.b, b));
  CHECK(check(oracle.c, c));
  CHECK(check(oracle.d, d));
  CHECK(check(oracle.bias, bias));
}

// Two threads, each with every second task.
const mambapro::ParallelFor kTwoThreads = {
    [](void*, int64_t count, void (*task)(void*, int64_t), void* context) {
      const auto half = [=](int64_t first) {
        for (int64_t i = first; i < count; i += 2) task(context, i);
      };
      std::thread other(half, 1);
      half(0);
      other.join();
    },
    nullptr, 2};

// Serial, but dealt out as if there were so many workers.
mambapro::ParallelFor ForWorkers(int64_t workers) {
  mambapro::ParallelFor serial = mambapro::Serial();
  serial.workers = workers;
  return serial;
}

// Every second row and step of larger tensors: what lies between is neither read nor written.
void CheckStrides() {
  Case k({4, 1, 12, 20, 16});
  mambapro::ScanParams p = k.Params();
  p.rows = 2;
  p.length = 6;
  for (mambapro::ConstSequence* s : {&p.u, &p.delta, &p.b, &p.c}) {
    s->row_stride *= 2;
    s->step_stride *= 2;
  }
  std::vector<float> y(2 * 6 * 32, 7.0f);
  p.y = {y.data(), 6 * 32, 32};
  CHECK(!mambapro::CheckScan(p));
  mambapro::ScanForwardCpu(p, mambapro::Serial());

  Case dense({2, 1, 6, 20, 16});
  dense.a = std::move(k.a);
  dense.d = std::move(k.d);
  dense.bias = std::move(k.bias);
  const auto pick = [](const Values& from, Values* to, int64_t width) {
    for (int64_t i = 0; i < 2 * 6 * width; ++i) {
      const int64_t row = i / (6 * width), t = i / width % 6, column = i % width;
      to->exact[i] = from.exact[(2 * row * 12 + 2 * t) * width + column];
    }
  };
  pick(k.u, &dense.u, 20);
  pick(k.delta, &dense.delta, 20);
  pick(k.b, &dense.b, 16);
  pick(k.c, &dense.c, 16);
  const Oracle oracle(dense);
  CHECK(Error(oracle.y, [&](int64_t i) { return y[i / 20 * 32 + i % 20]; }) <= kForwardBound);
  for (size_t i = 0; i < y.size(); ++i) CHECK(i % 32 < 20 || y[i] == 7.0f);
}

// A NaN in one channel of one step stays in that channel and after that step.
void CheckNaN() {
  const Case k({1, 1, 9, 40, 16});
  const float nan = std::nanf("");
  std::memcpy(&k.delta.bytes[4 * (4 * 40 + 21)], &nan, 4);
  mambapro::ScanForwardCpu(k.Params(), mambapro::Serial());
  for (int64_t i = 0; i < 9 * 40; ++i) {
    const bool tainted = i % 40 == 21 && i / 40 >= 4;
    CHECK(std::isnan(Read(k.y.get(), i, k.type)) == tainted);
  }
}

template <typename Change>
bool Refused(Change change) {
  const Case k({6, 3, 4, 5, 6});
  mambapro::ScanParams p = k.Params();
  change(p);
  return mambapro::CheckScan(p) != nullptr;
}

void CheckRefusals() {
  CHECK(!Refused([](auto&) {}));
  CHECK(Refused([](auto& p) { p.rows = 0; }));
  CHECK(Refused([](auto& p) { p.length = 0; }));
  CHECK(Refused([](auto& p) { p.channels = -1; }));
  CHECK(Refused([](auto& p) { p.states = 0; }));
  CHECK(Refused([](auto& p) { p.states = 257; }));
  CHECK(Refused([](auto& p) { p.groups = 4; }));
  CHECK(Refused([](auto& p) { p.u.data = nullptr; }));
  CHECK(Refused([](auto& p) { p.y.data = nullptr; }));
  CHECK(Refused([](auto& p) { p.a = nullptr; }));
  CHECK(Refused([](auto& p) { p.delta.step_stride = 4; }));
  CHECK(Refused([](auto& p) { p.c.step_stride = 5; }));
}

}  // namespace

int main() {
  std::printf("%s\n", mambapro::CpuInstructionSet());
  for (const Size& size : kSizes) {
    CheckForward(Case(size), kForwardBound, mambapro::Serial());
    CheckForward(Case(size), kForwardBound, kTwoThreads);
    CheckForward(Case(size), kForwardBound, ForWorkers(1000));  // the narrowest tiles
    CheckForward(Case(size, ScalarType::kFloat16), kHalfBound, mambapro::Serial());
    CheckForward(Case(size, ScalarType::kBFloat16), kBFloatBound, mambapro::Serial());
    CheckGradients(Case(size), mambapro::Serial());
    CheckGradients(Case(size), kTwoThreads);
  }
  CheckStrides();
  CheckNaN();
  CheckRefusals();
  return Failures();
}
