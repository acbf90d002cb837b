// Per-level anomaly maps, A_l = 1 - cos(teacher, student) over channels, for all levels and images
// in one launch. fp16 in, fp32 accumulation, fp32 out. Reads every feature once: memory bound.
//
// Two zero vectors agree (0), one zero vector does not (1). A non-finite distance marks the image as
// poisoned for this frame; the map kernel then makes the whole map +inf (as engine/score_map.py).
//
// Explicit fmaf and IEEE sqrt and division (built with --fmad=false): device and CPU agree in bits.
#include "portable.cuh"

struct FeatureLevel {
  const void* teacher;  // fp16, 16-byte aligned
  const void* student;
  int channels;
  int pixels;       // height * width of the level
  int first_pixel;  // of this level inside one image's maps
  int first_block;  // of this level inside the grid
  int lanes;        // HWC8 only: threads that share one pixel, a power of two up to 32
};

struct CosineParameters {
  FeatureLevel level[MAX_LEVELS];
  float* maps;                  // [image][all levels' pixels]
  Result* results;              // [image], reset here for the map kernel that follows
  unsigned int* poisoned;       // [image], holds the number of the last frame that was not finite
  const unsigned int* frame;    // the host's frame counter
  int levels;
  int map_pixels;               // of all levels together
};

struct Sums {
  float dot, teacher, student;
};

__device__ __forceinline__ void add_pair(Sums& sums, float t, float s) {
  sums.dot = fmaf(t, s, sums.dot);
  sums.teacher = fmaf(t, t, sums.teacher);
  sums.student = fmaf(s, s, sums.student);
}

__device__ __forceinline__ int level_of_block(const CosineParameters& p) {
  int level = 0;
  while (level + 1 < p.levels && (int)blockIdx.x >= p.level[level + 1].first_block) level++;
  return level;
}

__device__ __forceinline__ void reset_result(const CosineParameters& p) {
  if (blockIdx.x == 0 && threadIdx.x == 0) p.results[blockIdx.z] = Result{0ull, 0u, 0u};
}

__device__ __forceinline__ void store_distance(const CosineParameters& p, int pixel, Sums sums) {
  // fp16 squares never underflow in fp32, so "zero" is exact. `== 0` is false for NaN: it stays NaN.
  const bool no_teacher = sums.teacher == 0.0f, no_student = sums.student == 0.0f;
  float distance = no_teacher && no_student ? 0.0f : 1.0f;
  if (!no_teacher && !no_student)
    distance = 1.0f - sums.dot / (sqrtf(sums.teacher) * sqrtf(sums.student));
  if (!(fabsf(distance) <= 3.0e38f)) p.poisoned[blockIdx.z] = *p.frame;
  p.maps[(size_t)blockIdx.z * p.map_pixels + pixel] = distance;
}

// Channels last (TensorRT's HWC8 when channels % 8 == 0; torch channels_last): `lanes` threads per
// pixel, 16-byte loads of 8 channels. grid = (blocks of all levels, 1, images), block = 256.
extern "C" __global__ void __launch_bounds__(256) cosine_hwc8(const CosineParameters p) {
  reset_result(p);
  const FeatureLevel level = p.level[level_of_block(p)];
  const int slot = (int)threadIdx.x / level.lanes;
  const int lane = (int)threadIdx.x % level.lanes;
  const int pixel = ((int)blockIdx.x - level.first_block) * (256 / level.lanes) + slot;
  // Threads past the level's end still take part in the shuffles below, with nothing to add.
  const bool inside = pixel < level.pixels;

  Sums sums = {0.0f, 0.0f, 0.0f};
  if (inside) {
    const size_t base = ((size_t)blockIdx.z * level.pixels + pixel) * level.channels;
    const uint4* teacher = (const uint4*)((const __half*)level.teacher + base);
    const uint4* student = (const uint4*)((const __half*)level.student + base);
#pragma unroll 4
    for (int group = lane; group < level.channels / 8; group += level.lanes) {
      const uint4 packed_t = __ldg(teacher + group), packed_s = __ldg(student + group);
      const __half2* pairs_t = reinterpret_cast<const __half2*>(&packed_t);
      const __half2* pairs_s = reinterpret_cast<const __half2*>(&packed_s);
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const float2 t = __half22float2(pairs_t[i]), s = __half22float2(pairs_s[i]);
        add_pair(sums, t.x, s.x);
        add_pair(sums, t.y, s.y);
      }
    }
  }
  for (int mask = level.lanes / 2; mask > 0; mask /= 2) {
    sums.dot += __shfl_xor_sync(0xffffffffu, sums.dot, mask);
    sums.teacher += __shfl_xor_sync(0xffffffffu, sums.teacher, mask);
    sums.student += __shfl_xor_sync(0xffffffffu, sums.student, mask);
  }
  if (inside && lane == 0) store_distance(p, level.first_pixel + pixel, sums);
}
SKRD4AD_KERNEL(cosine_hwc8, CosineParameters)

// Channels first: 64 neighbouring pixels per block, two per thread, channels dealt to 8 warps.
// Every level has a multiple of 4 pixels (sizes are multiples of 32), so a pair never straddles
// the end. grid = (blocks of all levels, 1, images), block = 256.
extern "C" __global__ void __launch_bounds__(256) cosine_linear(const CosineParameters p) {
  __shared__ Sums partial[8][64];
  reset_result(p);
  const FeatureLevel level = p.level[level_of_block(p)];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int first = ((int)blockIdx.x - level.first_block) * 64;
  const int pixel = first + 2 * lane;

  Sums even = {0.0f, 0.0f, 0.0f}, odd = {0.0f, 0.0f, 0.0f};
  if (pixel < level.pixels) {
    const size_t base = (size_t)blockIdx.z * level.channels * level.pixels + pixel;
    const __half* teacher = (const __half*)level.teacher + base;
    const __half* student = (const __half*)level.student + base;
#pragma unroll 4
    for (int channel = warp; channel < level.channels; channel += 8) {
      const size_t offset = (size_t)channel * level.pixels;
      const float2 t = __half22float2(__ldg((const __half2*)(teacher + offset)));
      const float2 s = __half22float2(__ldg((const __half2*)(student + offset)));
      add_pair(even, t.x, s.x);
      add_pair(odd, t.y, s.y);
    }
  }
  partial[warp][2 * lane] = even;
  partial[warp][2 * lane + 1] = odd;
  __syncthreads();
  if (threadIdx.x < 64 && first + (int)threadIdx.x < level.pixels) {
    Sums sums = partial[0][threadIdx.x];
    for (int other = 1; other < 8; other++) {
      sums.dot += partial[other][threadIdx.x].dot;
      sums.teacher += partial[other][threadIdx.x].teacher;
      sums.student += partial[other][threadIdx.x].student;
    }
    store_distance(p, level.first_pixel + first + (int)threadIdx.x, sums);
  }
}
SKRD4AD_KERNEL(cosine_linear, CosineParameters)
