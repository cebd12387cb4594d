#pragma once
// Sums that the second pass of a small tensor makes itself, so that no launch stands between the passes: a block adds up the
// pairs of all groups that its line's channels belong to. Free of ATen.

#include "norm_block.cuh"

namespace leakyrelu_ext::cuda {

/// The channels of a block's line, and the groups that these belong to. A thread adds up pairs of one of these groups.
struct FoldedLine {
  int64_t first; // channel
  int count;
  int of_group;  // channels
  int64_t begin; // the first group's first channel
  int groups;
  int pairs; // of a group

  __device__ __forceinline__ FoldedLine(const NormWalk& walk, const NormPlace& place)
      : first(place.line * (walk.columns ? walk.line : 1)),
        count(
            walk.columns ? static_cast<int>(walk.line < walk.channels - first ? walk.line : walk.channels - first) : 1),
        of_group(static_cast<int>(walk.channels_of_group)),
        begin(first / of_group * of_group),
        groups(static_cast<int>((first + count - begin + of_group - 1) / of_group)),
        pairs(static_cast<int>(walk.splits) * of_group) {}

  /// Calls add(channel, split) for number i of the pairs of the thread's group.
  template <typename Add>
  __device__ __forceinline__ void with_pair(int i, const Add& add) const {
    const int split = i / of_group;
    add(begin + static_cast<int>(threadIdx.x) % groups * of_group + (i - split * of_group), split);
  }
  /// Place among the groups of number i of the line's channels.
  __device__ __forceinline__ int group_of(int i) const {
    return static_cast<int>(first - begin + i) / of_group;
  }
};

/// Adds up add(i, sums) over i < number, for each of `places`; threads take these in turn, and all get the sums of theirs.
/// shared: count * kNormThreads values.
template <int count, typename Add>
__device__ __forceinline__ void add_up(int places, int number, double* shared, double (&sums)[count], const Add& add) {
  const auto thread = static_cast<int>(threadIdx.x);
  const int slices = static_cast<int>(blockDim.x) / places, slice = thread / places;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    sums[i] = 0;
  }
#pragma unroll 4
  for (int i = slice; i < number && slice < slices; i += slices) {
    add(i, sums);
  }
#pragma unroll
  for (int i = 0; i < count; ++i) {
    shared[i * kNormThreads + thread] = sums[i];
  }
  __syncthreads();
  int distance = 1;
  while (2 * distance < slices) {
    distance *= 2;
  }
  for (; distance > 0; distance /= 2) {
    if (slice < distance && slice + distance < slices) {
#pragma unroll
      for (int i = 0; i < count; ++i) {
        shared[i * kNormThreads + thread] += shared[i * kNormThreads + thread + distance * places];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < count; ++i) {
    sums[i] = shared[i * kNormThreads + thread % places];
  }
  __syncthreads();
}

} // namespace leakyrelu_ext::cuda
