#pragma once
// norm_leaky_relu's forward: moments of all lines, what follows from them for each group, then the results. Free of ATen.
//
// Each block writes its moments to their own place among the "pairs" (two doubles per channel and split); the next kernel
// joins those of a group, which in a small tensor is the one that computes results. No atomics: the same result each time.

#include "norm_folded.cuh"

namespace leakyrelu_ext::cuda {

/// What float sums did not get right, again in double: their mean is the better shift. near: per channel of the line, NaN
/// where nothing is to be done.
template <typename T>
__device__ __forceinline__ void write_exact_moments(
    const T* line, const NormWalk& walk, const NormPlace& place, const double* near, double* shared, double* pairs) {
  const int64_t first = walk.elements_before(place.begin), n = walk.elements_before(place.end) - first;
  const int channels = walk.columns ? walk.lanes * walk.chunk : 1;
  for (int channel = 0; channel < channels; ++channel) {
    double shift = near[channel];
    for (int attempt = 0; shift == shift; ++attempt) {
      double sum = 0, squares = 0;
      for (int64_t i = threadIdx.x; i < n; i += blockDim.x) {
        const auto row = static_cast<int64_t>(walk.width_divisor.divide(first + i));
        const auto x = static_cast<opmath_t<T>>(line[row * walk.row + (first + i - row * walk.width) + channel]);
        const double distance = static_cast<double>(x) - shift;
        sum += distance;
        squares += distance * distance;
      }
      sum = total_of_block(sum, shared);
      squares = total_of_block(squares, shared);
      const NormMoments moments(shift, sum, squares, n);
      if (attempt == 1 || moments.exact || !is_finite(moments.mean)) {
        if (threadIdx.x == 0) {
          moments.write(pairs + 2 * channel);
        }
        break;
      }
      shift = moments.mean;
    }
  }
}

template <typename T, bool columns, int chunk>
__device__ __forceinline__ void write_moments(
    const T* input, const NormWalk& walk, double* pairs, double* shared, double* near) {
  using opmath = opmath_t<T>;
  constexpr int at_once = columns ? 2 : 4;
  constexpr int channels = columns ? chunk : 1;
  const NormPlace place(walk);
  NormItems<columns, chunk> items(walk, place);
  const int64_t first = walk.elements_before(place.begin), n = walk.elements_before(place.end) - first;

  opmath shift[channels] = {};
  if (items.active()) {
    opmath above_first[channels] = {};
    const auto first_sample = load_chunk<T, channels>(input + items.element_of_line(first));
#pragma unroll
    for (int k = 1; k < kNormSamples; ++k) {
      if (n >= kNormSamples) {
        const auto sample = load_chunk<T, channels>(input + items.element_of_line(first + n * k / kNormSamples));
#pragma unroll
        for (int j = 0; j < channels; ++j) {
          above_first[j] += static_cast<opmath>(sample.value[j]) - static_cast<opmath>(first_sample.value[j]);
        }
      }
    }
#pragma unroll
    for (int j = 0; j < channels; ++j) {
      shift[j] = static_cast<opmath>(first_sample.value[j]) + above_first[j] / kNormSamples;
      shift[j] = is_finite(shift[j]) ? shift[j] : opmath(0);
    }
  }

  NormSums<opmath, columns, chunk, at_once> sums;
  for (int64_t done = place.begin; done < place.end; done += at_once * walk.groups) {
    Chunk<T, chunk> chunks[at_once];
    bool valid[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      valid[i] = items.valid();
      if (valid[i]) {
        chunks[i] = load_chunk<T, chunk>(input + items.element());
      }
      items.advance();
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (valid[i]) {
#pragma unroll
        for (int j = 0; j < chunk; ++j) {
          const opmath distance = static_cast<opmath>(chunks[i].value[j]) - shift[columns ? j : 0];
          sums.add(i, j, distance, distance, distance);
        }
      }
    }
  }
  opmath values[2 * channels];
  sums.fold(values);
  add_up_groups(values, reinterpret_cast<opmath*>(shared), walk, items.group());

  double* const to = pairs +
      2 *
          ((place.split * walk.stretches + place.stretch) * walk.channels +
           (columns ? place.line * walk.line : place.line));
  bool all_exact = true;
  if (items.group() == 0) {
#pragma unroll
    for (int j = 0; j < channels; ++j) {
      const NormMoments moments(shift[j], values[j], values[channels + j], n);
      const bool exact = moments.exact || !items.active();
      const int channel = items.lane() * chunk + j;
      if (moments.exact && items.active()) {
        moments.write(to + 2 * channel);
      }
      near[channel] = exact ? std::numeric_limits<double>::quiet_NaN() : is_finite(moments.mean) ? moments.mean : 0;
      all_exact = all_exact && exact;
    }
  }
  if (__syncthreads_or(!all_exact) != 0) {
    const T* const line = input + place.stretch * walk.stretch + place.line * walk.line;
    write_exact_moments<T>(line, walk, place, near, shared, to);
  }
}

/// The moments of every line's splits: pairs of the mean and the sum of squared distances from it.
template <typename T, bool columns>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, 3) void norm_moments_kernel(
    const T* input, const __grid_constant__ NormWalk walk, double* pairs) {
  __shared__ double shared[kNormShared<T, columns>];
  __shared__ double near[columns ? kRow * kChunk<T> : 1];
  // Uniform for all threads.
  if (walk.wide) {
    write_moments<T, columns, kChunk<T>>(input, walk, pairs, shared, near);
  } else {
    write_moments<T, columns, 1>(input, walk, pairs, shared, near);
  }
}

