// Constants of the scan that depend on no instruction set.
#pragma once

namespace mambapro {

constexpr int kMaxStates = 256;          // a task keeps the states of its channels on its stack
constexpr float kLargestFactor = 1e18f;  // of an exponent; powers of it are 0 long before
constexpr float kLog2E = 1.44269504088896340736f;

// All minimax in relative error, fitted in double by Lawson's iteration. The powers are exactly 1
// at 0: a decay that is nearly 1 is multiplied up over hundreds of steps, and so would its error
// be. 2^f on [-1/2, 1/2]: 9.2e-8 before rounding.
constexpr float kExp2[6] = {1.0f,          0.693147004f,   0.240222424f,
                            0.0555073358f, 0.00967151299f, 0.00132647273f};
// 2^f = 1 + f (c0 + c1 f) on [-1/64, 1/64]: 5.3e-8 before rounding.
constexpr float kExp2Short[2] = {0.693157315f, 0.240226597f};
// 2^(i/32).
alignas(64) constexpr float kRoots[32] = {
    1.0f,        1.0218972f,  1.04427373f, 1.06714046f, 1.09050775f, 1.1143868f,  1.13878858f,
    1.1637249f,  1.18920708f, 1.21524739f, 1.24185777f, 1.26905096f, 1.29683959f, 1.32523668f,
    1.35425556f, 1.38390994f, 1.41421354f, 1.44518077f, 1.47682619f, 1.50916445f, 1.54221082f,
    1.5759809f,  1.61049032f, 1.64575553f, 1.68179286f, 1.71861935f, 1.75625217f, 1.79470909f,
    1.8340081f,  1.87416768f, 1.91520655f, 1.95714414f,
};
// log(1 + z) / z on [0, 1], for the CPU: 1.9e-7 before rounding. No division: AVX-512 does one in
// 10 to 16 cycles.
constexpr int kLog1pTerms = 8;
constexpr float kLog1p[kLog1pTerms] = {0.999999821f, -0.499974042f, 0.332754791f,  -0.244954586f,
                                       0.177452311f, -0.107681565f, 0.0440895297f, -0.00853917934f};
// 2 atanh(s) / s in s^2 on [0, 1/9], for CUDA: 4e-9 before rounding.
constexpr int kAtanhTerms = 5;
constexpr float kAtanh[kAtanhTerms] = {2.0f, 0.666663170f, 0.400249094f, 0.279606044f,
                                       0.281783342f};

}  // namespace mambapro
