#pragma once
// bias_leaky_relu's backward with the bias's gradient: one pass over the gradient, then a sum of partial sums. Free of
// ATen.
//
// Each thread keeps to its channels, so that its sums stay in registers. A block adds up its threads' sums and writes
// them once, to its own place among the "partials"; a second kernel adds these. Only shape and alignment decide the
// order of each sum: no atomics, and the same result each time.

#include <algorithm>
#include <cstdint>

#include "bias_leaky_relu.cuh"
#include "launch.cuh"

namespace leakyrelu_ext::cuda {

/// How blocks share the memory, seen as rows of channels.count * channels.inner elements. A block handles one of
/// several `splits` of a stripe of the rows. A stripe is either `lanes` adjacent accesses in all rows, one for each
/// thread, or one channel (`lanes` is 1).
struct Traversal {
  Channels channels;
  int64_t row;    // elements
  int64_t stripe; // elements; the last one of a row may be shorter
  int64_t stripes;
  bool of_channels;
  bool wide;     // accesses of 16 bytes
  int chunk;     // elements of an access
  int lanes;     // adjacent threads
  int groups;    // of `lanes` threads; a group takes one item after the other
  int reduction; // distance in the first step that adds up the groups
  int64_t run;   // items of a stripe per row
  Divisor<uint64_t> run_divisor;
  int64_t items; // items of a stripe
  int split;     // items per split
  int64_t splits;
  int64_t step_in_run; // from a thread's item to its next: items in the run (minus a run where that ends),
  int64_t step;        // and elements

  int64_t partials() const {
    return splits * sums();
  }

  /// The number of sums per split.
  __host__ __device__ __forceinline__ int64_t sums() const {
    return of_channels ? channels.count : row;
  }
};

constexpr int64_t kEnoughBlocks = 1024; // for any GPU
constexpr int64_t kFewItems = 8;        // per thread

/// The traversal for n elements. `aligned`: the memory allows 16-byte accesses.
template <typename T>
Traversal traverse(int64_t n, const Channels& channels, bool aligned) {
  Traversal result{};
  result.channels = channels;
  result.row = channels.count * channels.inner;
  const int64_t rows = n / result.row;
  const bool row_of_chunks = result.row % kChunk<T> == 0;
  const bool channel_of_chunks = channels.inner % kChunk<T> == 0;
  // Sum by channel if a channel's run is at least as long as a warp's request. Summing by column leaves as many sums as
  // a row has elements, too many if there are few rows.
  result.of_channels = channels.inner >= kRow * kChunk<T> && (channel_of_chunks || !row_of_chunks || rows < 16);
  result.wide = aligned && (result.of_channels ? channel_of_chunks : row_of_chunks);
  result.chunk = result.wide ? kChunk<T> : 1;
  if (result.of_channels) {
    result.stripes = channels.count;
    result.lanes = 1;
    result.stripe = channels.inner;
    result.run = channels.inner / result.chunk;
  } else {
    const int64_t accesses = result.row / result.chunk;
    result.stripes = ceil_div(accesses, kRow);
    result.lanes = static_cast<int>(ceil_div(accesses, result.stripes));
    result.stripe = static_cast<int64_t>(result.lanes) * result.chunk;
    result.run = 1;
  }
  result.groups = kThreads / result.lanes;
  result.reduction = at_least_power_of_two(result.groups, kThreads) / 2;
  result.items = rows * result.run;
  // The same for all devices, because it determines the order of the sums.
  const int64_t most = ceil_div(result.items, result.groups * kFewItems);
  result.split = static_cast<int>(ceil_div(result.items, std::min(ceil_div(kEnoughBlocks, result.stripes), most)));
  result.splits = ceil_div(result.items, result.split);
  result.run_divisor = Divisor<uint64_t>(result.run);
  result.step_in_run = result.groups % result.run;
  result.step = result.groups / result.run * result.row + result.step_in_run * result.chunk;
  return result;
}

/// The work of one block. grad_input: nullptr if not wanted; may be grad_output. `shared`: chunk * kThreads values.
template <typename T, int chunk>
__device__ __forceinline__ void sum_stripe(
    const T* grad_output,
    T* grad_input,
    const uint8_t* mask,
    const BiasLeakyReLUParts<T>& parts,
    const Traversal& traversal,
    opmath_t<T>* partials,
    opmath_t<T>* shared) {
  using opmath = opmath_t<T>;
  constexpr int at_once = chunk > 1 ? 2 : 4;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % traversal.lanes;
  const int group = thread / traversal.lanes;
  const auto stripes = static_cast<unsigned>(traversal.stripes);
  const int64_t stripe = blockIdx.x % stripes;
  const int64_t split = blockIdx.x / stripes;
  const int64_t column = stripe * traversal.stripe + lane * chunk;
  const bool active = group < traversal.groups && column < traversal.row;

  const int64_t begin = split * traversal.split;
  const int64_t left = traversal.items - begin;
  const int end = !active ? 0 : left < traversal.split ? static_cast<int>(left) : traversal.split;
  const auto row = static_cast<int64_t>(traversal.run_divisor.divide(begin + group));
  int64_t in_run = begin + group - row * traversal.run;
  int64_t position = column + row * traversal.row + in_run * chunk;

  opmath sums[chunk] = {};
  for (int item = group; item < end; item += at_once * traversal.groups) {
    Chunk<T, chunk> chunks[at_once];
    unsigned bits[at_once]; // those of the first plane, above them those of the second
    int64_t positions[at_once];
    // All loads before the first store: grad_input may be grad_output.
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      positions[i] = position;
      if (item + i * traversal.groups < end) {
        chunks[i] = *reinterpret_cast<const Chunk<T, chunk>*>(grad_output + position);
        const uint8_t* const byte = mask + position / kMaskBits;
        bits[i] = byte[0] | (parts.passed_plane != 0 ? unsigned{byte[parts.passed_plane]} : 0xff) << kMaskBits;
      }
      position += traversal.step;
      in_run += traversal.step_in_run;
      if (in_run >= traversal.run) {
        in_run -= traversal.run;
        position += traversal.row - traversal.run * chunk;
      }
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (item + i * traversal.groups < end) {
        const unsigned positive = bits[i] >> positions[i] % kMaskBits;
        const unsigned passed = positive >> kMaskBits;
#pragma unroll
        for (int j = 0; j < chunk; ++j) {
          T& value = chunks[i].value[j];
          const opmath grad =
              parts.gradient((positive >> j & 1) != 0, (passed >> j & 1) != 0, static_cast<opmath>(value));
          sums[j] += grad;
          value = static_cast<T>(grad);
        }
        if (grad_input != nullptr) {
          *reinterpret_cast<Chunk<T, chunk>*>(grad_input + positions[i]) = chunks[i];
        }
      }
    }
  }

