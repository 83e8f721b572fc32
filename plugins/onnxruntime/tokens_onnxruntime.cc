// What an INT8 file for the CPU computes between its products, in one node each: mambapro::
// SiluQuantize, LayerNormQuantize, AddLayerNormQuantize and AttentionQuantize, version 1.
// plugins/README.md specifies them.
#include "token_operator.h"

namespace mambapro_onnxruntime {
namespace {

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
  return AddProductOperator(domain);
}

}  // namespace mambapro_onnxruntime
