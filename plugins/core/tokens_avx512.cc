// The work between INT8 products for one instruction set; the build gives this file its flags.
#define MAMBAPRO_SET avx512
#define MAMBAPRO_LANES 16
#include "tokens_lanes.h"
