// The TensorRT plugin's host logic, through nothing but the interfaces that TensorRT itself uses.
// The kernel behind enqueue runs in the emulation.
#include <NvInferRuntime.h>
#include <cuda_fp16.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "check.h"

extern "C" nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
extern "C" void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

using namespace nvinfer1;

namespace {

enum Tensor { kU, kDelta, kA, kB, kC, kD, kDeltaBias, kY, kTensors };
constexpr int32_t kInputs = 7;
constexpr DataType kFloat = DataType::kFLOAT, kHalf = DataType::kHALF;

IPluginCreatorV3One& Creator() {
  int32_t count = 0;
  IPluginCreatorInterface* const* creators = getCreators(count);
  CHECK(count == 1);
  return *static_cast<IPluginCreatorV3One*>(creators[0]);
}

using PluginPointer = std::unique_ptr<IPluginV3>;

PluginPointer Create(const PluginFieldCollection* fields, TensorRTPhase phase) {
  return PluginPointer(Creator().createPlugin("layer", fields, phase));
}

PluginPointer Create() {
  const PluginFieldCollection none{0, nullptr};
  return Create(&none, TensorRTPhase::kBUILD);
}

IPluginV3OneCore& Core(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneCore*>(
      plugin.getCapabilityInterface(PluginCapabilityType::kCORE));
}
IPluginV3OneBuild& Build(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneBuild*>(
      plugin.getCapabilityInterface(PluginCapabilityType::kBUILD));
}
IPluginV3OneRuntime& Runtime(IPluginV3& plugin) {
  return *static_cast<IPluginV3OneRuntime*>(
      plugin.getCapabilityInterface(PluginCapabilityType::kRUNTIME));
}

Dims MakeDims(std::initializer_list<int64_t> sizes) {
  Dims dims{};
  for (int64_t size : sizes) dims.d[dims.nbDims++] = size;
  return dims;
}

// A call's shapes and types: 2 groups of 3 rows, 5 steps, 4 channels, 16 states.
struct Call {
  int64_t rows = 6, length = 5, channels = 4, groups = 2, states = 16;
  Dims dims[kTensors];
  DataType types[kTensors];
  TensorFormat format = TensorFormat::kLINEAR;

  explicit Call(DataType type = kFloat) {
    Shape();
    for (DataType& t : types) t = type;
    types[kA] = types[kD] = types[kDeltaBias] = kFloat;
  }
  void Shape() {
    dims[kU] = dims[kDelta] = dims[kY] = MakeDims({rows, length, channels});
    dims[kA] = MakeDims({groups, channels, states});
    dims[kB] = dims[kC] = MakeDims({rows, length, states});
    dims[kD] = dims[kDeltaBias] = MakeDims({groups, channels});
  }
  std::vector<PluginTensorDesc> Static() const {
    std::vector<PluginTensorDesc> descs(kTensors);
    for (int t = 0; t < kTensors; ++t) descs[t] = {dims[t], types[t], format, 1.0f};
    return descs;
  }
  std::vector<DynamicPluginTensorDesc> Dynamic() const {
    std::vector<DynamicPluginTensorDesc> descs(kTensors);
    for (int t = 0; t < kTensors; ++t) {
      descs[t].desc = Static()[t];
      descs[t].min = descs[t].max = descs[t].opt = dims[t];
    }
    return descs;
  }
};

int32_t Configure(const Call& call) {
  const auto descs = call.Dynamic();
  return Build(*Create()).configurePlugin(descs.data(), kInputs, &descs[kY], 1);
}

int32_t ChangeShape(const Call& call) {
  const auto descs = call.Static();
  return Runtime(*Create()).onShapeChange(descs.data(), kInputs, &descs[kY], 1);
}

// --- what TensorRT would pass to getOutputShapes
// --------------------------------------------------

class Size final : public IDimensionExpr {
 public:
  explicit Size(int64_t value) : body_(value) { mImpl = &body_; }  // -1: known at run time only
  ~Size() noexcept override = default;

