// One translation unit, one cubin: what `skrd4ad compile` stores in a plan.
#include "cosine_map.cu"
#include "anomaly_map.cu"
#include "preprocess.cu"
