// What the operators between INT8 products share: arguments, their checks, and kernels as ONNX
// Runtime wants them.
#pragma once

#include <initializer_list>
#include <new>

#include "adapter.h"
#include "tokens.h"

namespace mambapro_onnxruntime {

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
  const void* state;
  std::array<Argument, kMostInputs> inputs;

  // The output `index`, of the shape of the first input.
  template <typename T>
  OrtStatus* Output(size_t index, T** data) const {
    return Output(index, inputs[0].shape, data);
  }

  template <typename T>
  OrtStatus* Output(size_t index, const Shape& shape, T** data) const {
    OrtValue* value = nullptr;
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
  OrtStatus* (*prepare)(const OrtKernelInfo*, void** state) = nullptr;  // null for no state
  void (*drop)(void* state) = nullptr;
};

inline const Operator& Self(const OrtCustomOp* op) { return *static_cast<const Operator*>(op); }

inline OrtStatus* Refuse(const Operator& op, const Running& call, size_t input, const char* legal) {
  const Shape& shape = call.inputs[input].shape;
  return Answer(ORT_INVALID_ARGUMENT, "%s: %s must be %s, got %s", op.name, op.input[input].name,
                legal, Write(shape.axes, shape.sizes).value);
}

inline OrtStatus* CheckLike(const Operator& op, const Running& call, size_t input,
                            const Shape& legal) {
  if (call.inputs[input].shape.Is(legal.axes, legal.sizes)) return nullptr;
  return Refuse(op, call, input, Write(legal.axes, legal.sizes).value);
}

// The scale at `input` and the zero point after it.
inline OrtStatus* ReadQuantisation(const Operator& op, const Running& call, size_t input,
                                   mambapro::Quantisation* to) {
  for (const size_t i : {input, input + 1}) MAMBAPRO_RETURN_IF_ERROR(CheckLike(op, call, i, {}));
  to->scale = *call.inputs[input].floats();
  to->zero_point = *static_cast<const uint8_t*>(call.inputs[input + 1].data);
  if (to->scale > 0) return nullptr;
  return Answer(ORT_INVALID_ARGUMENT, "%s: %s must be above 0, got %g", op.name,
                op.input[input].name, static_cast<double>(to->scale));
}

inline int64_t Count(const Shape& shape, size_t axes) {
  int64_t count = 1;
  for (size_t i = 0; i < axes; ++i) count *= shape.sizes[i];
  return count;
}

struct Kernel {
  const Operator& op;
  float attribute;
  void* state;
};

inline OrtStatus* CreateKernel(const OrtCustomOp* self, const OrtApi*, const OrtKernelInfo* info,
                               void** kernel) {
  const Operator& op = Self(self);
  float attribute = 0;
  if (op.attribute) {
    MAMBAPRO_RETURN_IF_ERROR(api->KernelInfoGetAttribute_float(info, op.attribute, &attribute));
  }
  void* state = nullptr;
  if (op.prepare) MAMBAPRO_RETURN_IF_ERROR(op.prepare(info, &state));
  *kernel = new (std::nothrow) Kernel{op, attribute, state};
  if (*kernel) return nullptr;
  if (op.drop) op.drop(state);
  return Answer(ORT_FAIL, "%s: out of memory", op.name);
}

inline void DestroyKernel(void* pointer) {
  const Kernel* kernel = static_cast<Kernel*>(pointer);
  if (kernel->op.drop) kernel->op.drop(kernel->state);
  delete kernel;
}

inline OrtStatus* Compute(void* kernel, OrtKernelContext* context) {
  const auto& [op, attribute, state] = *static_cast<const Kernel*>(kernel);
  Running call{context, attribute, state, {}};
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

inline Operator Make(const char* name, const char* attribute, std::initializer_list<Value> inputs,
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
  op.KernelDestroy = DestroyKernel;
  return op;
}

constexpr Value kScale{"scale"}, kZeroPoint{"zero_point", kByte};
constexpr Value kSumScale{"sum_scale"}, kSumZeroPoint{"sum_zero_point", kByte};

}  // namespace mambapro_onnxruntime
