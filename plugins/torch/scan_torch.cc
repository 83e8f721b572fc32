// The selective scan for PyTorch on the CPU: mambapro_native::scan_forward and scan_backward.
// mambapro/ops/selective_scan.py calls them, checks its arguments and holds fakes and autograd.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <string>
#include <tuple>

#include "scan.h"

namespace {

using at::Tensor;
using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

mambapro::ParallelFor TorchThreads() {
  return {[](void*, int64_t count, void (*task)(void*, int64_t), void* context) {
            at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end; ++i) task(context, i);
            });
          },
          nullptr, at::get_num_threads()};
}

// Refuses what would be read out of bounds; the caller's own check says it better.
void RequireShape(const char* name, const Tensor& x, at::IntArrayRef shape) {
  TORCH_CHECK_VALUE(x.device().is_cpu() && x.scalar_type() == at::kFloat && x.sizes() == shape,
                    name, " must be ", shape, " float32 on the CPU, got ", x.sizes(), " ",
                    x.scalar_type(), " on ", x.device());
}

// The tensor itself if the core can walk it, else a dense copy.
Tensor Walkable(const Tensor& x) {
  const bool last_is_dense = x.size(2) == 1 || x.stride(2) == 1;
  const bool steps_are_apart = x.size(1) == 1 || x.stride(1) >= x.size(2);
  return last_is_dense && steps_are_apart ? x : x.clone(at::MemoryFormat::Contiguous);
}

// A stride that is never taken may be anything in torch, but not in the core.
template <typename Sequence, typename Pointer>
Sequence As(const Tensor& x, Pointer data) {
  return {data, x.stride(0), x.size(1) == 1 ? x.size(2) : x.stride(1)};
}
mambapro::ConstSequence Read(const Tensor& x) {
  return As<mambapro::ConstSequence>(x, x.const_data_ptr());
}
mambapro::MutableSequence Write(const Tensor& x) {
  return As<mambapro::MutableSequence>(x, x.mutable_data_ptr());
}

// The seven inputs in a form that the core can walk; they stay alive as long as their parameters.
struct Inputs {
  Tensor u, delta, a, b, c, d, delta_bias;

  Inputs(const Tensor& u_, const Tensor& delta_, const Tensor& a_, const Tensor& b_,
         const Tensor& c_, const Tensor& d_, const Tensor& delta_bias_) {
    TORCH_CHECK_VALUE(u_.dim() == 3 && a_.dim() == 3, "u must be (G*B, L, D) and A (G, D, N), got ",
                      u_.sizes(), " and ", a_.sizes());
    const int64_t rows = u_.size(0), length = u_.size(1), channels = u_.size(2);
    const int64_t groups = a_.size(0), states = a_.size(2);
    RequireShape("u", u_, {rows, length, channels});
    RequireShape("delta", delta_, {rows, length, channels});
    RequireShape("A", a_, {groups, channels, states});
    RequireShape("B", b_, {rows, length, states});
    RequireShape("C", c_, {rows, length, states});
    RequireShape("D", d_, {groups, channels});
    RequireShape("delta_bias", delta_bias_, {groups, channels});
    u = Walkable(u_);
    delta = Walkable(delta_);
    a = a_.contiguous();
    b = Walkable(b_);
    c = Walkable(c_);
    d = d_.contiguous();
    delta_bias = delta_bias_.contiguous();
  }

  mambapro::ScanParams Params(const Tensor& y) const {
    mambapro::ScanParams p;
    p.rows = u.size(0);
    p.length = u.size(1);
    p.channels = u.size(2);
    p.groups = a.size(0);
    p.states = a.size(2);
    p.u = Read(u);
    p.delta = Read(delta);
    p.b = Read(b);
    p.c = Read(c);
    p.y = Write(y);
    p.a = a.const_data_ptr<float>();
    p.d = d.const_data_ptr<float>();
    p.delta_bias = delta_bias.const_data_ptr<float>();
    const char* problem = mambapro::CheckScan(p);
    TORCH_CHECK_VALUE(!problem, problem, ", got u ", u.sizes(), ", A ", a.sizes());
    return p;
  }
};

Tensor Dense(const Tensor& like) { return at::empty(like.sizes(), like.options()); }

Tensor ScanForward(const Tensor& u, const Tensor& delta, const Tensor& a, const Tensor& b,
                   const Tensor& c, const Tensor& d, const Tensor& delta_bias) {
  const Inputs inputs(u, delta, a, b, c, d, delta_bias);
  const Tensor y = Dense(u);
  mambapro::ScanForwardCpu(inputs.Params(y), TorchThreads());
  return y;
}

Gradients ScanBackward(const Tensor& grad_y, const Tensor& u, const Tensor& delta, const Tensor& a,
                       const Tensor& b, const Tensor& c, const Tensor& d,
                       const Tensor& delta_bias) {
  const Inputs inputs(u, delta, a, b, c, d, delta_bias);
  RequireShape("grad_y", grad_y, u.sizes());
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
  const mambapro::ScanParams params = inputs.Params(into_u);
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
