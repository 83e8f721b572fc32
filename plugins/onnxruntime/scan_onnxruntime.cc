// The selective scan for ONNX Runtime: mambapro::SelectiveScan, version 1, for float32 and float16,
// on the CPU provider, and on the CUDA provider if the build has the CUDA kernels
// (MAMBAPRO_WITH_CUDA). Load the library with SessionOptions.register_custom_ops_library.
// The library's entry is here too; its other operators are in tokens_onnxruntime.cc.
#include "adapter.h"
#ifdef MAMBAPRO_WITH_CUDA
#include "scan_cuda.h"
#endif

namespace {

using namespace mambapro_onnxruntime;

constexpr char kDomain[] = "mambapro", kName[] = "SelectiveScan";

enum Input : size_t { kU, kDelta, kA, kB, kC, kD, kBias, kInputs };
constexpr const char* kNames[kInputs] = {"u", "delta", "A", "B", "C", "D", "delta_bias"};
constexpr bool IsSequence(size_t input) { return input != kA && input != kD && input != kBias; }

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
  const std::array<Sizes, kInputs> legal = {{{rows, length, channels},
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

template <typename Sequence, typename Pointer>
Sequence Dense(Pointer data, int64_t length, int64_t width) {
  return {data, length * width, width};
}

// What a provider runs when all shapes are right.
struct Cpu {
  static const char* Name() { return nullptr; }  // how the API spells it
  static OrtStatus* Run(const mambapro::ScanParams& p, OrtKernelContext* context) {
    if (const char* problem = mambapro::CheckScan(p)) return RefuseSizes(problem, p);
    mambapro::ScanForwardCpu(p, RuntimeThreads(context));
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
  SetCommon(&op);
  op.GetName = [](const OrtCustomOp*) { return kName; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) { return Provider::Name(); };

  op.GetInputTypeCount = [](const OrtCustomOp*) -> size_t { return kInputs; };
  op.GetInputType = [](const OrtCustomOp*, size_t input) {
    return IsSequence(input) ? kElement : ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const OrtCustomOp*, size_t) { return kElement; };

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
  MAMBAPRO_RETURN_IF_ERROR(AddOperators<Cpu>(*domain));
  return AddTokenOperators(*domain);
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
