// The selective scan: sizes, strides and raw pointers, and the functions that run on them.
//
// Source of the recurrence: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State
// Spaces", 2023, algorithm 2. The operator's specification is plugins/README.md.
//
// Row r belongs to group r / (rows / groups). With delta = softplus(delta + delta_bias):
//   h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t        y_t = C_t h_t + D u_t
#pragma once

#include <cstddef>
#include <cstdint>

namespace mambapro {

enum class ScalarType { kFloat32, kFloat16, kBFloat16 };

// A (rows, length, width) tensor whose last axis is dense. Strides are in elements.
template <typename Pointer>
struct Sequence {
  Pointer data = nullptr;
  int64_t row_stride = 0;
  int64_t step_stride = 0;
};

using ConstSequence = Sequence<const void*>;
using MutableSequence = Sequence<void*>;

// What a scan reads and writes. State and accumulation are float32 whatever `type` is.
struct ScanParams {
  int64_t rows = 0;                        // G * B, group-major
  int64_t groups = 0;                      // G, divides rows
  int64_t length = 0;                      // L
  int64_t channels = 0;                    // D
  int64_t states = 0;                      // N
  ScalarType type = ScalarType::kFloat32;  // of u, delta, b, c, y

  ConstSequence u;      // (rows, L, D)
  ConstSequence delta;  // (rows, L, D), before bias and softplus
  ConstSequence b;      // (rows, L, N)
  ConstSequence c;      // (rows, L, N)
  MutableSequence y;    // (rows, L, D)

  const float* a = nullptr;           // (G, D, N), dense, negative
  const float* d = nullptr;           // (G, D), dense
  const float* delta_bias = nullptr;  // (G, D), dense
};

// What the backward pass reads and writes besides; all float32.
struct ScanGradients {
  ConstSequence y;              // (rows, L, D), gradient of the result
  MutableSequence u;            // (rows, L, D)
  MutableSequence delta;        // (rows, L, D)
  MutableSequence b;            // (rows, L, N)
  MutableSequence c;            // (rows, L, N)
  float* a = nullptr;           // (G, D, N), dense, overwritten
  float* d = nullptr;           // (G, D), dense, overwritten
  float* delta_bias = nullptr;  // (G, D), dense, overwritten
};

// Runs task(i) for i in [0, count), in any order, on threads of the caller's choice, and returns
// when all are done. `pool` is handed through.
struct ParallelFor {
  void (*run)(void* pool, int64_t count, void (*task)(void* context, int64_t index),
              void* context) = nullptr;
  void* pool = nullptr;
  int64_t workers = 1;  // threads that `run` may use; a guess is good enough
};

// Calls the tasks one after the other on the calling thread.
ParallelFor Serial() noexcept;

// Returns nullptr when `params` can be run, else one sentence that says what was given and what is
// legal. The sentence is a static string.
const char* CheckScan(const ScanParams& params) noexcept;

// Runs the scan on the CPU; `params` must have passed CheckScan. Allocates nothing.
void ScanForwardCpu(const ScanParams& params, const ParallelFor& parallel) noexcept;

// Bytes of scratch memory that ScanBackwardCpu needs.
size_t ScanBackwardScratchBytes(const ScanParams& params) noexcept;

// Computes the gradients on the CPU, float32 only; `scratch` is aligned to 64 bytes. Repeats the
// forward pass for the states.
void ScanBackwardCpu(const ScanParams& params, const ScanGradients& gradients, void* scratch,
                     const ParallelFor& parallel) noexcept;

// The scan's own exponential 2^x and softplus, value by value: their errors are tested, and the
// exponential's rate is the bound that benchmarks/scan.py holds the scan against.
void Exp2Cpu(const float* x, float* y, int64_t count) noexcept;
void SoftplusCpu(const float* x, float* y, int64_t count) noexcept;

// Name of the instruction set that the CPU functions use on this machine: "avx512", "avx2",
// "neon" or "plain". MAMBAPRO_SIMD=plain|avx2|avx512 in the environment asks for a lesser one.
const char* CpuInstructionSet() noexcept;

}  // namespace mambapro
