// What the CPU and the CUDA operator for PyTorch share: the seven inputs, checked, as the core
// wants them.
#pragma once

#include <ATen/ATen.h>

#include "scan.h"

namespace mambapro_torch {

using at::Tensor;

// Refuses what would be read out of bounds; the caller's own check says it better.
inline void RequireShape(const char* name, const Tensor& x, at::IntArrayRef shape,
                         at::ScalarType type, at::Device device) {
  TORCH_CHECK_VALUE(x.device() == device && x.scalar_type() == type && x.sizes() == shape, name,
                    " must be ", shape, " ", type, " on ", device, ", got ", x.sizes(), " ",
                    x.scalar_type(), " on ", x.device());
}

// The tensor itself if the core can walk it, else a dense copy.
inline Tensor Walkable(const Tensor& x) {
  const bool last_is_dense = x.size(2) == 1 || x.stride(2) == 1;
  const bool steps_are_apart = x.size(1) == 1 || x.stride(1) >= x.size(2);
  return last_is_dense && steps_are_apart ? x : x.clone(at::MemoryFormat::Contiguous);
}

// A stride that is never taken may be anything in torch, but not in the core.
template <typename Sequence, typename Pointer>
Sequence As(const Tensor& x, Pointer data) {
  return {data, x.stride(0), x.size(1) == 1 ? x.size(2) : x.stride(1)};
}
inline mambapro::ConstSequence Read(const Tensor& x) {
  return As<mambapro::ConstSequence>(x, x.const_data_ptr());
}
inline mambapro::MutableSequence Write(const Tensor& x) {
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
    const at::ScalarType type = u_.scalar_type();
    const at::Device device = u_.device();
    RequireShape("delta", delta_, {rows, length, channels}, type, device);
    RequireShape("A", a_, {groups, channels, states}, at::kFloat, device);
    RequireShape("B", b_, {rows, length, states}, type, device);
    RequireShape("C", c_, {rows, length, states}, type, device);
    RequireShape("D", d_, {groups, channels}, at::kFloat, device);
    RequireShape("delta_bias", delta_bias_, {groups, channels}, at::kFloat, device);
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
    return p;
  }
};

inline Tensor Dense(const Tensor& like) { return at::empty(like.sizes(), like.options()); }

}  // namespace mambapro_torch
