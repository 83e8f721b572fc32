// The product on AMX's tiles; the build gives this file its flags.
//
// A task owns some panels of columns and walks down all rows: a block of 32 rows and 32 columns is
// summed in four tiles, and while the tiles work on the next one, vectors finish the one before.
#define MAMBAPRO_SET amx
#define MAMBAPRO_LANES 16
#include <algorithm>

#include "product.h"
#include "product_tiles.h"
#include "tokens_vectors.h"

namespace mambapro {
namespace amx {
namespace {

constexpr int kBlock = 32;            // rows of a block
constexpr int64_t kTaskColumns = 64;  // a cache line of y

// Sizes of the eight tiles, as ldtilecfg reads them: 0 to 3 hold sums, 4 and 5 rows of x, 6 and 7
// weights. With `rows` below kBlock the lower tiles shrink; one row at least, for none is illegal.
struct alignas(64) TileSizes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  TileSizes(int count, int64_t depth) {
    const int upper = std::min<int>(count, kTile), lower = std::max<int>(1, count - kTile);
    const int of_weights = static_cast<int>(depth / 4);
    const int sizes[] = {upper, upper, lower, lower, upper, lower, of_weights, of_weights};
    for (int i = 0; i < 8; ++i) {
      rows[i] = static_cast<uint8_t>(sizes[i]);
      row_bytes[i] = static_cast<uint16_t>(i == 4 || i == 5 ? depth : 64);
    }
  }
};

class Panel {
 public:
  Panel(const ProductParams& p, int64_t column)
      : p_(p), column_(column), depth_(TileDepth(p.depth)), quantise_(p.to) {
    for (int i = 0; i < 2; ++i) {
      const int64_t at = column + i * kTile;
      std::memcpy(&zero_[i], p.totals + at, sizeof(Int));
      zero_[i] *= static_cast<int32_t>(p.from.zero_point);
      scale_[i] = LoadAll(p.weight_scale + at) * Set(p.from.scale);
      bias_[i] = LoadAll(p.bias + at);
    }
  }

  void Run() {
    int configured = 0;
    for (int64_t row = 0; row < p_.rows; row += kBlock) {
      const int count = static_cast<int>(std::min<int64_t>(kBlock, p_.rows - row));
      if (count != configured) {
        const TileSizes sizes(configured = count, depth_);
        asm volatile("ldtilecfg %0" : : "m"(sizes));  // GCC 12's intrinsic reads 8 bytes only
      }
      int32_t* sums = sums_[row / kBlock % 2];
      Multiply(p_.x + row * p_.depth, count, sums);
      Finish(kBlock);
      pending_ = sums;
      left_ = count;
      y_ = p_.y + row * p_.columns + column_;
    }
    Finish(kBlock);
  }

 private:
  void Multiply(const uint8_t* x, int count, int32_t* sums) {
    const uint8_t* lower = count > kTile ? x + kTile * p_.depth : x;
    const int8_t* weight = p_.weight + column_ * p_.depth;
    const int64_t steps = p_.depth / depth_;
    const int rows = static_cast<int>((kBlock + steps - 1) / steps);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t k = 0; k < p_.depth; k += depth_, weight += kPanel * depth_) {
      _tile_loadd(4, x + k, p_.depth);
      _tile_loadd(6, weight, 64);
      _tile_dpbusd(0, 4, 6);
      _tile_loadd(7, weight + kTile * depth_, 64);
      _tile_dpbusd(1, 4, 7);
      _tile_loadd(5, lower + k, p_.depth);
      _tile_dpbusd(2, 5, 6);
      _tile_dpbusd(3, 5, 7);
      Finish(rows);
    }
    constexpr int kStride = sizeof(int32_t) * kPanel;
    _tile_stored(0, sums, kStride);
    _tile_stored(1, sums + kTile, kStride);
    _tile_stored(2, sums + kTile * kPanel, kStride);
    _tile_stored(3, sums + kTile * kPanel + kTile, kStride);
  }

  // Finishes up to `count` more rows of the block before.
  void Finish(int count) {
    for (; count > 0 && left_ > 0; --count, --left_, pending_ += kPanel, y_ += p_.columns) {
      for (int i = 0; i < 2; ++i) {
        Int sums;
        std::memcpy(&sums, pending_ + i * kTile, sizeof(sums));
        const Vec product = __builtin_convertvector(sums - zero_[i], Vec) * scale_[i] + bias_[i];
        StoreFirst(quantise_(Silu(product)), y_ + i * kTile, kTile);
      }
    }
  }

  const ProductParams& p_;
  const int64_t column_, depth_;
  const Quantiser quantise_;
  Int zero_[2];  // what the zero point of x adds to the sums
  Vec scale_[2], bias_[2];
  alignas(64) int32_t sums_[2][kBlock * kPanel];
  const int32_t* pending_ = nullptr;
  int left_ = 0;
  uint8_t* y_ = nullptr;
};

void ProductTask(void* context, int64_t index) {
  const ProductParams& p = *static_cast<const ProductParams*>(context);
  const int64_t end = std::min(p.columns, (index + 1) * kTaskColumns);
  for (int64_t column = index * kTaskColumns; column < end; column += kPanel) {
    Panel(p, column).Run();
  }
  _tile_release();
}

}  // namespace

void ProductSiluQuantize(const ProductParams& params, const ParallelFor& parallel) noexcept {
  const int64_t tasks = (params.columns + kTaskColumns - 1) / kTaskColumns;
  parallel.run(parallel.pool, tasks, ProductTask, const_cast<ProductParams*>(&params));
}

}  // namespace amx
}  // namespace mambapro
