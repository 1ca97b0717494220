// Functions that a device runs as the host does: their steps are exactly rounded operations and comparisons,
// so that both give the same bits wherever nothing is contracted.
#pragma once

#ifdef __CUDACC__
#define ASSAY_ON_BOTH __host__ __device__
#else
#define ASSAY_ON_BOTH
#endif
