#pragma once
// Runs CUDA kernels on the host: every thread of every block, each as a fiber, with every access to memory checked and counted.
//
// The kernels' sources are compiled as C++ (shim/cuda_runtime.h says what the CUDA words mean) with GCC's
// -fsanitize=kernel-address, which calls a function before each access; emulator.cpp defines these functions. The width of an
// access is that of its C++ type: whether nvcc makes one instruction of it is for .ci/check_cuda.py.

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace cuda_on_host {

struct Dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;

  Dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

/// Memory that a kernel may use; whatever else it touches is an error.
struct Region {
  std::string name;
  uintptr_t begin;
  size_t bytes; // from the first byte to the last one
  bool readable;
  bool writable;
  size_t elements_bytes;          // that the elements take; less than `bytes` if there are gaps
  bool is_temporary = false;      // need not all be written
  bool is_optional = false;       // need not all be read
  std::vector<bool> is_element{}; // of each byte; empty: all are
};

/// What the launches moved, by direction. A request is one instruction of one warp; a sector is 32 aligned bytes.
struct Traffic {
  int64_t bytes = 0;    // distinct within a launch
  int64_t sectors = 0;  // the same
  int64_t requests = 0; // of every size
  int64_t request_sectors = 0;
  int64_t widest_requests = 0; // of 16 bytes a thread
};

struct Report {
  Traffic loads;
  Traffic stores;
  int64_t launches = 0;
  int64_t blocks = 0;
  int64_t threads = 0;
};

/// Between begin_call and end_call kernels may use what `regions` gives at the launch. end_call raises std::runtime_error unless every
/// element of every writable one was written and of every readable one read (not asked for while only some blocks run).
void begin_call(std::function<std::vector<Region>()> regions);
Report end_call();
void abandon_call();

/// Memory that the code under test has allocated: within a call, kernels may use it, and must read all of it.
void allocated(const void* memory, size_t bytes);

/// The next launch fails, as CUDA's do for want of resources.
void fail_next_launch();

/// Runs only these blocks of the next launches; none given: all.
void set_only_blocks(std::vector<int64_t> blocks);

/// Threads that shuffle with each other: 32 (NVIDIA), or 64 (some AMD devices).
void set_warp_size(int threads);

/// The device that the code under test has made the current one (-1: none), and the stream it must launch on.
void set_device(int device);
int device();
void* current_stream();

/// Raises std::runtime_error on the first violation: an access outside the regions, a misaligned one, a byte written twice, a byte
/// written by one thread and read by another, threads of a warp that shuffle apart from each other; in shared memory (the static data
/// of the library that this is linked into), a byte read before it is written, or used by several threads without a barrier in
/// between unless all read; threads of a block that do not all come to the same barrier.
/// False if the launch fails.
bool run_grid(Dim3 grid, Dim3 block, size_t dynamic_bytes, void* stream, const std::function<void()>& kernel);

Dim3 thread_index();
Dim3 block_index();
Dim3 block_dim();
Dim3 grid_dim();
unsigned shuffle_xor(unsigned mask, unsigned value, int distance);
void sync_threads();
/// Whether the condition holds for any thread of the block.
int sync_threads_or(int condition);

} // namespace cuda_on_host
