// Measures what bounds a scan on this machine and prints it as one line of JSON:
//   mambapro_bounds THREADS FLOATS
// exp_per_s: exponentials of the scan's own, on inputs that stay in the first-level cache;
// bytes_per_s: two arrays of FLOATS read and one written, as a scan reads u and delta and writes y.
// Both are the best of some rounds; give FLOATS the size of u.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <thread>
#include <vector>

#include "scan.h"

namespace {

constexpr int kRounds = 100;
constexpr int64_t kCached = 2048;  // floats: input and output fill half of a first-level cache
constexpr int64_t kRepeats = 1000;

// Seconds that `work(thread)` takes on all threads together: the least of kRounds rounds.
template <typename Work>
double Seconds(int threads, Work work) {
  double least = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    std::atomic<int> missing{threads - 1};
    std::atomic<bool> go{false};
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) {
      others.emplace_back([&, thread] {
        missing.fetch_sub(1);
        while (!go.load()) std::this_thread::yield();
        work(thread);
      });
    }
    while (missing.load() > 0) std::this_thread::yield();
    const auto start = std::chrono::steady_clock::now();  // before anyone works
    go.store(true);
    work(0);
    for (std::thread& other : others) other.join();
    const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
    least = std::min(least, passed.count());
  }
  return least;
}

double ExpPerSecond(int threads) {
  const double seconds = Seconds(threads, [](int) {
    alignas(64) float x[kCached], y[kCached];
    for (int64_t i = 0; i < kCached; ++i) x[i] = -8.0f * static_cast<float>(i) / kCached;
    for (int64_t i = 0; i < kRepeats; ++i) mambapro::Exp2Cpu(x, y, kCached);
  });
  return static_cast<double>(threads * kRepeats * kCached) / seconds;
}

double BytesPerSecond(int threads, int64_t floats) {
  std::vector<float> u(floats, 1.0f), delta(floats, 2.0f), y(floats);
  const int64_t repeats = std::max<int64_t>(1, (int64_t{1} << 22) / floats);
  const double seconds = Seconds(threads, [&](int thread) {
    const int64_t from = floats * thread / threads, to = floats * (thread + 1) / threads;
    for (int64_t repeat = 0; repeat < repeats; ++repeat) {
      for (int64_t i = from; i < to; ++i) y[i] = u[i] + delta[i];
      asm volatile("" ::: "memory");  // each repeat is done
    }
  });
  return static_cast<double>(3 * sizeof(float) * floats * repeats) / seconds;
}

}  // namespace

int main(int count, char** arguments) {
  const int threads = count == 3 ? std::atoi(arguments[1]) : 0;
  const int64_t floats = count == 3 ? std::atoll(arguments[2]) : 0;
  if (threads < 1 || floats < 1) {
    std::fprintf(stderr, "usage: mambapro_bounds THREADS FLOATS, both at least 1\n");
    return 2;
  }
  std::printf("{\"instruction_set\": \"%s\", \"exp_per_s\": %.6g, \"bytes_per_s\": %.6g}\n",
              mambapro::CpuInstructionSet(), ExpPerSecond(threads),
              BytesPerSecond(threads, floats));
}