/// What follows from the moments of a group, or of a running statistic.
template <typename T>
struct NormFinish {
  const double* pairs; // nullptr: the running statistics are taken
  NormStatistics<opmath_t<T>> statistics;
  NormValues<T> weight, bias, running_mean, running_var;
  double momentum;
  double eps;
  double* of_groups; // means and unbiased variances, where running statistics are updated with their mean over samples

  __device__ __forceinline__ NormAffine<opmath_t<T>, 1> affine(int64_t channel, double mean, double rstd) const {
    using opmath = opmath_t<T>;
    const auto rounded = static_cast<opmath>(mean);
    const double rest = is_finite(mean) ? mean - static_cast<double>(rounded) : 0;
    const double scale = weight.read(channel, 1) * rstd;
    return {{rounded}, {static_cast<opmath>(scale)}, {static_cast<opmath>(bias.read(channel, 0) - rest * scale)}};
  }

  __device__ __forceinline__ void write_entry(int64_t entry, const NormAffine<opmath_t<T>, 1>& affine) const {
    statistics.mean[entry] = affine.mean[0];
    statistics.scale[entry] = affine.scale[0];
    statistics.shift[entry] = affine.shift[0];
  }

  /// variance: unbiased.
  __device__ __forceinline__ void update(const NormWalk& walk, int64_t group, double mean, double variance) const {
    if (of_groups != nullptr) {
      of_groups[2 * group] = mean;
      of_groups[2 * group + 1] = variance;
    } else if (running_mean.data != nullptr) {
      update_channel(group, mean, variance);
    }
  }
  __device__ __forceinline__ void update_channel(int64_t channel, double mean, double variance) const {
    running_mean.write(channel, momentum * mean + (1 - momentum) * running_mean.read(channel, 0));
    running_var.write(channel, momentum * variance + (1 - momentum) * running_var.read(channel, 0));
  }
};

/// A block per group.
template <typename T>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, 4) void norm_finish_kernel(
    const __grid_constant__ NormWalk walk, const __grid_constant__ NormFinish<T> finish) {
  __shared__ double shared[kNormThreads];
  const int64_t channels = walk.channels_of_group, group = blockIdx.x;
  const auto n = static_cast<double>(walk.elements_of_group);
  double mean, variance;
  if (finish.pairs != nullptr) {
    double distances;
    join_moments(walk, finish.pairs, group, n, shared, mean, distances);
    variance = distances / n;
    if (threadIdx.x == 0) {
      finish.update(walk, group, mean, distances / (n - 1));
    }
  } else {
    mean = finish.running_mean.read(group, 0);
    variance = finish.running_var.read(group, 1);
  }
  const double rstd = 1 / std::sqrt(variance + finish.eps);
  for (int64_t k = threadIdx.x; k < channels; k += blockDim.x) {
    const int64_t entry = group * channels + k;
    finish.write_entry(entry, finish.affine(entry % walk.channels, mean, rstd));
  }
  if (threadIdx.x == 0) {
    finish.statistics.rstd[group] = static_cast<opmath_t<T>>(rstd);
  }
}

/// A block per channel: running statistics are updated with the mean over the samples.
template <typename T>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, 4) void norm_update_kernel(
    const __grid_constant__ NormWalk walk, const __grid_constant__ NormFinish<T> finish) {
  __shared__ double shared[kNormThreads];
  double means = 0, variances = 0;
  for (int64_t sample = threadIdx.x; sample < walk.stretches; sample += blockDim.x) {
    const int64_t group = sample * walk.channels + blockIdx.x;
    means += finish.of_groups[2 * group];
    variances += finish.of_groups[2 * group + 1];
  }
  means = total_of_block(means, shared);
  variances = total_of_block(variances, shared);
  if (threadIdx.x == 0) {
    const auto count = static_cast<double>(walk.stretches);
    finish.update_channel(blockIdx.x, means / count, variances / count);
  }
}

