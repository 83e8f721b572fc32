// The selective scan for PyTorch on the CPU: mambapro_native::scan_forward and scan_backward.
// mambapro/ops/selective_scan.py calls them, checks its arguments and holds fakes and autograd.
#include "scan_torch.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <string>
#include <tuple>

namespace {

using namespace mambapro_torch;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

mambapro::ParallelFor TorchThreads() {
  return {[](void*, int64_t count, void (*task)(void*, int64_t), void* context) {
            at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) task(context, i);
            });
          },
          nullptr, at::get_num_threads()};
}

void RequireFloat(const Tensor& u) {
  TORCH_CHECK_VALUE(u.device().is_cpu() && u.scalar_type() == at::kFloat,
                    "u must be float32 on the CPU, got ", u.scalar_type(), " on ", u.device());
}

mambapro::ScanParams Checked(const Inputs& inputs, const Tensor& y) {
  const mambapro::ScanParams p = inputs.Params(y);
  const char* problem = mambapro::CheckScan(p);
  TORCH_CHECK_VALUE(!problem, problem, ", got u ", inputs.u.sizes(), ", A ", inputs.a.sizes());
  return p;
}

Tensor ScanForward(const Tensor& u, const Tensor& delta, const Tensor& a, const Tensor& b,
                   const Tensor& c, const Tensor& d, const Tensor& delta_bias) {
  RequireFloat(u);
  const Inputs inputs(u, delta, a, b, c, d, delta_bias);
  const Tensor y = Dense(u);
  mambapro::ScanForwardCpu(Checked(inputs, y), TorchThreads());
  return y;
}

Gradients ScanBackward(const Tensor& grad_y, const Tensor& u, const Tensor& delta, const Tensor& a,
                       const Tensor& b, const Tensor& c, const Tensor& d,
                       const Tensor& delta_bias) {
  RequireFloat(u);
  const Inputs inputs(u, delta, a, b, c, d, delta_bias);
  RequireShape("grad_y", grad_y, u.sizes(), at::kFloat, u.device());
  const Tensor into_y = Walkable(grad_y), into_u = Dense(u), into_delta = Dense(u),
               into_a = Dense(a), into_b = Dense(b), into_c = Dense(c), into_d = Dense(d),
               into_bias = Dense(d);
  mambapro::ScanGradients gradients;
  gradients.y = Read(into_y);
  gradients.u = Write(into_u);
  gradients.delta = Write(into_delta);
  gradients.b = Write(into_b);
  gradients.c = Write(into_c);
  gradients.a = into_a.mutable_data_ptr<float>();
  gradients.d = into_d.mutable_data_ptr<float>();
  gradients.delta_bias = into_bias.mutable_data_ptr<float>();
  // The backward pass writes no y; the check wants one.
  const mambapro::ScanParams params = Checked(inputs, into_u);
  const auto bytes = static_cast<int64_t>(mambapro::ScanBackwardScratchBytes(params));
  // ATen aligns what it allocates to 64 bytes.
  const Tensor scratch = at::empty({bytes}, at::TensorOptions().dtype(at::kByte));
  mambapro::ScanBackwardCpu(params, gradients, scratch.mutable_data_ptr(), TorchThreads());
  return {into_u, into_delta, into_a, into_b, into_c, into_d, into_bias};
}

std::string InstructionSet() { return mambapro::CpuInstructionSet(); }

}  // namespace

TORCH_LIBRARY(mambapro_native, library) {
  library.def(
      "scan_forward(Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor D, "
      "Tensor delta_bias) -> Tensor");
  library.def(
      "scan_backward(Tensor grad_y, Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, "
      "Tensor D, Tensor delta_bias) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)");
  library.def("instruction_set() -> str", InstructionSet);
}

TORCH_LIBRARY_IMPL(mambapro_native, CPU, library) {
  library.impl("scan_forward", ScanForward);
  library.impl("scan_backward", ScanBackward);
}
