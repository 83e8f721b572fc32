// The selective scan as a TensorRT plugin: SelectiveScan, version "1", namespace "".
//
// One source for TensorRT 10.3 to 11. The plugin has no state: sizes come with every call. Nothing
// here needs libnvinfer when linking, and nothing throws. A bad call returns a status, which can
// carry no text, so that the text goes to stderr: TensorRT's own logger is reached through
// interfaces that differ between 10 and 11.
#include <NvInferRuntime.h>
#include <NvInferVersion.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <new>

#include "scan_cuda.h"

#define MAMBAPRO_EXPORT extern "C" __attribute__((visibility("default")))

static_assert(NV_TENSORRT_MAJOR > 10 || (NV_TENSORRT_MAJOR == 10 && NV_TENSORRT_MINOR >= 3),
              "the plugin needs TensorRT 10.3 or later");

namespace mambapro {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginCapabilityType;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorRTPhase;

constexpr char kName[] = "SelectiveScan";
constexpr char kVersion[] = "1";
constexpr char kNamespace[] = "";
constexpr int32_t kOk = 0, kFailed = -1;

// Tensors in the order of the operator's inputs, the output last.
enum Tensor { kU, kDelta, kA, kB, kC, kD, kDeltaBias, kY, kTensors };
constexpr int32_t kInputs = kY;
constexpr const char* kTensorNames[kTensors] = {"u", "delta", "A",          "B",
                                                "C", "D",     "delta_bias", "y"};

// What an engine keeps: the operator's version, so that a later library refuses what it cannot run.
constexpr char kVersionField[] = "operator_version";
const int32_t kOperatorVersion = 1;

__attribute__((format(printf, 1, 2))) int32_t Fail(const char* format, ...) {
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof(text), format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "SelectiveScan: %s\n", text);
  return kFailed;
}

// Sizes of a call; -1 is not known yet.
struct Sizes {
  int64_t rows, length, channels, groups, states;
};

bool IsParameter(int tensor) { return tensor == kA || tensor == kD || tensor == kDeltaBias; }

bool Agree(int64_t a, int64_t b) { return a == b || a == -1 || b == -1; }

struct Shape {
  int32_t rank;
  int64_t sizes[3];
};

Shape Legal(const Sizes& s, int tensor) {
  switch (tensor) {
    case kA:
      return {3, {s.groups, s.channels, s.states}};
    case kB:
    case kC:
      return {3, {s.rows, s.length, s.states}};
    case kD:
    case kDeltaBias:
      return {2, {s.groups, s.channels}};
    default:
      return {3, {s.rows, s.length, s.channels}};
  }
}

const char* Describe(int32_t rank, const int64_t* sizes, char (&text)[96]) {
  size_t used = 0;
  text[0] = '\0';
  for (int32_t i = 0; i < rank && used < sizeof(text) - 24; ++i) {
    used += std::snprintf(text + used, sizeof(text) - used, i ? ", %lld" : "(%lld",
                          static_cast<long long>(sizes[i]));
  }
  std::snprintf(text + used, sizeof(text) - used, rank > 0 ? ")" : "()");
  return text;
}

// Checks the shapes of all tensors, in the order of `Tensor`. -1 in a shape agrees with any size.
int32_t CheckShapes(const Dims* const (&dims)[kTensors], Sizes* sizes) {
  if (dims[kU]->nbDims != 3) return Fail("u must have 3 axes, got %d", dims[kU]->nbDims);
  if (dims[kA]->nbDims != 3) return Fail("A must have 3 axes, got %d", dims[kA]->nbDims);
  *sizes = {dims[kU]->d[0], dims[kU]->d[1], dims[kU]->d[2], dims[kA]->d[0], dims[kA]->d[2]};
  for (int t = 0; t < kTensors; ++t) {
    const Shape legal = Legal(*sizes, t);
    bool agrees = dims[t]->nbDims == legal.rank;
    for (int32_t i = 0; agrees && i < legal.rank; ++i)
      agrees = Agree(dims[t]->d[i], legal.sizes[i]);
    if (agrees) continue;
    char wanted[96], got[96];
    return Fail("%s must be %s, got %s", kTensorNames[t], Describe(legal.rank, legal.sizes, wanted),
                Describe(dims[t]->nbDims, dims[t]->d, got));
  }
  for (int64_t size : {sizes->rows, sizes->length, sizes->channels, sizes->groups, sizes->states}) {
    if (size != 0) continue;
    char u[96], a[96];
    return Fail("no size may be zero, got u %s and A %s", Describe(3, dims[kU]->d, u),
                Describe(3, dims[kA]->d, a));
  }
  if (sizes->rows != -1 && sizes->groups != -1 && sizes->rows % sizes->groups != 0) {
    return Fail("the %lld groups of A must divide the %lld rows of u",
                static_cast<long long>(sizes->groups), static_cast<long long>(sizes->rows));
  }
  if (sizes->states > kMaxCudaStates) {
    return Fail("A has %lld states, the limit is %lld", static_cast<long long>(sizes->states),
                static_cast<long long>(kMaxCudaStates));
  }
  return kOk;
}

