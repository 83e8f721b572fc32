// Whether there is AMX, and the order of weights that its tiles want.
#include <algorithm>
#include <cstring>

#include "product.h"
#include "product_tiles.h"

#ifdef MAMBAPRO_AMX
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace mambapro {

#ifdef MAMBAPRO_AMX
namespace amx {
void ProductSiluQuantize(const ProductParams&, const ParallelFor&) noexcept;
}

namespace {

// Linux gives the registers of tiles to a process that asks for them.
bool MayUseTiles() noexcept {
  constexpr long kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

}  // namespace

bool HasProduct() noexcept {
  static const bool has = std::strcmp(CpuInstructionSet(), "avx512") == 0 &&
                          __builtin_cpu_supports("amx-tile") &&
                          __builtin_cpu_supports("amx-int8") && MayUseTiles();
  return has;
}

void ProductSiluQuantizeCpu(const ProductParams& params, const ParallelFor& parallel) noexcept {
  amx::ProductSiluQuantize(params, parallel);
}
#else
bool HasProduct() noexcept { return false; }
void ProductSiluQuantizeCpu(const ProductParams&, const ParallelFor&) noexcept {}
#endif

void PackWeight(const int8_t* weight, int64_t depth, int64_t columns, int8_t* packed,
                int32_t* totals) noexcept {
  const int64_t step = TileDepth(depth);
  std::fill(totals, totals + columns, 0);
  for (int64_t k = 0; k < depth; ++k) {
    for (int64_t n = 0; n < columns; ++n) {
      const int8_t value = weight[k * columns + n];
      const int64_t panel = n / kPanel * kPanel * depth, tile = k / step * kPanel * step;
      const int64_t half = n % kPanel / kTile * kTile * step;
      packed[panel + tile + half + k % step / 4 * 64 + n % kTile * 4 + k % 4] = value;
      totals[n] += value;
    }
  }
}

}  // namespace mambapro
