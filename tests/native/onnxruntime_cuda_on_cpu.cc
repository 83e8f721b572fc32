// The operators of ONNX Runtime's CUDA provider, handed to its CPU provider instead: over the
// emulated CUDA runtime the real ONNX Runtime then checks, feeds and runs them, in the CPU's
// memory.
#include <cuda_runtime.h>

#include <deque>

#define RegisterCustomOps RegisterLibrary
#include "scan_onnxruntime.cc"
#undef RegisterCustomOps

namespace {

const OrtApi* real = nullptr;
OrtApi changed;
int stream;  // its address is the stream that the CUDA provider would hand over

OrtStatus* GiveStream(const OrtKernelContext*, void** to) noexcept {
  *to = &stream;
  return nullptr;
}

OrtStatus* AddForCpu(OrtCustomOpDomain* domain, const OrtCustomOp* op) noexcept {
  if (!op->GetExecutionProviderType(op)) return nullptr;
  static std::deque<OrtCustomOp> moved;
  moved.push_back(*op);
  moved.back().GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };
  return real->CustomOpDomain_Add(domain, &moved.back());
}

}  // namespace

MAMBAPRO_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  real = base->GetApi(kApiVersion);
  changed = *real;
  changed.CustomOpDomain_Add = AddForCpu;
  changed.KernelContext_GetGPUComputeStream = GiveStream;
  static const OrtApiBase other{[](uint32_t) noexcept -> const OrtApi* { return &changed; },
                                base->GetVersionString};
  return RegisterLibrary(options, &other);
}

// For tests, through ctypes: whether the last launch was on that stream, and to make one fail.
MAMBAPRO_EXPORT bool LaunchedOnTheStream() {
  return mambapro::EmulatedStream() == reinterpret_cast<cudaStream_t>(&stream);
}
MAMBAPRO_EXPORT void SetLaunchError(int error) {
  mambapro::Emulation().launch_error = static_cast<cudaError_t>(error);
}
