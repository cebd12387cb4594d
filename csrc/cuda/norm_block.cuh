#pragma once
// What norm_leaky_relu's kernels share: values per channel, sums over a block, launches. Free of ATen.

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "../element/norm_leaky_relu.h"
#include "launch.cuh"
#include "norm_walk.cuh"

namespace leakyrelu_ext::cuda {

/// Per-channel values: a parameter or a running statistic, of the input's dtype or in opmath.
template <typename T>
struct NormValues {
  void* data; // nullptr: none
  int64_t stride;
  bool in_opmath;

  __device__ __forceinline__ double read(int64_t channel, double otherwise) const {
    if (data == nullptr) {
      return otherwise;
    }
    return in_opmath ? static_cast<double>(static_cast<const opmath_t<T>*>(data)[channel * stride])
                     : static_cast<double>(static_cast<opmath_t<T>>(static_cast<const T*>(data)[channel * stride]));
  }
  __device__ __forceinline__ void write(int64_t channel, double value) const {
    if (in_opmath) {
      static_cast<opmath_t<T>*>(data)[channel * stride] = static_cast<opmath_t<T>>(value);
    } else {
      static_cast<T*>(data)[channel * stride] = static_cast<T>(static_cast<opmath_t<T>>(value));
    }
  }
};

template <typename T, int chunk>
__device__ __forceinline__ Chunk<T, chunk> load_chunk(const T* from) {
  return *reinterpret_cast<const Chunk<T, chunk>*>(from);
}

template <typename T, int chunk>
__device__ __forceinline__ void store_chunk(T* to, const Chunk<T, chunk>& chunk_of_values) {
  *reinterpret_cast<Chunk<T, chunk>*>(to) = chunk_of_values;
}

template <typename opmath>
__device__ __forceinline__ bool is_finite(opmath value) {
  return std::abs(value) <= std::numeric_limits<opmath>::max();
}

template <typename Value, int count>
__device__ __forceinline__ void load_values(Value (&to)[count], const Value* from) {
#pragma unroll
  for (int j = 0; j < count; ++j) {
    to[j] = __ldg(from + j);
  }
}

template <typename Value, int count>
__device__ __forceinline__ void copy_values(Value (&to)[count], const Value* from) {
#pragma unroll
  for (int j = 0; j < count; ++j) {
    to[j] = from[j];
  }
}

/// Every thread's value, added up: for all threads. shared: one value per thread; threads: a power of two.
__device__ __forceinline__ double total_of_block(double value, double* shared) {
  const auto thread = static_cast<int>(threadIdx.x);
  shared[thread] = value;
  __syncthreads();
  for (int distance = static_cast<int>(blockDim.x) / 2; distance > 0; distance /= 2) {
    if (thread < distance) {
      shared[thread] += shared[thread + distance];
    }
    __syncthreads();
  }
  const double total = shared[0];
  __syncthreads();
  return total;
}

/// Adds up what threads of the same lane hold. Group 0 has the totals. shared: count * kNormThreads values.
template <int count, typename Value>
__device__ __forceinline__ void add_up_groups(Value (&values)[count], Value* shared, const NormWalk& walk, int group) {
  const auto thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < count; ++i) {
    shared[i * kNormThreads + thread] = values[i];
  }
  __syncthreads();
  for (int distance = walk.reduction; distance > 0; distance /= 2) {
    if (group < distance && group + distance < walk.groups) {
#pragma unroll
      for (int i = 0; i < count; ++i) {
        shared[i * kNormThreads + thread] += shared[i * kNormThreads + thread + distance * walk.lanes];
      }
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < count; ++i) {
    values[i] = shared[i * kNormThreads + thread];
  }
}

/// A sum and one beside it per channel that a thread holds, spread over several: additions wait for the one before.
template <typename opmath, bool columns, int chunk, int at_once>
struct NormSums {
  static constexpr int kChannels = columns ? chunk : 1;
  static constexpr int kSums = columns ? chunk : chunk * at_once < 8 ? chunk * at_once : 8;

  opmath sums[kSums] = {};
  opmath others[kSums] = {};

  /// Of element j of access i.
  __device__ __forceinline__ void add(int i, int j, opmath value, opmath factor, opmath other_factor) {
    const int k = columns ? j : (i * chunk + j) % kSums;
    sums[k] += value;
    others[k] = std::fma(factor, other_factor, others[k]);
  }

