// Checks the parameters and picks the instruction set.
#include <cstdlib>
#include <cstring>

#include "scan.h"
#include "scan_tables.h"

namespace mambapro {

#define MAMBAPRO_DECLARE(set)                                                                 \
  namespace set {                                                                             \
  void Forward(const ScanParams&, const ParallelFor&) noexcept;                               \
  size_t BackwardScratchBytes(const ScanParams&) noexcept;                                    \
  void Backward(const ScanParams&, const ScanGradients&, void*, const ParallelFor&) noexcept; \
  void MapExp2(const float*, float*, int64_t) noexcept;                                       \
  void MapSoftplus(const float*, float*, int64_t) noexcept;                                   \
  }

#if defined(__x86_64__)
MAMBAPRO_DECLARE(avx512)
MAMBAPRO_DECLARE(avx2)
MAMBAPRO_DECLARE(plain)
#elif defined(__aarch64__)
MAMBAPRO_DECLARE(neon)
#else
MAMBAPRO_DECLARE(plain)
#endif

namespace {

struct Implementation {
  const char* name;
  void (*forward)(const ScanParams&, const ParallelFor&) noexcept;
  size_t (*scratch_bytes)(const ScanParams&) noexcept;
  void (*backward)(const ScanParams&, const ScanGradients&, void*, const ParallelFor&) noexcept;
  void (*exp2)(const float*, float*, int64_t) noexcept;
  void (*softplus)(const float*, float*, int64_t) noexcept;
};

#define MAMBAPRO_IMPLEMENTATION(set)                                                             \
  Implementation {                                                                               \
    #set, set::Forward, set::BackwardScratchBytes, set::Backward, set::MapExp2, set::MapSoftplus \
  }

#if defined(__x86_64__)
bool HasAvx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
bool HasAvx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

Implementation Choose() noexcept {
  const char* asked = std::getenv("MAMBAPRO_SIMD");
  const auto allowed = [&](const char* name) { return !asked || std::strcmp(asked, name) == 0; };
  if (HasAvx512() && allowed("avx512")) return MAMBAPRO_IMPLEMENTATION(avx512);
  if (HasAvx2() && (allowed("avx2") || allowed("avx512"))) return MAMBAPRO_IMPLEMENTATION(avx2);
  return MAMBAPRO_IMPLEMENTATION(plain);
}
#elif defined(__aarch64__)
Implementation Choose() noexcept { return MAMBAPRO_IMPLEMENTATION(neon); }
#else
Implementation Choose() noexcept { return MAMBAPRO_IMPLEMENTATION(plain); }
#endif

const Implementation& Chosen() noexcept {
  static const Implementation chosen = Choose();
  return chosen;
}

bool Dense(const ScanParams& p) {
  const ConstSequence wide[] = {p.u, p.delta, {p.y.data, p.y.row_stride, p.y.step_stride}};
  for (const ConstSequence& s : wide) {
    if (s.step_stride < p.channels) return false;
  }
  return p.b.step_stride >= p.states && p.c.step_stride >= p.states;
}

}  // namespace

ParallelFor Serial() noexcept {
  return {[](void*, int64_t count, void (*task)(void*, int64_t), void* context) {
            for (int64_t i = 0; i < count; ++i) task(context, i);
          },
          nullptr};
}

const char* CheckScan(const ScanParams& p) noexcept {
  if (p.rows < 1 || p.length < 1 || p.channels < 1 || p.states < 1 || p.groups < 1) {
    return "no size of the scan may be zero";
  }
  if (p.rows % p.groups != 0) return "the groups of A must divide the first size of u";
  if (p.states > kMaxStates) return "the CPU scan takes at most 256 states";
  if (!p.u.data || !p.delta.data || !p.b.data || !p.c.data || !p.y.data || !p.a || !p.d ||
      !p.delta_bias) {
    return "no tensor of the scan may be null";
  }
  if (!Dense(p)) return "steps of a tensor must not overlap; its last axis is dense";
  return nullptr;
}

void ScanForwardCpu(const ScanParams& params, const ParallelFor& parallel) noexcept {
  Chosen().forward(params, parallel);
}

size_t ScanBackwardScratchBytes(const ScanParams& params) noexcept {
  return Chosen().scratch_bytes(params);
}

void ScanBackwardCpu(const ScanParams& params, const ScanGradients& gradients, void* scratch,
                     const ParallelFor& parallel) noexcept {
  Chosen().backward(params, gradients, scratch, parallel);
}

void Exp2Cpu(const float* x, float* y, int64_t count) noexcept { Chosen().exp2(x, y, count); }

void SoftplusCpu(const float* x, float* y, int64_t count) noexcept {
  Chosen().softplus(x, y, count);
}

const char* CpuInstructionSet() noexcept { return Chosen().name; }

}  // namespace mambapro
