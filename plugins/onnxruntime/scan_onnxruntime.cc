// The selective scan for ONNX Runtime: mambapro::SelectiveScan, version 1, for float32 and float16,
// on the CPU provider, and on the CUDA provider if the build has the CUDA kernels
// (MAMBAPRO_WITH_CUDA). Load the library with SessionOptions.register_custom_ops_library.
//
// Only the C API, so that one build serves every later version; nothing here throws.
#include <onnxruntime_c_api.h>

#include <array>
#include <cstdarg>
#include <cstdio>
#include <thread>

#include "scan.h"
#ifdef MAMBAPRO_WITH_CUDA
#include "scan_cuda.h"
#endif

namespace {

constexpr char kDomain[] = "mambapro", kName[] = "SelectiveScan";
constexpr int kVersion = 1;
// ONNX Runtime 1.17: the first with KernelContext_ParallelFor. Newer runtimes serve older requests.
constexpr uint32_t kApiVersion = 17;

enum Input : size_t { kU, kDelta, kA, kB, kC, kD, kBias, kInputs };
constexpr const char* kNames[kInputs] = {"u", "delta", "A", "B", "C", "D", "delta_bias"};
constexpr bool IsSequence(size_t input) { return input != kA && input != kD && input != kBias; }

const OrtApi* api = nullptr;  // set once, by the first RegisterCustomOps

__attribute__((format(printf, 2, 3))) OrtStatus* Answer(OrtErrorCode code, const char* format,
                                                        ...) {
  char text[320];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  return api->CreateStatus(code, text);
}

#define MAMBAPRO_RETURN_IF_ERROR(call) \
  if (OrtStatus* status = (call)) return status

struct Shape {
  std::array<int64_t, 3> sizes{};  // of a tensor with fewer axes: the first ones
  size_t axes = 0;

