// Constants of the CPU scan that do not depend on the instruction set.
#pragma once

namespace mambapro {

constexpr int kMaxStates = 256;  // a task keeps the states of its channels on its stack
constexpr float kLog2E = 1.44269504088896340736f;

// Both minimax in relative error, fitted in double by Lawson's iteration.
// 2^f on [-1/2, 1/2]: 7.5e-8 before rounding, 2.4e-7 in float32.
constexpr float kExp2[6] = {1.00000012f,  0.693146944f,  0.240221202f,
                            0.0555071309f, 0.00967554189f, 0.00132764713f};
// 2 atanh(s) / s in s^2 on [0, 1/9]: 4e-9 before rounding.
constexpr int kAtanhTerms = 5;
constexpr float kAtanh[kAtanhTerms] = {2.0f, 0.666663170f, 0.400249094f, 0.279606044f, 0.281783342f};

}  // namespace mambapro