  if (traversal.of_channels) {
#pragma unroll
    for (int distance = chunk / 2; distance > 0; distance /= 2) {
#pragma unroll
      for (int j = 0; j < distance; ++j) {
        sums[j] += sums[j + distance];
      }
    }
  }
  const auto is_sum = [&](int j) { return j == 0 || !traversal.of_channels; };
#pragma unroll
  for (int j = 0; j < chunk; ++j) {
    if (is_sum(j)) {
      shared[j * kThreads + thread] = sums[j];
    }
  }
  __syncthreads();
  for (int distance = traversal.reduction; distance > 0; distance /= 2) {
    if (group < distance && group + distance < traversal.groups) {
#pragma unroll
      for (int j = 0; j < chunk; ++j) {
        if (is_sum(j)) {
          shared[j * kThreads + thread] += shared[j * kThreads + thread + distance * traversal.lanes];
        }
      }
    }
    __syncthreads();
  }
  if (active && group == 0) {
    opmath* const to = partials + split * traversal.sums() + (traversal.of_channels ? stripe : column);
#pragma unroll
    for (int j = 0; j < chunk; ++j) {
      if (is_sum(j)) {
        to[j] = shared[j * kThreads + thread];
      }
    }
  }
}

/// One block per stripe and split.
template <typename T>
__global__ C10_LAUNCH_BOUNDS_2(kThreads, 8) void grad_bias_kernel(
    const T* grad_output,
    T* grad_input,
    const uint8_t* mask,
    const __grid_constant__ BiasLeakyReLUParts<T> parts,
    const __grid_constant__ Traversal traversal,
    opmath_t<T>* partials) {
  __shared__ opmath_t<T> shared[kChunk<T> * kThreads];
  // Uniform for all threads.
  if (traversal.wide) {
    sum_stripe<T, kChunk<T>>(grad_output, grad_input, mask, parts, traversal, partials, shared);
  } else {
    sum_stripe<T, 1>(grad_output, grad_input, mask, parts, traversal, partials, shared);
  }
}

/// A channel has `inner` adjacent partials in each of the `splits`. `lanes`: threads per channel, a power of two.
template <typename opmath, typename Bias>
__global__ C10_LAUNCH_BOUNDS_2(kThreads, 16) void sum_partials_kernel(
    const opmath* partials, Bias* grad_bias, int64_t count, int64_t inner, int64_t splits, int lanes) {
  __shared__ opmath shared[kThreads];
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % lanes;
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * (kThreads / lanes) + thread / lanes;
  opmath sum = 0;
  if (channel < count) {
    int64_t split = lane / inner, column = lane % inner;
    while (split < splits) {
      sum += partials[(split * count + channel) * inner + column];
      column += lanes;
      if (column >= inner) {
        split += column / inner;
        column %= inner;
      }
    }
  }
  shared[thread] = sum;
  __syncthreads();
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    if (lane < distance) {
      shared[thread] += shared[thread + distance];
    }
    __syncthreads();
  }
  if (lane == 0 && channel < count) {
    grad_bias[channel] = static_cast<Bias>(shared[thread]);
  }
}

/// memory.output: nullptr if not wanted.
template <typename T>
cudaError_t run_with_grad_bias(
    Memory<T> memory, BiasLeakyReLUParts<T> parts, Traversal traversal, opmath_t<T>* partials, cudaStream_t stream) {
  void* arguments[] = {&memory.input, &memory.output, &memory.mask, &parts, &traversal, &partials};
  return cudaLaunchKernel(
      grad_bias_kernel<T>, dim3(static_cast<unsigned>(traversal.stripes * traversal.splits)), dim3(kThreads), arguments,
      0, stream);
}

template <typename opmath, typename Bias>
cudaError_t sum_partials(const opmath* partials, Bias* grad_bias, const Traversal& traversal, cudaStream_t stream) {
  int64_t count = traversal.channels.count;
  int64_t inner = traversal.sums() / count;
  int64_t splits = traversal.splits;
  int lanes = at_least_power_of_two(ceil_div(splits * inner, kFewItems), kThreads);
  const int64_t blocks = ceil_div(count, kThreads / lanes);
  void* arguments[] = {&partials, &grad_bias, &count, &inner, &splits, &lanes};
  return cudaLaunchKernel(
      sum_partials_kernel<opmath, Bias>, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), arguments, 0, stream);
}

} // namespace leakyrelu_ext::cuda
