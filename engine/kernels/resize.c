/* Pillow's antialiased bilinear resize of interleaved uint8 RGB, bit for bit (engine/resize.py).
 *
 * Each output pixel is a sum of `count[i]` neighbours from `first[i]` on, with 22-bit integer weights
 * (engine/resize_band.py), rounded. The weights are positive and sum up to 1 but for rounding, so
 * that sums fit in 32 bits and no result needs clipping.
 *
 * Plain loops over lines of int32, which GCC and Clang vectorise at -O3. No Python header is needed.
 */
#include <stdint.h>
#include <string.h>

#define WEIGHT_BITS 22
#define HALF (1 << (WEIGHT_BITS - 1))

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "default")))
#else
#define FOR_EACH_CPU
#endif

/* Raised with every change of a parameter (engine/native_resize.py). */
const int skrd4ad_resize_version = 1;

/* A pixel and the red of the next one: three lanes would cost as much as four. */
typedef int32_t pixel __attribute__((vector_size(16)));

/* (height, from_width, 3) -> (height, to_width, 3).
 * `wide` holds 3 * from_width + 1 int32, `sums` 3 * to_width + 1. */
FOR_EACH_CPU
void skrd4ad_resize_across(const uint8_t *restrict source, int64_t height, int64_t from_width,
                           uint8_t *restrict target, int64_t to_width,
                           const int32_t *restrict first, const int32_t *restrict count,
                           const int32_t *restrict weights, int64_t taps, int32_t *restrict wide,
                           int32_t *restrict sums)
{
    wide[3 * from_width] = 0;
    for (int64_t y = 0; y < height; y++) {
        const uint8_t *line = source + 3 * from_width * y;
        for (int64_t i = 0; i < 3 * from_width; i++)
            wide[i] = line[i];
        for (int64_t x = 0; x < to_width; x++) {
            const int32_t *from = wide + 3 * (int64_t)first[x];
            const int32_t *weight = weights + taps * x;
            pixel sum = {HALF, HALF, HALF, HALF};
            for (int32_t tap = 0; tap < count[x]; tap++) {
                pixel one;
                memcpy(&one, from + 3 * tap, sizeof one);
                sum += one * weight[tap];
            }
            memcpy(sums + 3 * x, &sum, sizeof sum);
        }
        uint8_t *out = target + 3 * to_width * y;
        for (int64_t i = 0; i < 3 * to_width; i++)
            out[i] = (uint8_t)(sums[i] >> WEIGHT_BITS);
    }
}

/* (from_height, stride) -> (to_height, stride), `stride` bytes a line; `sums` holds stride int32. */
FOR_EACH_CPU
void skrd4ad_resize_down(const uint8_t *restrict source, int64_t stride, uint8_t *restrict target,
                         int64_t to_height, const int32_t *restrict first,
                         const int32_t *restrict count, const int32_t *restrict weights,
                         int64_t taps, int32_t *restrict sums)
{
    for (int64_t y = 0; y < to_height; y++) {
        for (int64_t i = 0; i < stride; i++)
            sums[i] = HALF;
        for (int32_t tap = 0; tap < count[y]; tap++) {
            const uint8_t *line = source + stride * (first[y] + tap);
            const int32_t weight = weights[taps * y + tap];
            for (int64_t i = 0; i < stride; i++)
                sums[i] += line[i] * weight;
        }
        uint8_t *out = target + stride * y;
        for (int64_t i = 0; i < stride; i++)
            out[i] = (uint8_t)(sums[i] >> WEIGHT_BITS);
    }
}