 private:
  struct Body final : apiv::VDimensionExpr {
    explicit Body(int64_t value_) : value(value_) {}
    bool isConstant() const override { return value >= 0; }
    int64_t getConstantValue() const override { return value; }
    bool isSizeTensor() const override { return false; }
    int64_t value;
  };
  Body body_;
};

class Builder final : public IExprBuilder {
 public:
  Builder() { mImpl = &body_; }
  ~Builder() noexcept override = default;

 private:
  struct Body final : apiv::VExprBuilder {
    const IDimensionExpr* constant(int64_t) override { return nullptr; }
    const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&,
                                    const IDimensionExpr&) override {
      return nullptr;
    }
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&,
                                            const IDimensionExpr&) override {
      return nullptr;
    }
  };
  Body body_;
};

struct Shapes {
  std::vector<std::unique_ptr<Size>> sizes;
  DimsExprs in[kInputs], out{};
  int32_t status;

  explicit Shapes(const Call& call) {
    for (int t = 0; t < kInputs; ++t) {
      in[t] = {};
      in[t].nbDims = call.dims[t].nbDims;
      for (int i = 0; i < in[t].nbDims; ++i) {
        sizes.emplace_back(new Size(call.dims[t].d[i]));
        in[t].d[i] = sizes.back().get();
      }
    }
    Builder builder;
    status = Build(*Create()).getOutputShapes(in, kInputs, nullptr, 0, &out, 1, builder);
  }
};

// --- tests
// ----------------------------------------------------------------------------------------

