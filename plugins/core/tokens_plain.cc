// The work between INT8 products for one instruction set; the build gives this file its flags.
#define MAMBAPRO_SET plain
#define MAMBAPRO_LANES 4
#include "tokens_lanes.h"
