// Picks the instruction set, which is the scan's.
#include <cstring>

#include "tokens.h"

namespace mambapro {

#define MAMBAPRO_DECLARE(set)                                                  \
  namespace set {                                                              \
  void SiluQuantize(const SiluParams&, const ParallelFor&) noexcept;           \
  void NormQuantize(const NormParams&, const ParallelFor&) noexcept;           \
  void AttentionQuantize(const AttentionParams&, const ParallelFor&) noexcept; \
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
  void (*silu)(const SiluParams&, const ParallelFor&) noexcept;
  void (*norm)(const NormParams&, const ParallelFor&) noexcept;
  void (*attention)(const AttentionParams&, const ParallelFor&) noexcept;
};

#define MAMBAPRO_IMPLEMENTATION(set) \
  Implementation { set::SiluQuantize, set::NormQuantize, set::AttentionQuantize }

Implementation Choose() noexcept {
#if defined(__x86_64__)
  const char* set = CpuInstructionSet();
  if (std::strcmp(set, "avx512") == 0) return MAMBAPRO_IMPLEMENTATION(avx512);
  if (std::strcmp(set, "avx2") == 0) return MAMBAPRO_IMPLEMENTATION(avx2);
  return MAMBAPRO_IMPLEMENTATION(plain);
#elif defined(__aarch64__)
  return MAMBAPRO_IMPLEMENTATION(neon);
#else
  return MAMBAPRO_IMPLEMENTATION(plain);
#endif
}

const Implementation& Chosen() noexcept {
  static const Implementation chosen = Choose();
  return chosen;
}

}  // namespace

void SiluQuantizeCpu(const SiluParams& params, const ParallelFor& parallel) noexcept {
  Chosen().silu(params, parallel);
}

void NormQuantizeCpu(const NormParams& params, const ParallelFor& parallel) noexcept {
  Chosen().norm(params, parallel);
}

void AttentionQuantizeCpu(const AttentionParams& params, const ParallelFor& parallel) noexcept {
  Chosen().attention(params, parallel);
}

}  // namespace mambapro
