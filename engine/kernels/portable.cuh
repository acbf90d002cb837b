// What every kernel file starts with. nvcc sees the CUDA headers; the test suite compiles the very
// same files with g++ and force-includes tests/engine/shim/cuda_host.h, which defines SKRD4AD_CPU.
#pragma once
#ifndef SKRD4AD_CPU
#include <cuda_fp16.h>
#include <stdint.h>
// On the CPU this makes a kernel callable from outside; on the device the driver finds it by name.
#define SKRD4AD_KERNEL(name, Parameters)
#endif

// Written once per image and frame, read back by the host: 16 bytes.
//   best    float bits of the largest map value (never negative) in the upper half, ~index of the
//           first pixel that has it in the lower half: one 64-bit atomicMax gives max and argmax
//   frame   the host's frame counter, written by whichever tile finishes last
//   tiles   how many tiles have finished; a result with another count is not a result
struct Result {
  unsigned long long best;
  unsigned int frame;
  unsigned int tiles;
};

constexpr int MAX_LEVELS = 4;