/// What norm_finish_kernel does, for the groups of a block's line, by that block. affines: mean, scale and shift of the
/// line's channels. shared: 2 * kNormThreads values.
template <typename T>
__device__ __forceinline__ void finish_line(
    const NormWalk& walk, const NormFinish<T>& finish, double* shared, opmath_t<T> (&affines)[3][kFoldedChannels]) {
  const NormPlace place(walk);
  const FoldedLine line(walk, place);
  const auto n = static_cast<double>(walk.elements_of_group);
  const auto thread = static_cast<int>(threadIdx.x);
  const int64_t stretch = place.stretch * walk.channels;
  if (finish.pairs != nullptr) {
    const auto pair_of = [&](int64_t channel, int64_t split) {
      return finish.pairs + 2 * (split * walk.stretches * walk.channels + stretch + channel);
    };
    double mean[1], distances[1];
    add_up(line.groups, line.pairs, shared, mean, [&](int i, double (&sums)[1]) {
      line.with_pair(i, [&](int64_t channel, int64_t split) {
        sums[0] += pair_of(channel, split)[0] * static_cast<double>(walk.elements_of_split(split));
      });
    });
    mean[0] /= n;
    add_up(line.groups, line.pairs, shared, distances, [&](int i, double (&sums)[1]) {
      line.with_pair(i, [&](int64_t channel, int64_t split) {
        const double* const pair = pair_of(channel, split);
        const double apart = pair[0] - mean[0];
        sums[0] += pair[1] + apart * apart * static_cast<double>(walk.elements_of_split(split));
      });
    });
    if (thread < line.groups) {
      shared[thread] = mean[0];
      shared[kNormThreads + thread] = distances[0];
    }
    __syncthreads();
  }
  if (thread < line.count) {
    const int64_t channel = line.first + thread, entry = stretch + channel;
    const int group = line.group_of(thread);
    const bool of_input = finish.pairs != nullptr;
    const double mean = of_input ? shared[group] : finish.running_mean.read(channel, 0);
    const double variance = of_input ? shared[kNormThreads + group] / n : finish.running_var.read(channel, 1);
    const double rstd = 1 / std::sqrt(variance + finish.eps);
    const auto affine = finish.affine(channel, mean, rstd);
    affines[0][thread] = affine.mean[0];
    affines[1][thread] = affine.scale[0];
    affines[2][thread] = affine.shift[0];
    if (place.split == 0) {
      finish.write_entry(entry, affine);
      if (entry % line.of_group == 0) {
        finish.statistics.rstd[entry / line.of_group] = static_cast<opmath_t<T>>(rstd);
        if (of_input) {
          finish.update(walk, entry / line.of_group, mean, shared[kNormThreads + group] / (n - 1));
        }
      }
    }
  }
  __syncthreads();
}

/// What a forward reads and writes.
template <typename T>
struct NormOutputs {
  const T* input;
  const T* residual; // only with_residual
  T* output;
  uint8_t* mask; // only with_residual; nullptr: not wanted
  NormStatistics<const opmath_t<T>> statistics;
  opmath_t<T> negative_slope;
};

/// Computes the elements of one access, in place. Returns which are positive.
template <bool with_residual, typename T, int chunk, int channels>
__device__ __forceinline__ unsigned activate_chunk(
    Chunk<T, chunk>& values,
    const Chunk<T, chunk>& residuals,
    const NormAffine<opmath_t<T>, channels>& affine,
    opmath_t<T> negative_slope) {
  using opmath = opmath_t<T>;
  unsigned bits = 0;
#pragma unroll
  for (int j = 0; j < chunk; ++j) {
    const int k = channels > 1 ? j : 0;
    opmath value = std::fma(static_cast<opmath>(values.value[j]) - affine.mean[k], affine.scale[k], affine.shift[k]);
    if (with_residual) {
      value += static_cast<opmath>(residuals.value[j]);
    }
    const bool positive = value > kRoundsToZero<T>;
    bits |= positive ? 1u << j : 0;
    values.value[j] = static_cast<T>(scale_unless(positive, value, negative_slope));
  }
  return bits;
}

