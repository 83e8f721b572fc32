// How a weight lies for AMX: panels of kPanel columns, one after the other; in each, from the top,
// pairs of tiles of kTile columns and TileDepth rows; in a tile, four rows of a column side by
// side.
#pragma once

#include <cstdint>

namespace mambapro {

constexpr int64_t kTile = 16;
constexpr int64_t kPanel = 2 * kTile;

// Rows of a weight that a tile holds; it divides `depth`, a multiple of kProductStep.
constexpr int64_t TileDepth(int64_t depth) { return depth % 64 == 0 ? 64 : 32; }

}  // namespace mambapro
