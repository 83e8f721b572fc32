// CHECK for the native tests: counts and prints what does not hold; return Failures() from main.
#pragma once

#include <cstdio>

inline int& FailureCount() {
  static int count = 0;
  return count;
}

#define CHECK(condition)                                                         \
  do {                                                                           \
    if (!(condition)) {                                                          \
      std::printf("%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition); \
      ++FailureCount();                                                          \
    }                                                                            \
  } while (false)

inline int Failures() {
  std::printf("%d failure%s\n", FailureCount(), FailureCount() == 1 ? "" : "s");
  return FailureCount() != 0;
}
