// From a captured image to the network's input, bit for bit as engine/preprocess.py:
// (optional undistortion) -> ROI -> Pillow's antialiased bilinear resize in u8 -> table in fp16.
// Pillow's resize is integer arithmetic: horizontal pass first, 22-bit weights, u8 in between.
#include "portable.cuh"

constexpr int WEIGHT_BITS = 22;

__device__ __forceinline__ uint8_t rounded_u8(int sum) {
  return (uint8_t)min(sum >> WEIGHT_BITS, 255);  // weights are never negative
}

struct ResizeRowsParameters {
  const uint8_t* pixels;  // upper left pixel of the ROI; 3 channels, `pitch` bytes per row
  uint8_t* narrow;        // [rows][width][3]
  const int* first;       // [width] first source column
  const int* weights;     // [width][taps], zero past the last tap
  int pitch;
  int rows;
  int width;
  int taps;
};

// grid = (ceil(width / 32), ceil(rows / 8), 1), block = (32, 8)
extern "C" __global__ void __launch_bounds__(256) resize_rows(const ResizeRowsParameters p) {
  const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
  if (x >= p.width || y >= p.rows) return;
  const uint8_t* source = p.pixels + (size_t)y * p.pitch + (size_t)p.first[x] * 3;
  const int* weights = p.weights + (size_t)x * p.taps;
  int sum[3] = {1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1)};
  for (int tap = 0; tap < p.taps; tap++) {
    const int weight = __ldg(weights + tap);
    if (weight == 0) continue;  // padding: its pixel may lie outside the image
    for (int c = 0; c < 3; c++) sum[c] += weight * source[3 * tap + c];
  }
  uint8_t* target = p.narrow + ((size_t)y * p.width + x) * 3;
  for (int c = 0; c < 3; c++) target[c] = rounded_u8(sum[c]);
}
SKRD4AD_KERNEL(resize_rows, ResizeRowsParameters)

struct ResizeColumnsParameters {
  const uint8_t* narrow;  // [rows][width][3]
  const int* first;       // [height] first source row
  const int* weights;     // [height][taps]
  const __half* table;    // [3][256] normalised value of each level of R, G, B
  __half* input;          // [3][height][width]
  int width;
  int height;
  int taps;
  int swap_red_blue;      // 1 when the source is BGR
};

// grid = (ceil(width / 32), ceil(height / 8), 1), block = (32, 8)
extern "C" __global__ void __launch_bounds__(256) resize_columns(const ResizeColumnsParameters p) {
  const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
  if (x >= p.width || y >= p.height) return;
  const uint8_t* source = p.narrow + ((size_t)p.first[y] * p.width + x) * 3;
  const int* weights = p.weights + (size_t)y * p.taps;
  int sum[3] = {1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1), 1 << (WEIGHT_BITS - 1)};
  for (int tap = 0; tap < p.taps; tap++) {
    const int weight = __ldg(weights + tap);
    if (weight == 0) continue;
    for (int c = 0; c < 3; c++) sum[c] += weight * source[(size_t)tap * p.width * 3 + c];
  }
  for (int c = 0; c < 3; c++) {
    const uint8_t level = rounded_u8(sum[p.swap_red_blue ? 2 - c : c]);
    p.input[((size_t)c * p.height + y) * p.width + x] = p.table[c * 256 + level];
  }
}
SKRD4AD_KERNEL(resize_columns, ResizeColumnsParameters)

struct UndistortParameters {
  const uint8_t* pixels;   // [height][pitch]
  uint8_t* straight;       // [out_height][out_width][3]
  const int16_t* whole;    // [out_height][out_width][2] integer source x, y (CV_16SC2)
  const uint16_t* fraction;  // [out_height][out_width] 32 * (y fraction) + (x fraction), 1/32 px
  int pitch;
  int width;
  int height;
  int out_width;
  int out_height;
};

// cv2.remap with fixed-point maps, INTER_LINEAR, black border.
// grid = (ceil(out_width / 32), ceil(out_height / 8), 1), block = (32, 8)
extern "C" __global__ void __launch_bounds__(256) undistort(const UndistortParameters p) {
  const int x = blockIdx.x * 32 + threadIdx.x, y = blockIdx.y * 8 + threadIdx.y;
  if (x >= p.out_width || y >= p.out_height) return;
  const size_t index = (size_t)y * p.out_width + x;
  const int sx = p.whole[2 * index], sy = p.whole[2 * index + 1];
  const int fx = p.fraction[index] & 31, fy = (p.fraction[index] >> 5) & 31;
  int sum[3] = {512, 512, 512};  // half of 32 * 32
  for (int corner = 0; corner < 4; corner++) {
    const int cx = sx + (corner & 1), cy = sy + (corner >> 1);
    const int weight = (corner & 1 ? fx : 32 - fx) * (corner >> 1 ? fy : 32 - fy);
    if (weight == 0 || cx < 0 || cy < 0 || cx >= p.width || cy >= p.height) continue;
    const uint8_t* source = p.pixels + (size_t)cy * p.pitch + (size_t)cx * 3;
    for (int c = 0; c < 3; c++) sum[c] += weight * source[c];
  }
  for (int c = 0; c < 3; c++) p.straight[3 * index + c] = (uint8_t)(sum[c] >> 10);
}
SKRD4AD_KERNEL(undistort, UndistortParameters)
