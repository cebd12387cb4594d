#pragma once
// How threads share the elements of a dense tensor.
//
// Each thread gets one contiguous range from at::parallel_for's static schedule: no shared queue, lock or counter for
// 64 cores to wait for. Ranges are whole blocks, so no two threads write to one cache line of the mask. A thread gets
// the same range in forward and backward, so on a NUMA machine the data that it touched first is near.

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "../element/activation.h"

namespace leakyrelu_ext::cpu {

/// Elements that fill one cache line of the mask. A block of any dtype and its results fit into the L1 cache.
constexpr int64_t kBlock = 64 * kMaskBits;

/// The minimum number of elements per thread. A second thread breaks even at 128 KiB of input, in float64, float32 and
/// bfloat16 alike (measured: 1 against 2 threads, 2^12 to 2^18 elements). With the generic loops, which round 16-bit
/// dtypes very slowly, it pays from ATen's own 32768 elements on.
template <typename T>
constexpr int64_t kGrain = std::min<int64_t>(32768, (128 << 10) / sizeof(T));

/// Splits [0, numel) elements of type T into ranges that begin at a multiple of kBlock and calls work(begin, n) for
/// each, on at most `threads` threads.
template <typename T, typename Work>
void parallel_over(int64_t numel, const Work& work, int64_t threads = std::numeric_limits<int64_t>::max()) {
  const int64_t blocks = at::divup(numel, kBlock);
  const int64_t grain = std::max(kGrain<T> / kBlock, blocks / threads + (blocks % threads != 0));
  at::parallel_for(0, blocks, grain, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kBlock;
    work(begin, std::min(last * kBlock, numel) - begin);
  });
}

} // namespace leakyrelu_ext::cpu