int32_t CheckCount(int32_t inputs, int32_t outputs) {
  if (inputs == kInputs && outputs == 1) return kOk;
  return Fail("it takes 7 inputs and gives 1 output, got %d and %d", inputs, outputs);
}

const char* TypeName(DataType type) {
  switch (type) {
    case DataType::kFLOAT:
      return "float32";
    case DataType::kHALF:
      return "float16";
    case DataType::kBF16:
      return "bfloat16";
    default:
      return "another type";
  }
}

int32_t CheckTypes(const DataType (&types)[kTensors]) {
  if (types[kU] != DataType::kFLOAT && types[kU] != DataType::kHALF) {
    return Fail("u must be float32 or float16, got %s", TypeName(types[kU]));
  }
  for (int t = 0; t < kTensors; ++t) {
    const DataType legal = IsParameter(t) ? DataType::kFLOAT : types[kU];
    if (types[t] != legal) {
      return Fail("%s must be %s, got %s", kTensorNames[t], TypeName(legal), TypeName(types[t]));
    }
  }
  return kOk;
}

// Shapes and types of one call, out of TensorRT's two kinds of description.
const PluginTensorDesc& Desc(const PluginTensorDesc& desc) { return desc; }
const PluginTensorDesc& Desc(const DynamicPluginTensorDesc& desc) { return desc.desc; }

template <typename Description>
int32_t CheckCall(const Description* inputs, const Description* outputs, Sizes* sizes) {
  const Dims* dims[kTensors];
  DataType types[kTensors];
  for (int t = 0; t < kTensors; ++t) {
    const PluginTensorDesc& desc = Desc(t == kY ? outputs[0] : inputs[t]);
    dims[t] = &desc.dims;
    types[t] = desc.type;
  }
  const int32_t status = CheckTypes(types);
  return status == kOk ? CheckShapes(dims, sizes) : status;
}

int64_t Constant(const nvinfer1::IDimensionExpr* size) {
  return size->isConstant() ? size->getConstantValue() : -1;
}