  bool Is(size_t wanted_axes, std::array<int64_t, 3> wanted) const {
    if (axes != wanted_axes) return false;
    for (size_t i = 0; i < axes; ++i) {
      if (sizes[i] != wanted[i]) return false;
    }
    return true;
  }
};

struct Text {
  char value[96];
};

Text Write(size_t axes, const std::array<int64_t, 3>& sizes) {
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

OrtStatus* ReadShape(const OrtValue* value, Shape* shape) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  MAMBAPRO_RETURN_IF_ERROR(api->GetTensorTypeAndShape(value, &info));
  OrtStatus* status = api->GetDimensionsCount(info, &shape->axes);
  if (!status && shape->axes <= shape->sizes.size()) {
    status = api->GetDimensions(info, shape->sizes.data(), shape->axes);
  }
  api->ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

// Says which input has the wrong shape, what it is and what is legal; nullptr if all are right.
OrtStatus* CheckShapes(const std::array<Shape, kInputs>& shapes) {
  const Shape &u = shapes[kU], &a = shapes[kA];
  if (u.axes != 3 || a.axes != 3) {
    return Answer(ORT_INVALID_ARGUMENT,
                  "SelectiveScan: u must be (G*B, L, D) and A (G, D, N), got %s and %s",
                  Write(u.axes, u.sizes).value, Write(a.axes, a.sizes).value);
  }
  const int64_t rows = u.sizes[0], length = u.sizes[1], channels = u.sizes[2];
  const int64_t groups = a.sizes[0], states = a.sizes[2];
  const std::array<std::array<int64_t, 3>, kInputs> legal = {{{rows, length, channels},
                                                              {rows, length, channels},
                                                              {groups, channels, states},
                                                              {rows, length, states},
                                                              {rows, length, states},
                                                              {groups, channels},
                                                              {groups, channels}}};
  for (size_t i = 0; i < kInputs; ++i) {
    const size_t axes = i == kD || i == kBias ? 2 : 3;
    if (!shapes[i].Is(axes, legal[i])) {
      return Answer(ORT_INVALID_ARGUMENT, "SelectiveScan: %s must be %s, got %s", kNames[i],
                    Write(axes, legal[i]).value, Write(shapes[i].axes, shapes[i].sizes).value);
    }
  }
  return nullptr;
}

OrtStatus* RefuseSizes(const char* problem, const mambapro::ScanParams& p) {
  return Answer(ORT_INVALID_ARGUMENT, "SelectiveScan: %s, got u %s, A %s", problem,
                Write(3, {p.rows, p.length, p.channels}).value,
                Write(3, {p.groups, p.channels, p.states}).value);
}

// ONNX Runtime's own threads.
struct Call {
  OrtKernelContext* context;
  void (*task)(void*, int64_t);
  void* task_context;
};

void RunOnRuntimeThreads(void* pool, int64_t count, void (*task)(void*, int64_t), void* context) {
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

template <typename Sequence, typename Pointer>
Sequence Dense(Pointer data, int64_t length, int64_t width) {
  return {data, length * width, width};
}

// What a provider runs when all shapes are right.
struct Cpu {
  static const char* Name() { return nullptr; }  // how the API spells it
  static OrtStatus* Run(const mambapro::ScanParams& p, OrtKernelContext* context) {
    if (const char* problem = mambapro::CheckScan(p)) return RefuseSizes(problem, p);
    // The C API does not tell how many threads a session has.
    const int64_t workers = std::thread::hardware_concurrency();
    mambapro::ScanForwardCpu(p, {RunOnRuntimeThreads, context, workers});
    return nullptr;
  }
};

#ifdef MAMBAPRO_WITH_CUDA
struct Cuda {
  static const char* Name() { return "CUDAExecutionProvider"; }
  static OrtStatus* Run(const mambapro::ScanParams& p, OrtKernelContext* context) {
    if (const char* problem = mambapro::CheckScanCuda(p)) return RefuseSizes(problem, p);
    void* stream = nullptr;
    MAMBAPRO_RETURN_IF_ERROR(api->KernelContext_GetGPUComputeStream(context, &stream));
    const cudaError_t error = mambapro::ScanForwardCuda(p, static_cast<cudaStream_t>(stream));
    if (error == cudaSuccess) return nullptr;
    return Answer(ORT_FAIL, "SelectiveScan: CUDA error %d at the launch: %s",
                  static_cast<int>(error), cudaGetErrorString(error));
  }
};
#endif

template <typename Provider>
OrtStatus* Compute(mambapro::ScalarType type, OrtKernelContext* context) {
  std::array<Shape, kInputs> shapes;
  std::array<const void*, kInputs> data{};
  for (size_t i = 0; i < kInputs; ++i) {
    const OrtValue* value = nullptr;
    MAMBAPRO_RETURN_IF_ERROR(api->KernelContext_GetInput(context, i, &value));
    if (!value) return Answer(ORT_INVALID_ARGUMENT, "SelectiveScan: %s is missing", kNames[i]);
    MAMBAPRO_RETURN_IF_ERROR(ReadShape(value, &shapes[i]));
    void* pointer = nullptr;  // the C API has no function that takes a const value
    MAMBAPRO_RETURN_IF_ERROR(api->GetTensorMutableData(const_cast<OrtValue*>(value), &pointer));
    data[i] = pointer;
  }
  MAMBAPRO_RETURN_IF_ERROR(CheckShapes(shapes));

  mambapro::ScanParams p;
  p.type = type;
  p.rows = shapes[kU].sizes[0];
  p.length = shapes[kU].sizes[1];
  p.channels = shapes[kU].sizes[2];
  p.groups = shapes[kA].sizes[0];
  p.states = shapes[kA].sizes[2];
  OrtValue* y = nullptr;
  void* to = nullptr;
  MAMBAPRO_RETURN_IF_ERROR(
      api->KernelContext_GetOutput(context, 0, shapes[kU].sizes.data(), 3, &y));
  MAMBAPRO_RETURN_IF_ERROR(api->GetTensorMutableData(y, &to));
  p.u = Dense<mambapro::ConstSequence>(data[kU], p.length, p.channels);
  p.delta = Dense<mambapro::ConstSequence>(data[kDelta], p.length, p.channels);
  p.b = Dense<mambapro::ConstSequence>(data[kB], p.length, p.states);
  p.c = Dense<mambapro::ConstSequence>(data[kC], p.length, p.states);
  p.y = Dense<mambapro::MutableSequence>(to, p.length, p.channels);
  p.a = static_cast<const float*>(data[kA]);
  p.d = static_cast<const float*>(data[kD]);
  p.delta_bias = static_cast<const float*>(data[kBias]);
  return Provider::Run(p, context);
}

// y has the shape of u.
OrtStatus* InferShape(const OrtCustomOp*, OrtShapeInferContext* context) {
  OrtTensorTypeAndShapeInfo* info = nullptr;  // the context's own
  MAMBAPRO_RETURN_IF_ERROR(api->ShapeInferContext_GetInputTypeShape(context, kU, &info));
  return api->ShapeInferContext_SetOutputTypeShape(context, 0, info);
}

// The operator for a provider and one type of its sequences. A kernel has no state, so none is
// created.
template <typename Provider, ONNXTensorElementDataType kElement, mambapro::ScalarType kType>
OrtCustomOp MakeOperator() {
  OrtCustomOp op{};
  op.version = kApiVersion;
  op.GetName = [](const OrtCustomOp*) { return kName; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return Provider::Name(); };
  op.GetStartVersion = [](const OrtCustomOp*) { return kVersion; };
  op.GetEndVersion = [](const OrtCustomOp*) { return kVersion; };

  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return kInputs; };
  op.GetInputType = [](const OrtCustomOp*, size_t input) {
    return IsSequence(input) ? kElement : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  op.GetInputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return OrtMemTypeDefault; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return kElement; };
  op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return INPUT_OUTPUT_REQUIRED; };
  op.GetVariadicInputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicInputHomogeneity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputMinArity = [](const OrtCustomOp*) { return 0; };
  op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 0; };

