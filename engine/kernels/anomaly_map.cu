// From level maps to the anomaly map, its maximum and where it is: sum over levels of R A R^T with
// banded R (Gaussian blur x bilinear upsampling, float64 on the host), then a u8 copy for the wire.
#include "portable.cuh"

constexpr int TILE = 32;      // output pixels per block and side
constexpr int MAX_SPAN = 40;  // level pixels a tile may reach over per side; the host checks it

struct Band {
  const int* first_row;      // [height] first level row an output row reads
  const int* first_column;   // [width]
  const float* row_weights;  // [height][row_taps]
  const float* column_weights;
  int width;        // of the level
  int first_pixel;  // of the level inside one image's maps
  int row_taps;
  int column_taps;
};

struct MapParameters {
  Band band[MAX_LEVELS];
  const float* maps;             // [image][map_pixels], from the cosine kernel
  float* anomaly;                // [image][height][width]; null when only the score is wanted
  Result* results;               // [image]
  const unsigned int* poisoned;  // [image]
  const unsigned int* frame;
  int levels;
  int map_pixels;
  int height;
  int width;
};

// grid = (width / 32, height / 32, images), block = (32, 8): a thread makes four rows of its column.
extern "C" __global__ void __launch_bounds__(256) anomaly_map(const MapParameters p) {
  __shared__ float level_tile[MAX_SPAN][MAX_SPAN + 1];
  __shared__ float wide[MAX_SPAN][TILE];
  __shared__ unsigned long long warp_best[8];
  const int tx = threadIdx.x, ty = threadIdx.y, thread = ty * TILE + tx;
  const int x = blockIdx.x * TILE + tx, top = blockIdx.y * TILE;
  const unsigned int frame = *p.frame;
  float value[4] = {0.0f, 0.0f, 0.0f, 0.0f};

  for (int l = 0; l < p.levels; l++) {
    const Band band = p.band[l];
    const float* level = p.maps + (size_t)blockIdx.z * p.map_pixels + band.first_pixel;
    const int left = band.first_column[blockIdx.x * TILE];
    const int columns = band.first_column[blockIdx.x * TILE + TILE - 1] + band.column_taps - left;
    const int upper = band.first_row[top];
    const int rows = band.first_row[top + TILE - 1] + band.row_taps - upper;
    for (int i = thread; i < rows * columns; i += 256)
      level_tile[i / columns][i % columns] =
          level[(size_t)(upper + i / columns) * band.width + left + i % columns];
    __syncthreads();
    const int from_column = band.first_column[x] - left;
    const float* across = band.column_weights + (size_t)x * band.column_taps;
    for (int row = ty; row < rows; row += 8) {
      float sum = 0.0f;
      for (int tap = 0; tap < band.column_taps; tap++)
        sum = fmaf(__ldg(across + tap), level_tile[row][from_column + tap], sum);
      wide[row][tx] = sum;
    }
    // The next level may overwrite level_tile once everyone is here, and `wide` only after its own
    // first barrier: two barriers per level are enough.
    __syncthreads();
#pragma unroll
    for (int j = 0; j < 4; j++) {
      const int y = top + ty + 8 * j;
      const int from_row = band.first_row[y] - upper;
      const float* down = band.row_weights + (size_t)y * band.row_taps;
      for (int tap = 0; tap < band.row_taps; tap++)
        value[j] = fmaf(__ldg(down + tap), wide[from_row + tap][tx], value[j]);
    }
  }

  const bool poisoned = p.poisoned[blockIdx.z] == frame;
  unsigned long long best = 0ull;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const unsigned int index = (unsigned int)((top + ty + 8 * j) * p.width + x);
    // fmaxf(NaN, 0) would be 0, a perfect part. Anything not finite must reject instead.
    const bool finite = !poisoned && fabsf(value[j]) <= 3.0e38f;
    const float kept = finite ? fmaxf(value[j], 0.0f) : __uint_as_float(0x7f800000u);
    if (p.anomaly) p.anomaly[(size_t)blockIdx.z * p.height * p.width + index] = kept;
    const unsigned long long key =
        ((unsigned long long)__float_as_uint(kept) << 32) | (0xffffffffu - index);
    best = key > best ? key : best;
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    const unsigned long long other = __shfl_xor_sync(0xffffffffu, best, mask);
    best = other > best ? other : best;
  }
  if (tx == 0) warp_best[ty] = best;
  __syncthreads();
  if (thread == 0) {
    for (int warp = 1; warp < 8; warp++) best = warp_best[warp] > best ? warp_best[warp] : best;
    Result* result = p.results + blockIdx.z;
    atomicMax(&result->best, best);
    __threadfence();  // the frame number may only appear after every tile's maximum
    if (atomicAdd(&result->tiles, 1u) + 1u == gridDim.x * gridDim.y) result->frame = frame;
  }
}
SKRD4AD_KERNEL(anomaly_map, MapParameters)

struct QuantiseParameters {
  const float* anomaly;  // [pixels]
  uint8_t* codes;        // [pixels], 4-byte aligned
  float scale;           // value of one code step
  int pixels;            // of all images together, a multiple of 4
};

// u8 map for the wire: rint(value / scale) clamped to 0..255; +inf gives 255.
// grid = (ceil(pixels / 1024), 1, 1), block = 256, four pixels per thread.
extern "C" __global__ void __launch_bounds__(256) quantise_map(const QuantiseParameters p) {
  const int first = ((int)blockIdx.x * 256 + (int)threadIdx.x) * 4;
  if (first >= p.pixels) return;
  unsigned int packed = 0;
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const float steps = rintf(__ldg(p.anomaly + first + i) / p.scale);
    // NaN fails both comparisons and gets the worst code.
    const unsigned int code = steps <= 0.0f ? 0u : steps < 255.0f ? (unsigned int)steps : 255u;
    packed |= code << (8 * i);
  }
  *reinterpret_cast<unsigned int*>(p.codes + first) = packed;
}
SKRD4AD_KERNEL(quantise_map, QuantiseParameters)
