// The work between INT8 products, written once over vectors of MAMBAPRO_LANES floats and compiled
// once for each instruction set, as scan_lanes.h is.
#include "tokens_attention.h"
#include "tokens_rows.h"

namespace mambapro {
namespace MAMBAPRO_SET {

void SiluQuantize(const SiluParams& params, const ParallelFor& parallel) noexcept {
  const int64_t tasks = (params.count + kSiluTask - 1) / kSiluTask;
  parallel.run(parallel.pool, tasks, SiluTask, const_cast<SiluParams*>(&params));
}

void NormQuantize(const NormParams& params, const ParallelFor& parallel) noexcept {
  const int64_t tasks = (params.rows + kNormRows - 1) / kNormRows;
  parallel.run(parallel.pool, tasks, NormTask, const_cast<NormParams*>(&params));
}

void AttentionQuantize(const AttentionParams& params, const ParallelFor& parallel) noexcept {
  const int64_t tasks = params.rows * params.heads * QueryParts(params);
  parallel.run(parallel.pool, tasks, AttentionTask, const_cast<AttentionParams*>(&params));
}

}  // namespace MAMBAPRO_SET
}  // namespace mambapro
