// An integer product that ends in SiLU and the next one's uint8: mambapro::MatMulSiluQuantize,
// version 1. plugins/README.md specifies it.
#include <memory>

#include "product.h"
#include "token_operator.h"

namespace mambapro_onnxruntime {
namespace {

constexpr char kProductName[] = "MatMulSiluQuantize";
constexpr std::align_val_t kCacheLine{64};

enum ProductInput { kX, kWeight, kXScale, kXZeroPoint, kWeightScale, kBias, kYScale };

struct Free {
  void operator()(int8_t* values) const { operator delete(values, kCacheLine); }
};

// A weight in the order of the tiles; ONNX Runtime keeps its own, too.
struct Packed {
  int64_t depth = 0, columns = 0;
  std::unique_ptr<int8_t, Free> weight;
  std::unique_ptr<int32_t[]> totals;

  bool Allocate() {
    const size_t bytes = static_cast<size_t>(depth * columns);
    weight.reset(static_cast<int8_t*>(operator new(bytes, kCacheLine, std::nothrow)));
    totals.reset(new (std::nothrow) int32_t[static_cast<size_t>(columns)]);
    return weight && totals;
  }
};

bool Fits(int64_t size) { return size > 0 && size % mambapro::kProductStep == 0; }

OrtStatus* PackConstant(const OrtKernelInfo* info, void** state) {
  int constant = 0;
  const OrtValue* value = nullptr;
  MAMBAPRO_RETURN_IF_ERROR(
      api->KernelInfoGetConstantInput_tensor(info, kWeight, &constant, &value));
  if (!constant) {
    return Answer(ORT_INVALID_ARGUMENT, "%s: weight must be a constant of the file", kProductName);
  }
  Shape shape;
  MAMBAPRO_RETURN_IF_ERROR(ReadShape(value, &shape));
  if (shape.axes != 2 || !Fits(shape.sizes[0]) || !Fits(shape.sizes[1])) {
    return Answer(ORT_INVALID_ARGUMENT,
                  "%s: weight must be (depth, columns), both multiples of 32, got %s", kProductName,
                  Write(shape.axes, shape.sizes).value);
  }
  void* data = nullptr;  // the C API has no function that takes a const value
  MAMBAPRO_RETURN_IF_ERROR(api->GetTensorMutableData(const_cast<OrtValue*>(value), &data));
  std::unique_ptr<Packed> packed(new (std::nothrow) Packed{shape.sizes[0], shape.sizes[1], {}, {}});
  if (!packed || !packed->Allocate()) return Answer(ORT_FAIL, "%s: out of memory", kProductName);
  mambapro::PackWeight(static_cast<const int8_t*>(data), packed->depth, packed->columns,
                       packed->weight.get(), packed->totals.get());
  *state = packed.release();
  return nullptr;
}

OrtStatus* RunProduct(const Operator& op, const Running& call) {
  const Packed& packed = *static_cast<const Packed*>(call.state);
  Shape shape = call.inputs[kX].shape;
  if (shape.axes == 0 || shape.sizes[shape.axes - 1] != packed.depth) {
    return Refuse(op, call, kX, "(..., depth), as deep as weight");
  }
  mambapro::ProductParams p;
  p.rows = Count(shape, shape.axes - 1);
  p.depth = packed.depth;
  p.columns = shape.sizes[shape.axes - 1] = packed.columns;
  const Shape columns{{packed.columns}, 1};
  for (const size_t i : {kWeightScale, kBias}) {
    MAMBAPRO_RETURN_IF_ERROR(CheckLike(op, call, i, columns));
  }
  MAMBAPRO_RETURN_IF_ERROR(ReadQuantisation(op, call, kXScale, &p.from));
  MAMBAPRO_RETURN_IF_ERROR(ReadQuantisation(op, call, kYScale, &p.to));
  p.x = static_cast<const uint8_t*>(call.inputs[kX].data);
  p.weight = packed.weight.get();
  p.totals = packed.totals.get();
  p.weight_scale = call.inputs[kWeightScale].floats();
  p.bias = call.inputs[kBias].floats();
  MAMBAPRO_RETURN_IF_ERROR(call.Output(0, shape, &p.y));
  mambapro::ProductSiluQuantizeCpu(p, RuntimeThreads(call.context));
  return nullptr;
}

Operator MakeProduct() {
  constexpr ONNXTensorElementDataType kSmall = ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8;
  Operator op = Make(kProductName, nullptr,
                     {{"x", kByte},
                      {"weight", kSmall},
                      {"x_scale"},
                      {"x_zero_point", kByte},
                      {"weight_scale"},
                      {"bias"},
                      kScale,
                      kZeroPoint},
                     {kByte}, RunProduct);
  op.prepare = PackConstant;
  op.drop = [](void* state) { delete static_cast<Packed*>(state); };
  return op;
}

}  // namespace

OrtStatus* AddProductOperator(OrtCustomOpDomain* domain) {
  // Elsewhere the function in the file runs, in ONNX Runtime's kernels.
  if (!mambapro::HasProduct()) return nullptr;
  static const Operator product = MakeProduct();
  return api->CustomOpDomain_Add(domain, &product);
}

}  // namespace mambapro_onnxruntime
