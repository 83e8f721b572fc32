// The CPU scan for one instruction set; the build gives this file its flags.
#define MAMBAPRO_SET plain
#define MAMBAPRO_LANES 4
#include "scan_lanes.h"
