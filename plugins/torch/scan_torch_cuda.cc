// The selective scan for PyTorch on CUDA, forward only: mambapro_native::scan_forward_cuda. Built
// only against a torch that has CUDA. It has not run on a GPU.
//
// The caller makes the tensors' device the current one and passes its stream as a number, so that
// nothing of torch's own CUDA library is needed here.
#include <torch/library.h>

#include "scan_cuda.h"
#include "scan_torch.h"

namespace {

using namespace mambapro_torch;

mambapro::ScalarType TypeOf(const Tensor& u) {
  switch (u.scalar_type()) {
    case at::kFloat:
      return mambapro::ScalarType::kFloat32;
    case at::kHalf:
      return mambapro::ScalarType::kFloat16;
    case at::kBFloat16:
      return mambapro::ScalarType::kBFloat16;
    default:
      TORCH_CHECK_VALUE(false, "u must be float32, float16 or bfloat16, got ", u.scalar_type());
  }
}

Tensor ScanForwardCuda(const Tensor& u, const Tensor& delta, const Tensor& a, const Tensor& b,
                       const Tensor& c, const Tensor& d, const Tensor& delta_bias, int64_t stream) {
  const Inputs inputs(u, delta, a, b, c, d, delta_bias);
  const Tensor y = Dense(u);
  mambapro::ScanParams p = inputs.Params(y);
  p.type = TypeOf(u);
  const cudaError_t status =
      mambapro::ScanForwardCuda(p, reinterpret_cast<cudaStream_t>(static_cast<intptr_t>(stream)));
  TORCH_CHECK_VALUE(status != cudaErrorInvalidValue, "the CUDA scan takes no such sizes: u ",
                    u.sizes(), ", A ", a.sizes());
  TORCH_CHECK(status == cudaSuccess, "the CUDA scan failed: ", cudaGetErrorString(status));
  return y;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(mambapro_native, library) {
  library.def(
      "scan_forward_cuda(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, "
      "Tensor delta_bias, int stream) -> Tensor");
}

TORCH_LIBRARY_IMPL(mambapro_native, CUDA, library) {
  library.impl("scan_forward_cuda", ScanForwardCuda);
}