void TestCreatorAndCore() {
  setLoggerFinder(nullptr);
  IPluginCreatorV3One& creator = Creator();
  CHECK(std::string(creator.getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE");
  CHECK(std::string(creator.getPluginName()) == "SelectiveScan");
  CHECK(std::string(creator.getPluginVersion()) == "1");
  CHECK(std::string(creator.getPluginNamespace()).empty());
  CHECK(creator.getFieldNames() && creator.getFieldNames()->nbFields == 0);
  const PluginPointer plugin = Create();
  CHECK(std::string(Core(*plugin).getPluginName()) == "SelectiveScan");
  CHECK(std::string(Core(*plugin).getPluginVersion()) == "1");
  CHECK(std::string(Core(*plugin).getPluginNamespace()).empty());
  CHECK(std::string(Core(*plugin).getInterfaceInfo().kind) == "PLUGIN_V3ONE_CORE");
  CHECK(std::string(Build(*plugin).getInterfaceInfo().kind) == "PLUGIN_V3ONE_BUILD");
  CHECK(std::string(Runtime(*plugin).getInterfaceInfo().kind) == "PLUGIN_V3ONE_RUNTIME");
  CHECK(plugin->getCapabilityInterface(static_cast<PluginCapabilityType>(9)) == nullptr);
  CHECK(Build(*plugin).getNbOutputs() == 1);
  CHECK(Build(*plugin).getWorkspaceSize(nullptr, kInputs, nullptr, 1) == 0);
}

void TestFields() {
  const int32_t one = 1, two = 2;
  const float number = 1;
  const PluginField good{"operator_version", &one, PluginFieldType::kINT32, 1};
  const PluginField bad[] = {
      {"operator_version", &two, PluginFieldType::kINT32, 1},
      {"operator_version", &number, PluginFieldType::kFLOAT32, 1},
      {"operator_version", &one, PluginFieldType::kINT32, 0},
      {"operator_version", nullptr, PluginFieldType::kINT32, 1},
      {"states", &one, PluginFieldType::kINT32, 1},
      {nullptr, &one, PluginFieldType::kINT32, 1},
  };
  const PluginFieldCollection none{0, nullptr}, whole{1, &good};
  for (TensorRTPhase phase : {TensorRTPhase::kBUILD, TensorRTPhase::kRUNTIME}) {
    CHECK(Create(&whole, phase));
    for (const PluginField& field : bad) {
      const PluginFieldCollection fields{1, &field};
      CHECK(!Create(&fields, phase));
    }
  }
  CHECK(Create(&none, TensorRTPhase::kBUILD) && Create(nullptr, TensorRTPhase::kBUILD));
  CHECK(!Create(&none, TensorRTPhase::kRUNTIME) && !Create(nullptr, TensorRTPhase::kRUNTIME));
}

void TestSerializeAndClone() {
  const PluginPointer plugin = Create();
  const PluginFieldCollection* kept = Runtime(*plugin).getFieldsToSerialize();
  CHECK(kept && kept->nbFields == 1);
  // What TensorRT does: it writes the bytes down and hands over copies at another time.
  std::vector<PluginField> fields(kept->fields, kept->fields + kept->nbFields);
  int32_t copy;
  std::memcpy(&copy, fields[0].data, sizeof(copy));
  fields[0].data = &copy;
  const PluginFieldCollection read{1, fields.data()};
  const PluginPointer again = Create(&read, TensorRTPhase::kRUNTIME);
  CHECK(again);
  const PluginFieldCollection* second = Runtime(*again).getFieldsToSerialize();
  CHECK(second->nbFields == 1 && std::string(second->fields[0].name) == fields[0].name);
  CHECK(second->fields[0].type == fields[0].type && second->fields[0].length == 1);
  CHECK(*static_cast<const int32_t*>(second->fields[0].data) == copy);

  PluginPointer original = Create();
  const PluginPointer clone(original->clone());
  const PluginPointer attached(Runtime(*original).attachToContext(nullptr));
  CHECK(clone && clone != original && attached && attached != original);
  original.reset();  // a copy outlives what it was made from
  const auto descs = Call().Static();
  for (IPluginV3* copy_of : {clone.get(), attached.get()}) {
    CHECK(std::string(Core(*copy_of).getPluginName()) == "SelectiveScan");
    CHECK(Build(*copy_of).getNbOutputs() == 1);
    CHECK(Runtime(*copy_of).onShapeChange(descs.data(), kInputs, &descs[kY], 1) == 0);
  }
}

// Every type for a tensor, in every format, with u of every type: exactly the contract is taken.
void TestFormatCombinations() {
  const PluginPointer plugin = Create();
  IPluginV3OneBuild& build = Build(*plugin);
  const DataType types[] = {kFloat,           kHalf,           DataType::kBF16, DataType::kINT8,
                            DataType::kINT32, DataType::kBOOL, DataType::kINT64};
  int taken = 0;
  for (DataType u : types) {
    for (int position = 0; position < kTensors; ++position) {
      for (DataType type : types) {
        for (int format = 0; format <= static_cast<int>(TensorFormat::kDHWC); ++format) {
          if (position == kU && type != u) continue;
          Call call(u);
          call.types[position] = type;
          auto descs = call.Dynamic();
          descs[position].desc.format = static_cast<TensorFormat>(format);
          const bool parameter = position == kA || position == kD || position == kDeltaBias;
          const bool legal_type = position == kU ? u == kFloat || u == kHalf
                                  : parameter    ? type == kFloat
                                                 : type == u;
          const bool legal = legal_type && format == static_cast<int>(TensorFormat::kLINEAR);
          CHECK(build.supportsFormatCombination(position, descs.data(), kInputs, 1) == legal);
          taken += legal;
        }
      }
    }
  }
  CHECK(taken == 2 + 7 * 7);
  const auto descs = Call().Dynamic();
  CHECK(!build.supportsFormatCombination(-1, descs.data(), kInputs, 1));
  CHECK(!build.supportsFormatCombination(kTensors, descs.data(), kInputs, 1));
  CHECK(!build.supportsFormatCombination(0, descs.data(), 6, 1));
  CHECK(!build.supportsFormatCombination(0, descs.data(), kInputs, 2));
}

void TestOutputTypes() {
  const PluginPointer plugin = Create();
  for (DataType type : {kFloat, kHalf}) {
    const Call call(type);
    DataType out = DataType::kBOOL;
    CHECK(Build(*plugin).getOutputDataTypes(&out, 1, call.types, kInputs) == 0);
    CHECK(out == type);
    CHECK(Build(*plugin).getOutputDataTypes(&out, 1, call.types, 6) != 0);
    CHECK(Build(*plugin).getOutputDataTypes(&out, 2, call.types, kInputs) != 0);
  }
}

void TestOutputShapes() {
  for (int64_t rows : {6, -1}) {
    for (int64_t length : {5, -1}) {
      Call call;
      call.rows = rows, call.length = length;
      call.Shape();
      const Shapes shapes(call);
      CHECK(shapes.status == 0 && shapes.out.nbDims == 3);
      for (int i = 0; i < 3; ++i) CHECK(shapes.out.d[i] == shapes.in[kU].d[i]);
    }
  }
  Call call;
  call.dims[kDelta].d[2] = 9;
  CHECK(Shapes(call).status != 0);
  call.dims[kDelta].d[2] = -1;  // not known to be wrong yet
  CHECK(Shapes(call).status == 0);
  Builder builder;
  Shapes whole{Call()};
  const PluginPointer plugin = Create();
  CHECK(Build(*plugin).getOutputShapes(whole.in, 6, nullptr, 0, &whole.out, 1, builder) != 0);
  CHECK(Build(*plugin).getOutputShapes(whole.in, 7, nullptr, 0, &whole.out, 2, builder) != 0);
}

void TestBadCalls() {
  CHECK(Configure(Call()) == 0 && ChangeShape(Call()) == 0);
  Call dynamic;
  dynamic.rows = dynamic.length = -1;
  dynamic.Shape();
  CHECK(Configure(dynamic) == 0);
  for (int t = 0; t < kTensors; ++t) {
    for (int axis = 0; axis < Call().dims[t].nbDims; ++axis) {
      Call call;
      call.dims[t].d[axis] += 1;
      // Only A knows how many groups and states there are; the others then disagree with it.
      CHECK(Configure(call) != 0 && ChangeShape(call) != 0);
      if (t != kY) CHECK(Shapes(call).status != 0);
    }
    for (int rank : {0, 1, 4, 8, -1}) {
      Call call;
      call.dims[t].nbDims = rank;
      CHECK(Configure(call) != 0 && ChangeShape(call) != 0);
    }
    Call call;
    call.types[t] = DataType::kINT32;
    CHECK(Configure(call) != 0 && ChangeShape(call) != 0);
  }
  Call uneven;
  uneven.groups = 4;
  uneven.Shape();
  CHECK(Configure(uneven) != 0);
  for (int64_t Call::* size :
       {&Call::rows, &Call::length, &Call::channels, &Call::groups, &Call::states}) {
    Call empty;
    empty.*size = 0;
    empty.Shape();
    CHECK(Configure(empty) != 0 && ChangeShape(empty) != 0 && Shapes(empty).status != 0);
  }
  Call many;
  many.states = 1025;
  many.Shape();
  CHECK(Configure(many) != 0);
  const auto descs = Call().Dynamic();
  const auto fixed = Call().Static();
  const PluginPointer plugin = Create();
  CHECK(Build(*plugin).configurePlugin(descs.data(), 6, &descs[kY], 1) != 0);
  CHECK(Build(*plugin).configurePlugin(descs.data(), kInputs, &descs[kY], 0) != 0);
  CHECK(Runtime(*plugin).onShapeChange(fixed.data(), 8, &fixed[kY], 1) != 0);
}

// --- enqueue
// --------------------------------------------------------------------------------------

struct Data {
  std::vector<float> values[kTensors];

  explicit Data(const Call& call) {
    uint32_t state = 1;
    for (int t = 0; t < kTensors; ++t) {
      size_t count = 1;
      for (int i = 0; i < call.dims[t].nbDims; ++i) count *= call.dims[t].d[i];
      for (size_t i = 0; i < count; ++i) {
        state = state * 1664525u + 1013904223u;
        const float x = static_cast<float>(state >> 8) / (1 << 23) - 1;
        // Exact in half precision.
        values[t].push_back(t == kA ? -std::exp(x) : std::round(x * 256) / 256);
      }
    }
  }
};

std::vector<double> Expected(const Call& k, const Data& data) {
  const auto& v = data.values;
  std::vector<double> y(v[kU].size());
  for (int64_t row = 0; row < k.rows; ++row) {
    for (int64_t d = 0; d < k.channels; ++d) {
      const int64_t parameter = row / (k.rows / k.groups) * k.channels + d;
      std::vector<double> h(k.states);
      for (int64_t t = 0; t < k.length; ++t) {
        const int64_t step = row * k.length + t, at = step * k.channels + d;
        const double delta = std::log1p(std::exp(double{v[kDelta][at]} + v[kDeltaBias][parameter]));
        y[at] = double{v[kD][parameter]} * v[kU][at];
        for (int64_t n = 0; n < k.states; ++n) {
          h[n] = std::exp(delta * v[kA][parameter * k.states + n]) * h[n] +
                 delta * v[kU][at] * v[kB][step * k.states + n];
          y[at] += h[n] * v[kC][step * k.states + n];
        }
      }
    }
  }
  return y;
}

void TestEnqueue(DataType type) {
  const Call call(type);
  Data data(call);
  std::vector<__half> halves[kTensors];
  const void* inputs[kInputs];
  for (int t = 0; t < kTensors; ++t) {
    for (float x : data.values[t]) halves[t].push_back(__float2half_rn(x));
    const void* as_float = data.values[t].data();
    if (t < kInputs) inputs[t] = call.types[t] == kHalf ? halves[t].data() : as_float;
  }
  const std::vector<double> expected = Expected(call, data);
  void* output = data.values[kY].data();
  if (type == kHalf) output = halves[kY].data();
  const auto descs = call.Static();
  const PluginPointer plugin = Create();
  IPluginV3OneRuntime& runtime = Runtime(*plugin);
  int somewhere;
  const auto stream = reinterpret_cast<cudaStream_t>(&somewhere);
  CHECK(runtime.enqueue(descs.data(), &descs[kY], inputs, &output, nullptr, stream) == 0);
  CHECK(mambapro::EmulatedStream() == stream);
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double y = type == kHalf ? __half2float(halves[kY][i]) : data.values[kY][i];
    worst = std::fmax(worst, std::fabs(y - expected[i]));
  }
  // Absolute; values are below 8. Half rounds y to 11 bits.
  CHECK(worst < (type == kHalf ? 4e-3 : 1e-5));

  auto wrong = descs;
  wrong[kB].dims.d[2] = 3;
  CHECK(runtime.enqueue(wrong.data(), &wrong[kY], inputs, &output, nullptr, nullptr) != 0);
  mambapro::Emulation().launch_error = cudaErrorInvalidConfiguration;
  CHECK(runtime.enqueue(descs.data(), &descs[kY], inputs, &output, nullptr, stream) != 0);
  mambapro::Emulation().launch_error = cudaSuccess;
  Call empty(type);
  empty.length = 0;
  empty.Shape();
  const auto none = empty.Static();
  CHECK(runtime.enqueue(none.data(), &none[kY], inputs, &output, nullptr, nullptr) != 0);
}

}  // namespace

int main() {
  TestCreatorAndCore();
  TestFields();
  TestSerializeAndClone();
  TestFormatCombinations();
  TestOutputTypes();
  TestOutputShapes();
  TestBadCalls();
  TestEnqueue(kFloat);
  TestEnqueue(kHalf);
  return Failures();
}
