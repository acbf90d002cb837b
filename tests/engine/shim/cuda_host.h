// The CUDA kernel language on a CPU, for tests only:
//   g++ -x c++ -std=c++17 -DSKRD4AD_CPU -include cuda_host.h engine/kernels/all.cu ...
//
// Every CUDA thread of a block is a fiber (own stack, switched by setjmp/longjmp). A fiber runs
// until it meets a barrier or shuffle and then yields, so that a missing barrier shows as a read of
// data that is not there yet: shared memory starts every block as all-ones bytes (NaN as float).
// Which fiber runs first is a parameter (shim_set_order), and one barrier can be switched off by its
// source line (shim_drop_barrier): the tests prove with it that they would notice.
#pragma once
#define SKRD4AD_CPU 1
#include <setjmp.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
// All shared variables lie in one section of the library, so that a block can be given poison.
#define __shared__ static __attribute__((section("shim_shared")))
extern "C" char __start_shim_shared[] __attribute__((weak, visibility("hidden")));
extern "C" char __stop_shim_shared[] __attribute__((weak, visibility("hidden")));

// ---- types and arithmetic -----------------------------------------------------------------------
using std::max;
using std::min;
struct alignas(16) uint4 { uint32_t x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct __half { uint16_t bits; };
struct alignas(4) __half2 { __half x, y; };

inline const float* half_values() {  // the value of each of the 65536 bit patterns
  static const std::vector<float> table = [] {
    std::vector<float> values(65536);
    for (uint32_t bits = 0; bits < 65536; bits++) {
      const int exponent = (bits >> 10) & 31, mantissa = bits & 1023;
      float value = exponent == 31 ? (mantissa ? NAN : INFINITY)
                    : exponent     ? std::ldexp(1.0f + mantissa / 1024.0f, exponent - 15)
                                   : std::ldexp((float)mantissa, -24);
      values[bits] = bits & 0x8000 ? -value : value;
    }
    return values;
  }();
  return table.data();
}
static const float* const HALF = half_values();
inline float2 __half22float2(__half2 pair) { return {HALF[pair.x.bits], HALF[pair.y.bits]}; }
inline uint32_t __float_as_uint(float value) { uint32_t u; memcpy(&u, &value, 4); return u; }
inline float __uint_as_float(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
template <class T> inline T __ldg(const T* address) { return *address; }
template <class T> inline T atomicMax(T* address, T value) {
  const T old = *address; if (value > old) *address = value; return old;  // one OS thread: atomic
}
template <class T> inline T atomicAdd(T* address, T value) {
  const T old = *address; *address = old + value; return old;
}
inline void __threadfence() { std::atomic_thread_fence(std::memory_order_seq_cst); }

// ---- fibers -------------------------------------------------------------------------------------
struct Index3 { unsigned x = 1, y = 1, z = 1; };
namespace shim {
constexpr size_t STACK_BYTES = 64 * 1024;
constexpr unsigned WARP = 32;
struct Fiber {
  jmp_buf here; ucontext_t context; char* stack = nullptr; Index3 thread;
  bool started = false, done = false;
  uint64_t block_phase = 0, warp_phase = 0;
};
struct Block {
  std::vector<Fiber> fibers; unsigned running = 0, live = 0; bool progress = false;
  jmp_buf scheduler; void (*body)(const void*) = nullptr; const void* parameters = nullptr;
  std::vector<uint64_t> exchanged[2];  // shuffle values, alternating so that a fast lane cannot
};                                     // overwrite what a slow one still has to read
inline Block block;
inline Index3 thread_index, block_index, block_size, grid_size;
inline int order_seed = 0, dropped_line = 0;
inline char dropped_file[256];

inline void yield() { if (!_setjmp(block.fibers[block.running].here)) _longjmp(block.scheduler, 1); }
inline void run_fiber() {
  block.body(block.parameters);
  block.fibers[block.running].done = true; block.live--; block.progress = true;
  _longjmp(block.scheduler, 1);
}
inline void resume(unsigned index) {
  block.running = index;
  Fiber& fiber = block.fibers[index];
  thread_index = fiber.thread;
  if (_setjmp(block.scheduler)) return;
  if (fiber.started) _longjmp(fiber.here, 1);
  fiber.started = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack;
  fiber.context.uc_stack.ss_size = STACK_BYTES;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, run_fiber, 0);
  setcontext(&fiber.context);
}
inline std::vector<unsigned> shuffled(unsigned count) {  // 0 ascending, 1 descending, else random
  std::vector<unsigned> order(count);
  std::iota(order.begin(), order.end(), 0u);
  if (order_seed == 1) std::reverse(order.begin(), order.end());
  if (order_seed > 1) std::shuffle(order.begin(), order.end(), std::mt19937(order_seed));
  return order;
}
inline void run_block(unsigned count) {
  if (block.fibers.size() < count) {
    const size_t old = block.fibers.size();
    block.fibers.resize(count);
    for (size_t i = old; i < count; i++)
      block.fibers[i].stack = (char*)mmap(nullptr, STACK_BYTES, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (auto& buffer : block.exchanged) buffer.resize(count + WARP);
  }
  for (unsigned i = 0; i < count; i++) {
    Fiber& fiber = block.fibers[i];
    fiber.started = fiber.done = false;
    fiber.block_phase = fiber.warp_phase = 0;
    fiber.thread = {i % block_size.x, i / block_size.x % block_size.y,
                    i / (block_size.x * block_size.y)};
  }
  if (__start_shim_shared) memset(__start_shim_shared, 0xff, __stop_shim_shared - __start_shim_shared);
  block.live = count;
  const std::vector<unsigned> order = shuffled(count);
  while (block.live) {
    block.progress = false;
    for (unsigned index : order) if (!block.fibers[index].done) resume(index);
    if (!block.progress) {
      fprintf(stderr, "cuda_host: threads of block (%u, %u, %u) wait at different barriers\n",
              block_index.x, block_index.y, block_index.z);
      abort();
    }
  }
}
inline void launch(Index3 grid, Index3 size, void (*body)(const void*), const void* parameters) {
  grid_size = grid; block_size = size;
  block.body = body; block.parameters = parameters;
  for (unsigned i : shuffled(grid.x * grid.y * grid.z)) {
    block_index = {i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y)};
    run_block(size.x * size.y * size.z);
  }
}
inline void wait_for(unsigned from, unsigned to, uint64_t Fiber::*phase) {
  const uint64_t mine = ++(block.fibers[block.running].*phase);
  block.progress = true;
  for (;;) {
    bool all = true;
    for (unsigned i = from; i < to && all; i++)
      all = block.fibers[i].done || block.fibers[i].*phase >= mine;
    if (all) return;
    yield();
  }
}
inline unsigned block_threads() { return block_size.x * block_size.y * block_size.z; }
inline void barrier(const char* file, int line) {
  if (line == dropped_line && strstr(file, dropped_file)) return;
  wait_for(0, block_threads(), &Fiber::block_phase);
}
template <class T> inline T shuffle(T value, unsigned lane) {
  static_assert(sizeof(T) <= 8, "shuffles exchange at most 8 bytes");
  const unsigned me = block.running, first = me / WARP * WARP;
  auto& buffer = block.exchanged[block.fibers[me].warp_phase & 1];
  memcpy(&buffer[me], &value, sizeof value);
  wait_for(first, min(first + WARP, block_threads()), &Fiber::warp_phase);
  T result;
  memcpy(&result, &buffer[first + lane % WARP], sizeof result);
  return result;
}
}  // namespace shim
#define threadIdx shim::thread_index
#define blockIdx shim::block_index
#define blockDim shim::block_size
#define gridDim shim::grid_size
#define __syncthreads() shim::barrier(__FILE__, __LINE__)
template <class T> inline T __shfl_xor_sync(unsigned, T value, int mask) {
  return shim::shuffle(value, shim::block.running % shim::WARP ^ (unsigned)mask);
}
extern "C" inline __attribute__((used)) void shim_set_order(int seed) { shim::order_seed = seed; }
extern "C" inline __attribute__((used)) void shim_drop_barrier(const char* file, int line) {
  snprintf(shim::dropped_file, sizeof shim::dropped_file, "%s", file); shim::dropped_line = line;
}
// host_<kernel>(grid, block, parameters): what the tests and the fake driver call.
#define SKRD4AD_KERNEL(name, Parameters)                                                        \
  extern "C" unsigned long host_size_##name() { return sizeof(Parameters); }                    \
  extern "C" void host_##name(unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by,  \
                              unsigned bz, const void* parameters) {                            \
    shim::launch({gx, gy, gz}, {bx, by, bz},                                                    \
                 [](const void* p) { name(*(const Parameters*)p); }, parameters);               \
  }
