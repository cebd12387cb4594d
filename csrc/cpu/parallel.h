#pragma once
// How threads share the elements of a dense tensor.
//
// Each gets one contiguous range, by at::parallel_for's static schedule: no queue, no lock, no counter that they share, so
// nothing that 64 cores would wait for. Ranges are whole blocks, so no two threads write into one cache line of the mask; and
// the same thread gets the same range in the forward as in the backward, so on a machine with several memory nodes it finds
// near itself what it touched first.

#include <ATen/Parallel.h>

#include <algorithm>
#include <limits>

#include "../element/activation.h"

namespace leakyrelu_ext::cpu {

/// Elements that fill one cache line of the mask. A block of any dtype, with its results, fits into the first-level cache.
constexpr int64_t kBlock = 64 * kMaskBits;

/// Elements per thread at least. With 128 KiB of input a second thread breaks even, in float64, float32 and bfloat16 alike
/// (measured with 1 against 2 threads, 2^12 to 2^18 elements); but the generic loops round 16-bit dtypes so slowly that there it
/// pays from ATen's own 32768 elements on.
template <typename T>
constexpr int64_t kGrain = std::min<int64_t>(32768, (128 << 10) / sizeof(T));

/// Calls work(begin, n) over [0, numel) elements of type T in pieces that begin at a multiple of kBlock, on at most `threads`.
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
