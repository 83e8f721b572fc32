// The CPU scan, written once over vectors of MAMBAPRO_LANES floats and compiled once for each
// instruction set. Include it from one .cc file a set, which defines MAMBAPRO_LANES and
// MAMBAPRO_SET (a namespace of its own: the same inline function compiled with other flags is
// another function).
#include "scan_backward.h"
#include "scan_forward.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

template <Vec (*kFunction)(Vec)>
void Map(const float* x, float* y, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Store<ScalarType::kFloat32, true>(kFunction(Load<ScalarType::kFloat32, true>(x, i, kLanes)), y,
                                      i, kLanes);
  }
  const int rest = static_cast<int>(count - i);
  if (rest > 0) StoreSome(kFunction(LoadSome(x + i, rest)), y + i, rest);
}

}  // namespace

void MapExp2(const float* x, float* y, int64_t count) noexcept { Map<Exp2>(x, y, count); }
void MapSoftplus(const float* x, float* y, int64_t count) noexcept { Map<Softplus>(x, y, count); }

size_t BackwardScratchBytes(const ScanParams& p) noexcept {
  return sizeof(float) * p.rows * (Scratch::RowFloats(p) + Scratch::PartialFloats(p));
}

void Backward(const ScanParams& params, const ScanGradients& gradients, void* scratch,
              const ParallelFor& parallel) noexcept {
  BackwardContext context{&params, &gradients, static_cast<float*>(scratch)};
  parallel.run(parallel.pool, params.rows, BackwardTask, &context);
  parallel.run(parallel.pool, params.groups * params.channels, SumTask, &context);
}

void Forward(const ScanParams& params, const ParallelFor& parallel) noexcept {
  const auto task = params.type == ScalarType::kFloat32   ? ForwardTask<ScalarType::kFloat32>
                    : params.type == ScalarType::kFloat16 ? ForwardTask<ScalarType::kFloat16>
                                                          : ForwardTask<ScalarType::kBFloat16>;
  ForwardContext context{&params, Tiles(params, parallel.workers)};
  parallel.run(parallel.pool, params.rows * context.tiles.per_row, task, &context);
}

}  // namespace MAMBAPRO_SET
}  // namespace mambapro
