#define MAMBAPRO_SET plain
#define MAMBAPRO_LANES 4
#include "scan_lanes.h"