/// Writes the bits of one access; all threads of a warp come here together.
template <typename Items>
__device__ __forceinline__ void store_norm_bits(uint8_t* byte, unsigned bits, bool valid, const Items& items) {
  bits = valid ? bits << items.bit() : 0;
#pragma unroll
  for (int distance = 1; distance < Items::kTeam; distance *= 2) {
    bits |= value_of_lane_xor(bits, distance);
  }
  if (valid && items.bit() == 0) {
    *byte = static_cast<uint8_t>(bits);
  }
}

/// affines: of the line's channels, if the walk is folded.
template <typename T, bool columns, bool with_residual, bool folded, int chunk>
__device__ __forceinline__ void write_outputs(
    const NormOutputs<T>& outputs, const opmath_t<T> (&affines)[3][kFoldedChannels], const NormWalk& walk) {
  constexpr int at_once = columns || with_residual ? 2 : 4;
  const NormPlace place(walk);
  NormItems<columns, chunk> items(walk, place);
  NormAffine<opmath_t<T>, columns ? chunk : 1> affine;
  if (items.active() && folded) {
    affine.take(affines, items.lane() * chunk);
  } else if (items.active()) {
    affine.load(outputs.statistics, place.stretch * walk.channels + items.channel());
  }
  for (int64_t done = place.begin; done < place.end; done += at_once * walk.groups) {
    Chunk<T, chunk> chunks[at_once], residuals[at_once];
    int64_t elements[at_once], bytes[at_once];
    bool valid[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      valid[i] = items.valid();
      elements[i] = items.element();
      bytes[i] = items.mask_byte();
      if (valid[i]) {
        chunks[i] = load_chunk<T, chunk>(outputs.input + elements[i]);
        if (with_residual) {
          residuals[i] = load_chunk<T, chunk>(outputs.residual + elements[i]);
        }
      }
      items.advance();
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      unsigned bits = 0;
      if (valid[i]) {
        bits = activate_chunk<with_residual>(chunks[i], residuals[i], affine, outputs.negative_slope);
        store_chunk<T, chunk>(outputs.output + elements[i], chunks[i]);
      }
      if (with_residual && outputs.mask != nullptr) { // uniform for all threads
        store_norm_bits(outputs.mask + bytes[i], bits, valid[i], items);
      }
    }
  }
}

/// leaky_relu((input - mean) * scale + shift + residual). folded: as the walk, if there is something to finish.
template <typename T, bool columns, bool with_residual, bool folded>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, 3) void norm_forward_kernel(
    const __grid_constant__ NormOutputs<T> outputs,
    const __grid_constant__ NormFinish<T> finish,
    const __grid_constant__ NormWalk walk) {
  __shared__ double shared[2 * kNormThreads];
  __shared__ opmath_t<T> affines[3][kFoldedChannels];
  if (folded) {
    finish_line(walk, finish, shared, affines);
  }
  if (walk.wide) { // uniform for all threads
    write_outputs<T, columns, with_residual, folded, kChunk<T>>(outputs, affines, walk);
  } else {
    write_outputs<T, columns, with_residual, folded, 1>(outputs, affines, walk);
  }
}

/// pairs: walk.pairs() of them.
template <typename T>
cudaError_t run_norm_moments(const T* input, const NormWalk& walk, double* pairs, cudaStream_t stream) {
  return with_constants(
      [&](auto columns) {
        return launch_norm(
            norm_moments_kernel<T, columns.value>, walk.blocks(), walk.threads, stream, input, walk, pairs);
      },
      walk.columns);
}

template <typename T>
cudaError_t run_norm_finish(const NormWalk& walk, const NormFinish<T>& finish, cudaStream_t stream) {
  const int threads = threads_for(finish.pairs == nullptr ? 1 : walk.splits * walk.channels_of_group);
  return launch_norm(norm_finish_kernel<T>, walk.groups_of_all(), threads, stream, walk, finish);
}

template <typename T>
cudaError_t run_norm_update(const NormWalk& walk, const NormFinish<T>& finish, cudaStream_t stream) {
  return launch_norm(norm_update_kernel<T>, walk.channels, threads_for(walk.stretches), stream, walk, finish);
}

template <typename T>
cudaError_t run_norm_forward(
    const NormOutputs<T>& outputs, const NormFinish<T>& finish, const NormWalk& walk, cudaStream_t stream) {
  return with_constants(
      [&](auto columns, auto with_residual, auto folded) {
        return launch_norm(
            norm_forward_kernel<T, columns.value, with_residual.value, folded.value>, walk.blocks(), walk.threads,
            stream, outputs, finish, walk);
      },
      walk.columns, outputs.residual != nullptr, walk.folded);
}

} // namespace leakyrelu_ext::cuda
