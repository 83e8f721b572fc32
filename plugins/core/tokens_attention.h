// Attention with the quantisation of its result. Included by tokens_lanes.h only.
//
// A task takes one head of one row and up to kQueries of its tokens. Keys come in tiles; maximum
// and sum of a query's exponentials are corrected from tile to tile: Milakov and Gimelshein,
// "Online normalizer calculation for softmax", 2018.
#pragma once

#include <algorithm>

#include "tokens_vectors.h"

namespace mambapro {
namespace MAMBAPRO_SET {
namespace {

constexpr int kBlock = 6;                           // queries whose sums stay in registers
constexpr int kQueries = 144;                       // a multiple of kBlock
constexpr int kKeys = 48;                           // a multiple of the vectors below
constexpr int kKeyVectors = kLanes == 16 ? 3 : 2;   // sums of a query in registers: q k^T,
constexpr int kHeadVectors = kLanes == 16 ? 4 : 2;  // p v
constexpr int kHeadStep = kHeadVectors * kLanes;
constexpr int kLineFloats = 16;    // of a cache line
constexpr float kMasked = -1e20f;  // far below any score, and Exp2 takes it

static_assert(kQueries % kBlock == 0 && kKeys % (kKeyVectors * kLanes) == 0);
static_assert(kMaxHeadSize % kHeadStep == 0);

inline int64_t QueryParts(const AttentionParams& p) { return (p.tokens + kQueries - 1) / kQueries; }

// Transposes a square: each step takes the highest bit of a value's row index to be the lowest of
// its column, and the other way round.
inline void Transpose(Vec (&rows)[kLanes]) {
  Int low{}, high{};
  for (int i = 0; i < kLanes; ++i) low[i] = i / 2 + i % 2 * kLanes, high[i] = low[i] + kLanes / 2;
  for (int step = 1; step < kLanes; step *= 2) {
    Vec next[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = __builtin_shuffle(rows[i], rows[i + kLanes / 2], low);
      next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + kLanes / 2], high);
    }
    std::copy(next, next + kLanes, rows);
  }
}

// Adds the product of kBlock rows of `left` and a matrix of kVectors vectors a row to `sums`.
template <int kVectors>
inline void Multiply(const float* const* left, const float* right, int64_t stride, int64_t deep,
                     Vec (&sums)[kBlock][kVectors]) {
  for (int64_t k = 0; k < deep; ++k, right += stride) {
    Vec row[kVectors];
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) row[j] = LoadAll(right + j * kLanes);
#pragma GCC unroll 8
    for (int i = 0; i < kBlock; ++i) {
      const Vec factor = Set(left[i][k]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[i][j] += factor * row[j];
    }
  }
}

class Head {
 public:
  Head(const AttentionParams& p, int64_t index)
      : p_(p),
        stride_(p.rows * p.heads * p.head_size),
        offset_(index * p.head_size),
        width_((p.head_size + kHeadStep - 1) / kHeadStep * kHeadStep) {}

  void Run(int64_t start) {
    queries_ = static_cast<int>(std::min<int64_t>(kQueries, p_.tokens - start));
    for (int64_t first = 0; first < p_.tokens; first += kKeys) {
      LoadTile(first);
      for (int block = 0; block < queries_; block += kBlock) {
        Attend(start, block, first == 0);
        FetchNext(first / kKeys, block);
      }
    }
    Finish(start);
  }

 private:
  // Transposes a tile of keys, with the factors of the exponent, and pads values with zeros.
  void LoadTile(int64_t first) {
    const int count = static_cast<int>(std::min<int64_t>(kKeys, p_.tokens - first));
    int64_t at[kKeys];  // beyond the last token it repeats that, masked
    for (int k = 0; k < kKeys; ++k) {
      mask_[k] = k < count ? 0.0f : kMasked;
      at[k] = offset_ + (first + std::min(k, count - 1)) * stride_;
      float* to = values_ + k * width_;
      std::memcpy(to, p_.value + at[k], sizeof(float) * p_.head_size);
      std::fill(to + p_.head_size, to + width_, 0.0f);
    }
    for (int k = 0; k < kKeys; k += kLanes) LoadKeys(at + k, k);
  }

  void LoadKeys(const int64_t* at, int column) {
    const Vec factor = Set(p_.factor * kLog2E);
    ForLanes(p_.head_size, [&](int64_t i, int lanes) {
      Vec rows[kLanes];
      for (int k = 0; k < kLanes; ++k) rows[k] = LoadLanes(p_.key + at[k] + i, lanes) * factor;
      Transpose(rows);
      for (int k = 0; k < lanes; ++k) StoreFirst(rows[k], keys_ + (i + k) * kKeys + column, kLanes);
    });
  }

  // Asks for some tokens of the next head, which a thread is likely to do next: they lie in pieces
  // too short and too far apart for a processor to foresee. All calls together ask for all tokens.
  // GCC 12 drops calls of what only prefetches, unless it must inline them.
  __attribute__((always_inline)) void FetchNext(int64_t tile, int block) const {
    const int64_t next = offset_ + p_.head_size;
    if (next >= stride_) return;
    const int64_t tiles = (p_.tokens + kKeys - 1) / kKeys;
    const int64_t end = std::min<int64_t>(p_.tokens, block + kBlock);
    for (int64_t token = block + tile; token < end; token += tiles) {
      for (const float* from : {p_.query, p_.key, p_.value}) {
        for (int64_t i = 0; i < p_.head_size; i += kLineFloats) {
          __builtin_prefetch(from + next + token * stride_ + i, 0, 2);
        }
      }
    }
  }

