// The emulated CUDA scan with a C interface, for tests through ctypes. Tensors are dense.
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "scan_cuda.h"

extern "C" {

// sizes: rows, groups, length, channels, states, type. tensors: u, delta, A, B, C, D, delta_bias,
// y. gap: unused elements after each step of u, delta, B, C and y. Returns the cudaError_t.
int EmulatedScan(const int64_t* sizes, const void* const* tensors, int64_t gap) {
  mambapro::ScanParams p;
  p.rows = sizes[0], p.groups = sizes[1], p.length = sizes[2], p.channels = sizes[3];
  p.states = sizes[4], p.type = static_cast<mambapro::ScalarType>(sizes[5]);
  const int64_t wide = p.channels + gap, narrow = p.states + gap;
  p.u = {tensors[0], p.length * wide, wide};
  p.delta = {tensors[1], p.length * wide, wide};
  p.a = static_cast<const float*>(tensors[2]);
  p.b = {tensors[3], p.length * narrow, narrow};
  p.c = {tensors[4], p.length * narrow, narrow};
  p.d = static_cast<const float*>(tensors[5]);
  p.delta_bias = static_cast<const float*>(tensors[6]);
  p.y = {const_cast<void*>(tensors[7]), p.length * wide, wide};
  return mambapro::ScanForwardCuda(p, nullptr);
}

void EmulationSet(int processors, int order, unsigned seed, int skipped_barrier) {
  mambapro::Emulation() = {processors, static_cast<mambapro::Order>(order), seed, skipped_barrier};
}

uint16_t EmulatedToHalf(float x) { return __float2half_rn(x).bits; }
float EmulatedFromHalf(uint16_t bits) { return __half2float({bits}); }

const char* EmulationWhy() { return mambapro::EmulationError(); }

}  // extern "C"
