// The work between INT8 products for one instruction set; the build gives this file its flags.
#define MAMBAPRO_SET avx2
#define MAMBAPRO_LANES 8
#include "tokens_lanes.h"