  // Adds what a tile gives to kBlock queries from `block` on. Beyond the last query it repeats
  // that.
  void Attend(int64_t start, int block, bool fresh) {
    const float* rows[kBlock];
    for (int i = 0; i < kBlock; ++i) {
      rows[i] = p_.query + offset_ + (start + std::min(block + i, queries_ - 1)) * stride_;
    }
    for (int j = 0; j < kKeys; j += kKeyVectors * kLanes) Score(rows, j);
    if (fresh) {
      std::fill(most_ + block, most_ + block + kBlock, kMasked);
      std::fill(sum_ + block, sum_ + block + kBlock, 0.0f);
    }
    alignas(64) float change[kChanges];
    Weigh(block, change);
    for (int i = 0; i < kBlock; ++i) rows[i] = weights_ + i * kKeys;
    for (int64_t j = 0; j < width_; j += kHeadStep) Gather(rows, block, j, fresh, change);
  }

  void Score(const float* const* rows, int column) {
    Vec sums[kBlock][kKeyVectors] = {};
    Multiply(rows, keys_ + column, kKeys, p_.head_size, sums);
    for (int i = 0; i < kBlock; ++i) {
      for (int j = 0; j < kKeyVectors; ++j) {
        const int at = column + j * kLanes;
        const Vec masked = sums[i][j] + LoadAll(mask_ + at);
        StoreFirst(masked, weights_ + i * kKeys + at, kLanes);
      }
    }
  }

  // Turns scores into weights against the new maximum; `change` is what the old one's sums are due.
  void Weigh(int block, float* change) {
    for (int i = 0; i < kBlock; ++i) {
      float* weights = weights_ + i * kKeys;
      Vec most = LoadAll(weights);
      for (int k = kLanes; k < kKeys; k += kLanes) most = Larger(most, LoadAll(weights + k));
      float largest = most_[block + i];
      for (int lane = 0; lane < kLanes; ++lane) largest = std::max(largest, most[lane]);
      change[i] = most_[block + i] - largest;
      most_[block + i] = largest;
      Vec sum{};
      for (int k = 0; k < kKeys; k += kLanes) {
        const Vec weight = Exp2(LoadAll(weights + k) - largest);
        StoreFirst(weight, weights + k, kLanes);
        sum += weight;
      }
      added_[i] = Sum(sum);
    }
    std::fill(change + kBlock, change + kChanges, 0.0f);
    for (int i = 0; i < kChanges; i += kLanes) {
      StoreFirst(Exp2(LoadAll(change + i)), change + i, kLanes);
    }
    for (int i = 0; i < kBlock; ++i) sum_[block + i] = sum_[block + i] * change[i] + added_[i];
  }

  void Gather(const float* const* rows, int block, int64_t column, bool fresh,
              const float* change) {
    Vec sums[kBlock][kHeadVectors];
    for (int i = 0; i < kBlock; ++i) {
      const float* from = result_ + (block + i) * width_ + column;
      for (int j = 0; j < kHeadVectors; ++j) {
        sums[i][j] = fresh ? Vec{} : LoadAll(from + j * kLanes) * Set(change[i]);
      }
    }
    Multiply(rows, values_ + column, width_, kKeys, sums);
    for (int i = 0; i < kBlock; ++i) {
      float* to = result_ + (block + i) * width_ + column;
      for (int j = 0; j < kHeadVectors; ++j) StoreFirst(sums[i][j], to + j * kLanes, kLanes);
    }
  }

  void Finish(int64_t start) {
    const Quantiser quantise(p_.to);
    for (int i = 0; i < queries_; ++i) {
      const Vec factor = Set(1.0f / sum_[i]);
      const float* from = result_ + i * width_;
      uint8_t* to = p_.y + offset_ + (start + i) * stride_;
      ForLanes(p_.head_size, [&](int64_t at, int lanes) {
        StoreFirst(quantise(LoadAll(from + at) * factor), to + at, lanes);
      });
    }
  }

  static Vec Larger(Vec a, Vec b) { return a > b ? a : b; }

  static constexpr int kChanges = (kBlock + kLanes - 1) / kLanes * kLanes;

  const AttentionParams& p_;
  const int64_t stride_, offset_, width_;  // of a token; of this head; of a padded head
  int queries_ = 0;
  alignas(64) float mask_[kKeys];
  alignas(64) float keys_[kMaxHeadSize * kKeys];       // (head_size, kKeys)
  alignas(64) float values_[kKeys * kMaxHeadSize];     // (kKeys, width)
  alignas(64) float weights_[kBlock * kKeys];          // scores, then their exponentials
  alignas(64) float result_[kQueries * kMaxHeadSize];  // (kQueries, width)
  float most_[kQueries], sum_[kQueries], added_[kBlock];
};

void AttentionTask(void* context, int64_t index) {
  const AttentionParams& p = *static_cast<const AttentionParams*>(context);
  const int64_t parts = QueryParts(p);
  Head(p, index / parts).Run(index % parts * kQueries);
}

}  // namespace
}  // namespace MAMBAPRO_SET
}  // namespace mambapro