  /// Per channel; the sums, then the others.
  __device__ __forceinline__ void fold(opmath (&values)[2 * kChannels]) {
    if (!columns) {
#pragma unroll
      for (int distance = kSums / 2; distance > 0; distance /= 2) {
#pragma unroll
        for (int k = 0; k < distance; ++k) {
          sums[k] += sums[k + distance];
          others[k] += others[k + distance];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kChannels; ++k) {
      values[k] = sums[k];
      values[kChannels + k] = others[k];
    }
  }
};

/// Doubles of shared memory that a block's sums take.
template <typename T, bool columns>
constexpr int kNormShared = (columns ? (sizeof(opmath_t<T>) == 8 ? 2 * kChunk<T> : kChunk<T>) : 2) * kNormThreads;

/// What an element needs to know of its channel, for each channel that a thread holds.
template <typename opmath, int channels>
struct NormAffine {
  opmath mean[channels] = {};
  opmath scale[channels] = {};
  opmath shift[channels] = {};

  /// entry: of the first channel.
  __device__ __forceinline__ void load(const NormStatistics<const opmath>& statistics, int64_t entry) {
    load_values(mean, statistics.mean + entry);
    load_values(scale, statistics.scale + entry);
    load_values(shift, statistics.shift + entry);
  }
  /// Of a line's, in shared memory; first: the first channel's place.
  __device__ __forceinline__ void take(const opmath (&of_line)[3][kFoldedChannels], int first) {
    copy_values(mean, of_line[0] + first);
    copy_values(scale, of_line[1] + first);
    copy_values(shift, of_line[2] + first);
  }
};

/// Calls each(pair, elements) for the group's pairs, spread over the block's threads.
template <typename Each>
__device__ __forceinline__ void for_each_norm_pair(const NormWalk& walk, int64_t group, const Each& each) {
  const int64_t channels = walk.channels_of_group, count = walk.splits * channels;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t split = i / channels, entry = group * channels + (i - split * channels);
    each(split * walk.stretches * walk.channels + entry, walk.elements_of_split(split));
  }
}

/// The mean of a group's n values and the sum of squared distances from it, for all threads.
__device__ __forceinline__ void join_moments(
    const NormWalk& walk,
    const double* pairs,
    int64_t group,
    double n,
    double* shared,
    double& mean,
    double& distances) {
  double sum = 0;
  for_each_norm_pair(
      walk, group, [&](int64_t pair, int64_t elements) { sum += pairs[2 * pair] * static_cast<double>(elements); });
  mean = total_of_block(sum, shared) / n;
  double squares = 0;
  for_each_norm_pair(walk, group, [&](int64_t pair, int64_t elements) {
    const double apart = pairs[2 * pair] - mean;
    squares += pairs[2 * pair + 1] + apart * apart * static_cast<double>(elements);
  });
  distances = total_of_block(squares, shared);
}

template <typename T>
struct NotDeduced {
  using Type = T;
};

/// Launches kernel(arguments...).
template <typename... Parameters>
cudaError_t launch_norm(
    void (*kernel)(Parameters...),
    int64_t blocks,
    int threads,
    cudaStream_t stream,
    typename NotDeduced<Parameters>::Type... arguments) {
  if (blocks > std::numeric_limits<int>::max()) {
    return cudaErrorInvalidConfiguration;
  }
  void* addresses[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  return cudaLaunchKernel(kernel, dim3(static_cast<unsigned>(blocks)), dim3(threads), addresses, 0, stream);
}

/// Threads that have something to do where a block adds up `count` pairs; a power of two.
inline int threads_for(int64_t count) {
  return std::max(kRow, at_least_power_of_two(count, kNormThreads));
}

/// Calls run(conditions...) with constants.
template <typename Run>
cudaError_t with_constants(const Run& run) {
  return run();
}
template <typename Run, typename... Others>
cudaError_t with_constants(const Run& run, bool condition, Others... others) {
  const auto with = [&](auto constant) {
    return with_constants([&](auto... constants) { return run(constant, constants...); }, others...);
  };
  return condition ? with(std::true_type()) : with(std::false_type());
}

/// Joins the pairs of each entry into one, a block per entry. moments: of moments; else of sums.
template <bool moments>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, 4) void norm_join_kernel(
    const __grid_constant__ NormWalk walk, const double* pairs, double* joined) {
  __shared__ double shared[kNormThreads];
  const int64_t entry = blockIdx.x;
  double first = 0, second = 0;
  if (moments) {
    join_moments(walk, pairs, entry, static_cast<double>(walk.elements_of_group), shared, first, second);
  } else {
    for_each_norm_pair(walk, entry, [&](int64_t pair, int64_t) {
      first += pairs[2 * pair];
      second += pairs[2 * pair + 1];
    });
    first = total_of_block(first, shared);
    second = total_of_block(second, shared);
  }
  if (threadIdx.x == 0) {
    joined[2 * entry] = first;
    joined[2 * entry + 1] = second;
  }
}

/// Whether a block would have too many pairs to add up for a group: they are joined by entry before.
inline bool has_many_pairs(const NormWalk& walk) {
  return !walk.folded && walk.channels_of_group > 1 && walk.splits > 1 &&
      walk.splits * walk.channels_of_group > 4 * kNormThreads;
}

/// The walk of entries instead of groups, and that of joined pairs.
inline NormWalk walk_of_entries(NormWalk walk) {
  walk.elements_of_group /= walk.channels_of_group;
  walk.channels_of_group = 1;
  return walk;
}
inline NormWalk walk_of_joined(NormWalk walk) {
  walk.split = walk.items;
  walk.splits = 1;
  return walk;
}

/// joined: walk.entries() pairs.
template <bool moments>
cudaError_t run_norm_join(const NormWalk& walk, const double* pairs, double* joined, cudaStream_t stream) {
  return launch_norm(
      norm_join_kernel<moments>, walk.entries(), threads_for(walk.splits), stream, walk_of_entries(walk), pairs,
      joined);
}

} // namespace leakyrelu_ext::cuda
