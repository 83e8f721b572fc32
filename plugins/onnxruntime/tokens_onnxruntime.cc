// What an INT8 file for the CPU computes between its products, in one node each: mambapro::
// SiluQuantize, LayerNormQuantize, AddLayerNormQuantize and AttentionQuantize, version 1.
// plugins/README.md specifies them.
#include <new>

#include "adapter.h"
#include "tokens.h"

namespace mambapro_onnxruntime {
namespace {

constexpr size_t kMostInputs = 8, kMostOutputs = 3;
constexpr ONNXTensorElementDataType kFloat = ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT;
constexpr ONNXTensorElementDataType kByte = ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8;

struct Value {
  const char* name = nullptr;
  ONNXTensorElementDataType type = kFloat;
};

struct Argument {
  Shape shape;
  const void* data = nullptr;

  const float* floats() const { return static_cast<const float*>(data); }
};

// One call of a kernel.
struct Running {
  OrtKernelContext* context;
  float attribute;
  std::array<Argument, kMostInputs> inputs;

  // The output `index`, of the shape of the first input.
  template <typename T>
  OrtStatus* Output(size_t index, T** data) const {
    OrtValue* value = nullptr;
    const Shape& shape = inputs[0].shape;
    MAMBAPRO_RETURN_IF_ERROR(
        api->KernelContext_GetOutput(context, index, shape.sizes.data(), shape.axes, &value));
    void* pointer = nullptr;
    MAMBAPRO_RETURN_IF_ERROR(api->GetTensorMutableData(value, &pointer));
    *data = static_cast<T*>(pointer);
    return nullptr;
  }
};

struct Operator : OrtCustomOp {
  const char* name = nullptr;
  const char* attribute = nullptr;  // a float that every node must have; null for none
  size_t inputs = 0, outputs = 0;
  std::array<Value, kMostInputs> input{};
  std::array<ONNXTensorElementDataType, kMostOutputs> output{};
  OrtStatus* (*run)(const Operator&, const Running&) = nullptr;
};

const Operator& Self(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

OrtStatus* Refuse(const Operator& op, const Running& call, size_t input, const char* legal) {
  const Shape& shape = call.inputs[input].shape;
  return Answer(ORT_INVALID_ARGUMENT, "%s: %s must be %s, got %s", op.name, op.input[input].name,
                legal, Write(shape.axes, shape.sizes).value);
}

OrtStatus* CheckLike(const Operator& op, const Running& call, size_t input, const Shape& legal) {
  if (call.inputs[input].shape.Is(legal.axes, legal.sizes)) return nullptr;
  return Refuse(op, call, input, Write(legal.axes, legal.sizes).value);
}

// The scale at `input` and the zero point after it.
OrtStatus* ReadQuantisation(const Operator& op, const Running& call, size_t input,
                            mambapro::Quantisation* to) {
  for (const size_t i : {input, input + 1}) MAMBAPRO_RETURN_IF_ERROR(CheckLike(op, call, i, {}));
  to->scale = *call.inputs[input].floats();
  to->zero_point = *static_cast<const uint8_t*>(call.inputs[input + 1].data);
  if (to->scale > 0) return nullptr;
  return Answer(ORT_INVALID_ARGUMENT, "%s: %s must be above 0, got %g", op.name,
                op.input[input].name, static_cast<double>(to->scale));
}

int64_t Count(const Shape& shape, size_t axes) {
  int64_t count = 1;
  for (size_t i = 0; i < axes; ++i) count *= shape.sizes[i];
  return count;
}

OrtStatus* RunSilu(const Operator& op, const Running& call) {
  mambapro::SiluParams p;
  p.x = call.inputs[0].floats();
  p.count = Count(call.inputs[0].shape, call.inputs[0].shape.axes);
  MAMBAPRO_RETURN_IF_ERROR(ReadQuantisation(op, call, 1, &p.to));
  MAMBAPRO_RETURN_IF_ERROR(call.Output(0, &p.y));
  mambapro::SiluQuantizeCpu(p, RuntimeThreads(call.context));
  return nullptr;
}

// Reads x and, from `gain` on, gain, shift, scale and zero point.
OrtStatus* ReadNorm(const Operator& op, const Running& call, size_t gain, mambapro::NormParams* p) {
  const Shape& shape = call.inputs[0].shape;
  if (shape.axes == 0 || shape.sizes[shape.axes - 1] == 0) {
    return Refuse(op, call, 0, "(..., channels)");
  }
  p->epsilon = call.attribute;
  p->channels = shape.sizes[shape.axes - 1];
  p->rows = Count(shape, shape.axes - 1);
  const Shape channels{{p->channels}, 1};
  for (const size_t i : {gain, gain + 1}) {
    MAMBAPRO_RETURN_IF_ERROR(CheckLike(op, call, i, channels));
  }
  p->x = call.inputs[0].floats();
  p->gain = call.inputs[gain].floats();
  p->shift = call.inputs[gain + 1].floats();
  return ReadQuantisation(op, call, gain + 2, &p->to);
}

OrtStatus* RunNorm(const Operator& op, const Running& call) {
  mambapro::NormParams p;
  MAMBAPRO_RETURN_IF_ERROR(ReadNorm(op, call, 1, &p));
  MAMBAPRO_RETURN_IF_ERROR(call.Output(0, &p.y));
  mambapro::NormQuantizeCpu(p, RuntimeThreads(call.context));
  return nullptr;
}

OrtStatus* RunAddNorm(const Operator& op, const Running& call) {
  mambapro::NormParams p;
  MAMBAPRO_RETURN_IF_ERROR(CheckLike(op, call, 1, call.inputs[0].shape));
  MAMBAPRO_RETURN_IF_ERROR(ReadNorm(op, call, 2, &p));
  MAMBAPRO_RETURN_IF_ERROR(ReadQuantisation(op, call, 6, &p.sum_to));
  p.branch = call.inputs[1].floats();
  MAMBAPRO_RETURN_IF_ERROR(call.Output(0, &p.sum));
  MAMBAPRO_RETURN_IF_ERROR(call.Output(1, &p.y));
  MAMBAPRO_RETURN_IF_ERROR(call.Output(2, &p.sum_y));
  mambapro::NormQuantizeCpu(p, RuntimeThreads(call.context));
  return nullptr;
}

OrtStatus* RunAttention(const Operator& op, const Running& call) {
  const Shape& shape = call.inputs[0].shape;
  if (shape.axes != 4 || shape.sizes[3] < 1 || shape.sizes[3] > mambapro::kMaxHeadSize) {
    return Refuse(op, call, 0, "(tokens, rows, heads, head size), the last 1 to 128");
  }
  for (const size_t i : {1, 2}) MAMBAPRO_RETURN_IF_ERROR(CheckLike(op, call, i, shape));
  mambapro::AttentionParams p;
  p.tokens = shape.sizes[0];
  p.rows = shape.sizes[1];
  p.heads = shape.sizes[2];
  p.head_size = shape.sizes[3];
  p.query = call.inputs[0].floats();
  p.key = call.inputs[1].floats();
  p.value = call.inputs[2].floats();
  p.factor = call.attribute;
  MAMBAPRO_RETURN_IF_ERROR(ReadQuantisation(op, call, 3, &p.to));
  MAMBAPRO_RETURN_IF_ERROR(call.Output(0, &p.y));
  mambapro::AttentionQuantizeCpu(p, RuntimeThreads(call.context));
  return nullptr;
}

struct Kernel {
  const Operator& op;
  float attribute;
};

OrtStatus* CreateKernel(const OrtCustomOp* self, const OrtApi*, const OrtKernelInfo* info,
                        void** kernel) {
  const Operator& op = Self(self);
  float attribute = 0;
  if (op.attribute) {
    MAMBAPRO_RETURN_IF_ERROR(api->KernelInfoGetAttribute_float(info, op.attribute, &attribute));
  }
  *kernel = new (std::nothrow) Kernel{op, attribute};
  return *kernel ? nullptr : Answer(ORT_FAIL, "%s: out of memory", op.name);
}

OrtStatus* Compute(void* kernel, OrtKernelContext* context) {
  const auto& [op, attribute] = *static_cast<const Kernel*>(kernel);
  Running call{context, attribute, {}};
  for (size_t i = 0; i < op.inputs; ++i) {
    const OrtValue* value = nullptr;
    MAMBAPRO_RETURN_IF_ERROR(api->KernelContext_GetInput(context, i, &value));
    Shape& shape = call.inputs[i].shape;
    MAMBAPRO_RETURN_IF_ERROR(ReadShape(value, &shape));
    if (shape.axes > shape.sizes.size()) return Refuse(op, call, i, "of at most 8 axes");
    void* pointer = nullptr;  // the C API has no function that takes a const value
    MAMBAPRO_RETURN_IF_ERROR(api->GetTensorMutableData(const_cast<OrtValue*>(value), &pointer));
    call.inputs[i].data = pointer;
  }
  return op.run(op, call);
}

Operator Make(const char* name, const char* attribute, std::initializer_list<Value> inputs,
              std::initializer_list<ONNXTensorElementDataType> outputs,
              OrtStatus* (*run)(const Operator&, const Running&)) {
  Operator op{};
  op.name = name;
  op.attribute = attribute;
  op.inputs = inputs.size();
  op.outputs = outputs.size();
  std::copy(inputs.begin(), inputs.end(), op.input.begin());
  std::copy(outputs.begin(), outputs.end(), op.output.begin());
  op.run = run;

  SetCommon(&op);
  op.GetName = [](const OrtCustomOp* self) { return Self(self).name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return nullptr; };  // CPU
  op.GetInputTypeCount = [](const OrtCustomOp* self) { return Self(self).inputs; };
  op.GetInputType = [](const OrtCustomOp* self, size_t i) { return Self(self).input[i].type; };
  op.GetOutputTypeCount = [](const OrtCustomOp* self) { return Self(self).outputs; };
  op.GetOutputType = [](const OrtCustomOp* self, size_t i) { return Self(self).output[i]; };
  op.CreateKernelV2 = CreateKernel;
  op.KernelComputeV2 = Compute;
  op.KernelDestroy = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  return op;
}

constexpr Value kScale{"scale"}, kZeroPoint{"zero_point", kByte};
constexpr Value kSumScale{"sum_scale"}, kSumZeroPoint{"sum_zero_point", kByte};

}  // namespace

OrtStatus* AddTokenOperators(OrtCustomOpDomain* domain) {
  static const Operator operators[] = {
      Make("SiluQuantize", nullptr, {{"x"}, kScale, kZeroPoint}, {kByte}, RunSilu),
      Make("LayerNormQuantize", "epsilon", {{"x"}, {"gain"}, {"shift"}, kScale, kZeroPoint},
           {kByte}, RunNorm),
      Make("AddLayerNormQuantize", "epsilon",
           {{"x"}, {"branch"}, {"gain"}, {"shift"}, kScale, kZeroPoint, kSumScale, kSumZeroPoint},
           {kFloat, kByte, kByte}, RunAddNorm),
      Make("AttentionQuantize", "factor", {{"query"}, {"key"}, {"value"}, kScale, kZeroPoint},
           {kByte}, RunAttention)};
  for (const Operator& op : operators) {
    MAMBAPRO_RETURN_IF_ERROR(api->CustomOpDomain_Add(domain, &op));
  }
  return nullptr;
}

}  // namespace mambapro_onnxruntime
