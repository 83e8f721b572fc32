// The CPU scan for one instruction set; the build gives this file its flags.
#define MAMBAPRO_SET avx512
#define MAMBAPRO_LANES 16
#include "scan_lanes.h"