class ScanPlugin final : public nvinfer1::IPluginV3,
                         public nvinfer1::IPluginV3OneCore,
                         public nvinfer1::IPluginV3OneBuild,
                         public nvinfer1::IPluginV3OneRuntime {
 public:
  nvinfer1::IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<nvinfer1::IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }
  nvinfer1::IPluginV3* clone() noexcept override { return new (std::nothrow) ScanPlugin; }

  // Core
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }

  // Build
  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t getOutputDataTypes(DataType* output_types, int32_t outputs, const DataType* input_types,
                             int32_t inputs) const noexcept override {
    if (CheckCount(inputs, outputs) != kOk) return kFailed;
    output_types[0] = input_types[kU];
    return kOk;
  }

  int32_t getOutputShapes(const DimsExprs* in, int32_t inputs, const DimsExprs*, int32_t,
                          DimsExprs* out, int32_t outputs,
                          nvinfer1::IExprBuilder&) noexcept override {
    if (CheckCount(inputs, outputs) != kOk) return kFailed;
    Dims known[kTensors];
    const Dims* pointers[kTensors];
    for (int t = 0; t < kTensors; ++t) {
      const DimsExprs& from = in[t == kY ? kU : t];
      known[t].nbDims = from.nbDims;
      for (int32_t i = 0; i < from.nbDims; ++i) known[t].d[i] = Constant(from.d[i]);
      pointers[t] = &known[t];
    }
    Sizes sizes;
    if (CheckShapes(pointers, &sizes) != kOk) return kFailed;
    out[0] = in[kU];
    return kOk;
  }

  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors,
                                 int32_t inputs, int32_t outputs) noexcept override {
    if (inputs != kInputs || outputs != 1 || position < 0 || position >= kTensors) return false;
    const PluginTensorDesc& desc = tensors[position].desc;
    if (desc.format != nvinfer1::TensorFormat::kLINEAR) return false;
    if (IsParameter(position)) return desc.type == DataType::kFLOAT;
    if (position == kU) return desc.type == DataType::kFLOAT || desc.type == DataType::kHALF;
    return desc.type == tensors[kU].desc.type;
  }

  int32_t configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs,
                          const DynamicPluginTensorDesc* out, int32_t outputs) noexcept override {
    Sizes sizes;
    return CheckCount(inputs, outputs) == kOk ? CheckCall(in, out, &sizes) : kFailed;
  }

  // Runtime
  int32_t onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                        int32_t outputs) noexcept override {
    Sizes sizes;
    return CheckCount(inputs, outputs) == kOk ? CheckCall(in, out, &sizes) : kFailed;
  }

  int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out,
                  const void* const* inputs, void* const* outputs, void*,
                  cudaStream_t stream) noexcept override {
    Sizes s;
    if (CheckCall(in, out, &s) != kOk) return kFailed;
    ScanParams p;
    p.rows = s.rows;
    p.groups = s.groups;
    p.length = s.length;
    p.channels = s.channels;
    p.states = s.states;
    p.type = in[kU].type == DataType::kHALF ? ScalarType::kFloat16 : ScalarType::kFloat32;
    p.u = {inputs[kU], s.length * s.channels, s.channels};
    p.delta = {inputs[kDelta], s.length * s.channels, s.channels};
    p.b = {inputs[kB], s.length * s.states, s.states};
    p.c = {inputs[kC], s.length * s.states, s.states};
    p.y = {outputs[0], s.length * s.channels, s.channels};
    p.a = static_cast<const float*>(inputs[kA]);
    p.d = static_cast<const float*>(inputs[kD]);
    p.delta_bias = static_cast<const float*>(inputs[kDeltaBias]);
    const cudaError_t error = ScanForwardCuda(p, stream);
    if (error == cudaSuccess) return kOk;
    return Fail("CUDA error %d at the launch for u of (%lld, %lld, %lld): %s",
                static_cast<int>(error), static_cast<long long>(s.rows),
                static_cast<long long>(s.length), static_cast<long long>(s.channels),
                cudaGetErrorString(error));
  }

  nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override {
    return clone();
  }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override {
    static const PluginField field{kVersionField, &kOperatorVersion, PluginFieldType::kINT32, 1};
    static const PluginFieldCollection fields{1, &field};
    return &fields;
  }
};

// Reads the fields of a node (none is needed) or of an engine (the version is).
int32_t CheckFields(const PluginFieldCollection* fields, TensorRTPhase phase) {
  bool found = false;
  for (int32_t i = 0; fields && i < fields->nbFields; ++i) {
    const PluginField& field = fields->fields[i];
    if (!field.name || std::strcmp(field.name, kVersionField) != 0) {
      return Fail("unknown field %s; the only one is %s", field.name ? field.name : "(no name)",
                  kVersionField);
    }
    if (field.type != PluginFieldType::kINT32 || field.length != 1 || !field.data) {
      return Fail("%s must be one int32", kVersionField);
    }
    int32_t version;
    std::memcpy(&version, field.data, sizeof(version));
    if (version != kOperatorVersion) {
      return Fail("%s is %d, this library runs %d", kVersionField, version, kOperatorVersion);
    }
    found = true;
  }
  if (phase == TensorRTPhase::kRUNTIME && !found)
    return Fail("the engine has no %s", kVersionField);
  return kOk;
}

class ScanCreator final : public nvinfer1::IPluginCreatorV3One {
 public:
  nvinfer1::IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields,
                                    TensorRTPhase phase) noexcept override {
    if (CheckFields(fields, phase) != kOk) return nullptr;
    return new (std::nothrow) ScanPlugin;
  }
  // The attributes that the ONNX parser shall hand over: the operator has none.
  const PluginFieldCollection* getFieldNames() noexcept override {
    static const PluginFieldCollection none{0, nullptr};
    return &none;
  }
  const char* getPluginName() const noexcept override { return kName; }
  const char* getPluginVersion() const noexcept override { return kVersion; }
  const char* getPluginNamespace() const noexcept override { return kNamespace; }
};

}  // namespace
}  // namespace mambapro

// What TensorRT looks up in a plugin library.
MAMBAPRO_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static mambapro::ScanCreator creator;
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&creator};
  count = 1;
  return creators;
}

MAMBAPRO_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder*) {}
