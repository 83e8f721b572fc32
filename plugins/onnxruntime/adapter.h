// What the operators of this library share: answers, shapes, and threads of ONNX Runtime.
//
// Only the C API, so that one build serves every later version; nothing here throws.
#pragma once

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <array>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <thread>

#include "scan.h"

namespace mambapro_onnxruntime {

// ONNX Runtime 1.17: the first with KernelContext_ParallelFor. Newer runtimes serve older requests.
constexpr uint32_t kApiVersion = 17;
constexpr int kVersion = 1;  // of every operator

inline const OrtApi* api = nullptr;  // set once, by the first RegisterCustomOps

__attribute__((format(printf, 2, 3))) inline OrtStatus* Answer(OrtErrorCode code,
                                                               const char* format, ...) {
  char text[320];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return api->CreateStatus(code, text);
}

#define MAMBAPRO_RETURN_IF_ERROR(call) \
  if (OrtStatus* status = (call)) return status

using Sizes = std::array<int64_t, 8>;

struct Shape {
  Sizes sizes{};  // of a tensor with fewer axes: the first ones
  size_t axes = 0;

  bool Is(size_t wanted_axes, const Sizes& wanted) const {
    if (axes != wanted_axes) return false;
    for (size_t i = 0; i < axes; ++i) {
      if (sizes[i] != wanted[i]) return false;
    }
    return true;
  }
};

struct Text {
  char value[192];
};

inline Text Write(size_t axes, const Sizes& sizes) {
  Text text{};
  size_t used = 0;
  for (size_t i = 0; i < axes && i < sizes.size(); ++i) {
    used += std::snprintf(text.value + used, sizeof(text.value) - used, i ? ", %lld" : "(%lld",
                          static_cast<long long>(sizes[i]));
  }
  if (axes > sizes.size()) {
    std::snprintf(text.value, sizeof(text.value), "a tensor of %zu axes", axes);
  } else {
    std::snprintf(text.value + used, sizeof(text.value) - used, axes ? ")" : "a scalar");
  }
  return text;
}

inline OrtStatus* ReadShape(const OrtValue* value, Shape* shape) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  MAMBAPRO_RETURN_IF_ERROR(api->GetTensorTypeAndShape(value, &info));
  OrtStatus* status = api->GetDimensionsCount(info, &shape->axes);
  if (!status && shape->axes <= shape->sizes.size()) {
    status = api->GetDimensions(info, shape->sizes.data(), shape->axes);
  }
  api->ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

// ONNX Runtime's own threads.
struct Call {
  OrtKernelContext* context;
  void (*task)(void*, int64_t);
  void* task_context;
};

inline void RunOnRuntimeThreads(void* pool, int64_t count, void (*task)(void*, int64_t),
                                void* context) {
  Call call{static_cast<OrtKernelContext*>(pool), task, context};
  const auto run = [](void* data, size_t index) {
    const Call& c = *static_cast<const Call*>(data);
    c.task(c.task_context, static_cast<int64_t>(index));
  };
  OrtStatus* status =
      api->KernelContext_ParallelFor(call.context, run, static_cast<size_t>(count), 0, &call);
  if (!status) return;
  // It fails before the first task or not at all.
  api->ReleaseStatus(status);
  for (int64_t i = 0; i < count; ++i) task(context, i);
}

// The threads of the session that runs `context`. It does not tell how many there are.
inline mambapro::ParallelFor RuntimeThreads(OrtKernelContext* context) {
  static const int64_t workers = std::max(1u, std::thread::hardware_concurrency());
  return {RunOnRuntimeThreads, context, workers};
}

// Fills in what all operators answer alike: every input and output is there, none is variadic.
inline void SetCommon(OrtCustomOp* op) {
  op->version = kApiVersion;
  op->GetStartVersion = [](const OrtCustomOp*) { return kVersion; };
  op->GetEndVersion = [](const OrtCustomOp*) { return kVersion; };
  op->GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op->GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op->GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op->GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  op->GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op->GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  op->GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };
}

// Adds the operators between INT8 products, of the CPU provider; see tokens_onnxruntime.cc.
OrtStatus* AddTokenOperators(OrtCustomOpDomain* domain);

// Adds the product that ends in SiLU, where the processor has AMX; see product_onnxruntime.cc.
OrtStatus* AddProductOperator(OrtCustomOpDomain* domain);

}  // namespace mambapro_onnxruntime