  op.InferOutputShapeFn = InferShape;
  op.CreateKernelV2 = [](const OrtCustomOp*, const OrtApi*, const OrtKernelInfo*,
                         void** kernel) -> OrtStatusPtr {
    *kernel = nullptr;
    return nullptr;
  };
  op.KernelDestroy = [](void*) {};
  op.KernelComputeV2 = [](void*, OrtKernelContext* context) -> OrtStatusPtr {
    return Compute<Provider>(kType, context);
  };
  return op;
}

template <typename Provider>
OrtStatus* AddOperators(OrtCustomOpDomain* domain) {
  static const OrtCustomOp single =
      MakeOperator<Provider, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, mambapro::ScalarType::kFloat32>();
  static const OrtCustomOp half = MakeOperator<Provider, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
                                               mambapro::ScalarType::kFloat16>();
  MAMBAPRO_RETURN_IF_ERROR(api->CustomOpDomain_Add(domain, &single));
  return api->CustomOpDomain_Add(domain, &half);
}

// The one domain of this process: it must outlive every session, and none tells when it ends.
OrtStatus* MakeDomain(OrtCustomOpDomain** domain) {
  MAMBAPRO_RETURN_IF_ERROR(api->CreateCustomOpDomain(kDomain, domain));
#ifdef MAMBAPRO_WITH_CUDA
  MAMBAPRO_RETURN_IF_ERROR(AddOperators<Cuda>(*domain));
#endif
  return AddOperators<Cpu>(*domain);
}

}  // namespace

#define MAMBAPRO_EXPORT extern "C" __attribute__((visibility("default")))

// The execution providers that this library serves, for mambapro/native.py.
MAMBAPRO_EXPORT const char* MambaproProviders() {
#ifdef MAMBAPRO_WITH_CUDA
  return "CPUExecutionProvider CUDAExecutionProvider";
#else
  return "CPUExecutionProvider";
#endif
}

MAMBAPRO_EXPORT OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const OrtApiBase* base) {
  static const bool new_enough = (api = base->GetApi(kApiVersion)) != nullptr;
  if (!new_enough) {
    return base->GetApi(1)->CreateStatus(ORT_NOT_IMPLEMENTED,
                                         "mambapro needs ONNX Runtime 1.17 or newer");
  }
  static OrtCustomOpDomain* domain = nullptr;
  static OrtStatus* const problem = MakeDomain(&domain);
  if (problem) return api->CreateStatus(api->GetErrorCode(problem), api->GetErrorMessage(problem));
  return api->AddCustomOpDomain(options, domain);
}
