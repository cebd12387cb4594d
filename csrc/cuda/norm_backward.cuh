#pragma once
// norm_leaky_relu's backward: sums over all lines, what follows from them for each group and parameter, then the gradients.
// Pairs are as in norm_forward.cuh. Free of ATen.

#include "norm_folded.cuh"

namespace leakyrelu_ext::cuda {

/// What both passes of a backward read.
template <typename T>
struct NormGradients {
  const T* grad_output;
  const T* input;
  const uint8_t* mask; // only with_mask
  NormStatistics<const opmath_t<T>> statistics;
  opmath_t<T> negative_slope;
};

/// An element's distance from the mean, and the gradient of the norm's result there.
template <typename T>
struct NormGradient {
  opmath_t<T> distance;
  opmath_t<T> grad;
};

/// Of element j of an access. bits: which are positive, only with_mask.
template <bool with_mask, typename T, int chunk, int channels>
__device__ __forceinline__ NormGradient<T> norm_gradient(
    const Chunk<T, chunk>& grads,
    const Chunk<T, chunk>& inputs,
    unsigned bits,
    int j,
    const NormAffine<opmath_t<T>, channels>& affine,
    opmath_t<T> negative_slope) {
  using opmath = opmath_t<T>;
  const int k = channels > 1 ? j : 0;
  const opmath distance = static_cast<opmath>(inputs.value[j]) - affine.mean[k];
  const bool positive =
      with_mask ? (bits >> j & 1) != 0 : std::fma(distance, affine.scale[k], affine.shift[k]) > kRoundsToZero<T>;
  return {distance, scale_unless(positive, static_cast<opmath>(grads.value[j]), negative_slope)};
}

template <typename T, bool columns, bool with_mask, int chunk>
__device__ __forceinline__ void write_sums_of_gradients(
    const NormGradients<T>& gradients, const NormWalk& walk, double* pairs, double* shared) {
  using opmath = opmath_t<T>;
  constexpr int at_once = 2;
  constexpr int channels = columns ? chunk : 1;
  const NormPlace place(walk);
  NormItems<columns, chunk> items(walk, place);
  NormAffine<opmath, channels> affine;
  if (items.active()) {
    affine.load(gradients.statistics, place.stretch * walk.channels + items.channel());
  }
  NormSums<opmath, columns, chunk, at_once> sums;
  for (int64_t done = place.begin; done < place.end; done += at_once * walk.groups) {
    Chunk<T, chunk> grads[at_once], inputs[at_once];
    unsigned bits[at_once] = {};
    bool valid[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      valid[i] = items.valid();
      if (valid[i]) {
        const int64_t element = items.element();
        grads[i] = load_chunk<T, chunk>(gradients.grad_output + element);
        inputs[i] = load_chunk<T, chunk>(gradients.input + element);
        bits[i] = with_mask ? gradients.mask[items.mask_byte()] >> items.bit() : 0;
      }
      items.advance();
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (valid[i]) {
#pragma unroll
        for (int j = 0; j < chunk; ++j) {
          const auto at = norm_gradient<with_mask>(grads[i], inputs[i], bits[i], j, affine, gradients.negative_slope);
          sums.add(i, j, at.grad, at.grad, at.distance);
        }
      }
    }
  }
  opmath values[2 * channels];
  sums.fold(values);
  add_up_groups(values, reinterpret_cast<opmath*>(shared), walk, items.group());
  if (items.group() == 0 && items.active()) {
    double* const to = pairs + 2 * ((place.split * walk.stretches + place.stretch) * walk.channels + items.channel());
#pragma unroll
    for (int j = 0; j < channels; ++j) {
      to[2 * j] = values[j];
      to[2 * j + 1] = values[channels + j];
    }
  }
}

/// Of every line's splits: pairs of the sum of the norm's gradients, and of their products with input - mean.
template <typename T, bool columns, bool with_mask>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, (columns ? 2 : 3)) void norm_sums_kernel(
    const __grid_constant__ NormGradients<T> gradients, const __grid_constant__ NormWalk walk, double* pairs) {
  __shared__ double shared[kNormShared<T, columns>];
  if (walk.wide) {
    write_sums_of_gradients<T, columns, with_mask, kChunk<T>>(gradients, walk, pairs, shared);
  } else {
    write_sums_of_gradients<T, columns, with_mask, 1>(gradients, walk, pairs, shared);
  }
}

/// What the input's gradient takes from a group's sums, per entry: it gains ((input - mean) * along + offset) * rstd.
template <typename Value>
struct NormCoefficients {
  Value* along; // nullptr: the statistics do not depend on the input
  Value* offset;
  Value* rstd;
};

/// The coefficients of each channel that a thread holds.
template <typename opmath, int channels>
struct NormChain {
  bool of_statistics = false; // whether they depend on the input; uniform for all threads
  opmath along[channels] = {};
  opmath offset[channels] = {};
  opmath rstd[channels] = {};

  /// With the sums of scale * grad and of scale * grad * (input - mean) over the group's n elements, grad_input is
  /// scale * grad - (grads + (input - mean) * rstd^2 * products) / n. No factor is far from the others' magnitude: rstd may be
  /// 1e30.
  __device__ __forceinline__ void set(double grads, double products, opmath of_rstd, int64_t n) {
    along[0] = static_cast<opmath>(-static_cast<double>(of_rstd) * products / static_cast<double>(n));
    offset[0] = static_cast<opmath>(-grads / static_cast<double>(of_rstd) / static_cast<double>(n));
    rstd[0] = of_rstd;
  }

  /// Of a line's, in shared memory; first: the first channel's place.
  __device__ __forceinline__ void take(const opmath (&of_line)[3][kFoldedChannels], int first) {
    copy_values(along, of_line[0] + first);
    copy_values(offset, of_line[1] + first);
    copy_values(rstd, of_line[2] + first);
  }

  /// entry: of the first channel.
  __device__ __forceinline__ void load(const NormCoefficients<const opmath>& coefficients, int64_t entry) {
    load_values(along, coefficients.along + entry);
    load_values(offset, coefficients.offset + entry);
    load_values(rstd, coefficients.rstd + entry);
  }
};

template <typename T>
struct NormFinishBackward {
  const double* pairs; // nullptr: no sums are wanted
  NormStatistics<const opmath_t<T>> statistics;
  bool of_statistics; // whether the input's gradient is wanted, and the statistics depend on the input
  NormCoefficients<opmath_t<T>> coefficients;
  int64_t groups; // blocks for coefficients; 0: none. After them one per channel, if its gradients are wanted
  NormValues<T> grad_weight, grad_bias;

  __host__ __device__ __forceinline__ bool of_parameters() const {
    return grad_weight.data != nullptr || grad_bias.data != nullptr;
  }
  __device__ __forceinline__ void write_parameters(int64_t channel, double of_bias, double of_weight) const {
    if (grad_weight.data != nullptr) {
      grad_weight.write(channel, of_weight);
    }
    if (grad_bias.data != nullptr) {
      grad_bias.write(channel, of_bias);
    }
  }
};

template <typename T>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, 4) void norm_finish_backward_kernel(
    const __grid_constant__ NormWalk walk, const __grid_constant__ NormFinishBackward<T> finish) {
  __shared__ double shared[kNormThreads];
  double of_grads = 0, of_products = 0;
  const int64_t entries_of_split = walk.stretches * walk.channels;
  if (blockIdx.x < finish.groups) {
    const int64_t group = blockIdx.x;
    for_each_norm_pair(walk, group, [&](int64_t pair, int64_t) {
      const auto scale = static_cast<double>(finish.statistics.scale[pair % entries_of_split]);
      of_grads += scale * finish.pairs[2 * pair];
      of_products += scale * finish.pairs[2 * pair + 1];
    });
    of_grads = total_of_block(of_grads, shared);
    of_products = total_of_block(of_products, shared);
    NormChain<opmath_t<T>, 1> chain;
    chain.set(of_grads, of_products, finish.statistics.rstd[group], walk.elements_of_group);
    for (int64_t k = threadIdx.x; k < walk.channels_of_group; k += blockDim.x) {
      const int64_t entry = group * walk.channels_of_group + k;
      finish.coefficients.along[entry] = chain.along[0];
      finish.coefficients.offset[entry] = chain.offset[0];
      finish.coefficients.rstd[entry] = chain.rstd[0];
    }
    return;
  }
  const int64_t channel = blockIdx.x - finish.groups, count = walk.splits * walk.stretches;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t pair = i * walk.channels + channel, entry = pair % entries_of_split;
    of_grads += finish.pairs[2 * pair];
    of_products +=
        finish.pairs[2 * pair + 1] * static_cast<double>(finish.statistics.rstd[entry / walk.channels_of_group]);
  }
  of_grads = total_of_block(of_grads, shared);
  of_products = total_of_block(of_products, shared);
  if (threadIdx.x == 0) {
    finish.write_parameters(channel, of_grads, of_products);
  }
}

/// What norm_finish_backward_kernel does, for the groups of a block's line, by that block; for parameters by the first one of
/// the line in all samples. chains: along, offset and rstd of the line's channels. shared: 2 * kNormThreads values.
template <typename T>
__device__ __forceinline__ void finish_line_backward(
    const NormWalk& walk,
    const NormFinishBackward<T>& finish,
    double* shared,
    opmath_t<T> (&chains)[3][kFoldedChannels]) {
  const NormPlace place(walk);
  const FoldedLine line(walk, place);
  const auto thread = static_cast<int>(threadIdx.x);
  const int64_t stretch = place.stretch * walk.channels;
  double sums[2];
  if (finish.of_statistics) {
    add_up(line.groups, line.pairs, shared, sums, [&](int i, double (&to)[2]) {
      line.with_pair(i, [&](int64_t channel, int64_t split) {
        const double* const pair = finish.pairs + 2 * (split * walk.stretches * walk.channels + stretch + channel);
        const auto scale = static_cast<double>(finish.statistics.scale[stretch + channel]);
        to[0] += scale * pair[0];
        to[1] += scale * pair[1];
      });
    });
    if (thread < line.groups) {
      shared[thread] = sums[0];
      shared[kNormThreads + thread] = sums[1];
    }
    __syncthreads();
    if (thread < line.count) {
      const int group = line.group_of(thread);
      const opmath_t<T> rstd = finish.statistics.rstd[(stretch + line.first + thread) / line.of_group];
      NormChain<opmath_t<T>, 1> chain;
      chain.set(shared[group], shared[kNormThreads + group], rstd, walk.elements_of_group);
      chains[0][thread] = chain.along[0];
      chains[1][thread] = chain.offset[0];
      chains[2][thread] = chain.rstd[0];
    }
    __syncthreads();
  }
  if (place.split == 0 && place.stretch == 0 && finish.of_parameters()) {
    const int channels = static_cast<int>(walk.channels), channel = static_cast<int>(line.first) + thread % line.count;
    const int stretches = static_cast<int>(walk.stretches), splits = static_cast<int>(walk.splits);
    add_up(line.count, splits * stretches, shared, sums, [&](int i, double (&to)[2]) {
      const double* const pair = finish.pairs + 2 * (i * channels + channel);
      const int group = (i % stretches * channels + channel) / line.of_group;
      to[0] += pair[0];
      to[1] += pair[1] * static_cast<double>(finish.statistics.rstd[group]);
    });
    if (thread < line.count) {
      finish.write_parameters(channel, sums[0], sums[1]);
    }
  }
}

/// Outputs of a backward; nullptr: not wanted.
template <typename T>
struct NormGradOutputs {
  T* grad_input;
  T* grad_residual;

  template <int chunk>
  __device__ __forceinline__ void store(
      int64_t element, const Chunk<T, chunk>& of_residual, const Chunk<T, chunk>& of_input) const {
    if (grad_input != nullptr) {
      store_chunk<T, chunk>(grad_input + element, of_input);
    }
    if (grad_residual != nullptr) {
      store_chunk<T, chunk>(grad_residual + element, of_residual);
    }
  }
};

/// Turns the elements of one access into results: `grads` into the residual's gradient, `inputs` into the input's.
template <bool with_mask, typename T, int chunk, int channels>
__device__ __forceinline__ void turn_into_gradients(
    Chunk<T, chunk>& grads,
    Chunk<T, chunk>& inputs,
    unsigned bits,
    const NormAffine<opmath_t<T>, channels>& affine,
    const NormChain<opmath_t<T>, channels>& chain,
    opmath_t<T> negative_slope) {
#pragma unroll
  for (int j = 0; j < chunk; ++j) {
    const int k = channels > 1 ? j : 0;
    const auto at = norm_gradient<with_mask>(grads, inputs, bits, j, affine, negative_slope);
    auto value = at.grad * affine.scale[k];
    if (chain.of_statistics) {
      value = std::fma(std::fma(at.distance, chain.along[k], chain.offset[k]), chain.rstd[k], value);
    }
    grads.value[j] = static_cast<T>(at.grad);
    inputs.value[j] = static_cast<T>(value);
  }
}

template <typename T, bool columns, bool with_mask, bool folded, int chunk>
__device__ __forceinline__ void write_gradients(
    const NormGradients<T>& gradients,
    const NormCoefficients<const opmath_t<T>>& coefficients,
    const opmath_t<T> (&chains)[3][kFoldedChannels],
    const NormGradOutputs<T>& outputs,
    bool of_statistics,
    const NormWalk& walk) {
  constexpr int at_once = 2;
  constexpr int channels = columns ? chunk : 1;
  const NormPlace place(walk);
  NormItems<columns, chunk> items(walk, place);
  NormAffine<opmath_t<T>, channels> affine;
  NormChain<opmath_t<T>, channels> chain;
  if (items.active()) {
    const int64_t entry = place.stretch * walk.channels + items.channel();
    affine.load(gradients.statistics, entry);
    if (of_statistics && folded) {
      chain.take(chains, items.lane() * chunk);
    } else if (of_statistics) {
      chain.load(coefficients, entry);
    }
  }
  chain.of_statistics = of_statistics;
  for (int64_t done = place.begin; done < place.end; done += at_once * walk.groups) {
    Chunk<T, chunk> grads[at_once], inputs[at_once];
    int64_t elements[at_once];
    unsigned bits[at_once] = {};
    bool valid[at_once];
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      valid[i] = items.valid();
      elements[i] = items.element();
      if (valid[i]) {
        grads[i] = load_chunk<T, chunk>(gradients.grad_output + elements[i]);
        inputs[i] = load_chunk<T, chunk>(gradients.input + elements[i]);
        bits[i] = with_mask ? gradients.mask[items.mask_byte()] >> items.bit() : 0;
      }
      items.advance();
    }
#pragma unroll
    for (int i = 0; i < at_once; ++i) {
      if (valid[i]) {
        turn_into_gradients<with_mask>(grads[i], inputs[i], bits[i], affine, chain, gradients.negative_slope);
        outputs.store(elements[i], grads[i], inputs[i]);
      }
    }
  }
}

/// folded: as the walk, if there are sums; coefficients come from them, otherwise from before.
template <typename T, bool columns, bool with_mask, bool folded>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, (columns || with_mask ? 2 : 3)) void norm_backward_kernel(
    const __grid_constant__ NormGradients<T> gradients,
    const __grid_constant__ NormCoefficients<const opmath_t<T>> coefficients,
    const __grid_constant__ NormFinishBackward<T> finish,
    const __grid_constant__ NormGradOutputs<T> outputs,
    const __grid_constant__ NormWalk walk) {
  __shared__ double shared[2 * kNormThreads];
  __shared__ opmath_t<T> chains[3][kFoldedChannels];
  if (folded) {
    finish_line_backward(walk, finish, shared, chains);
  }
  const bool of_statistics = folded ? finish.of_statistics : coefficients.along != nullptr;
  if (walk.wide) { // uniform for all threads
    write_gradients<T, columns, with_mask, folded, kChunk<T>>(
        gradients, coefficients, chains, outputs, of_statistics, walk);
  } else {
    write_gradients<T, columns, with_mask, folded, 1>(gradients, coefficients, chains, outputs, of_statistics, walk);
  }
}

/// pairs: walk.pairs() of them.
template <typename T>
cudaError_t run_norm_sums(const NormGradients<T>& gradients, const NormWalk& walk, double* pairs, cudaStream_t stream) {
  return with_constants(
      [&](auto columns, auto with_mask) {
        return launch_norm(
            norm_sums_kernel<T, columns.value, with_mask.value>, walk.blocks(), walk.threads, stream, gradients, walk,
            pairs);
      },
      walk.columns, gradients.mask != nullptr);
}

template <typename T>
cudaError_t run_norm_finish_backward(const NormWalk& walk, NormFinishBackward<T> finish, cudaStream_t stream) {
  finish.groups = finish.coefficients.along == nullptr ? 0 : walk.groups_of_all();
  const bool of_parameters = finish.of_parameters();
  const int threads = threads_for(walk.splits * std::max(walk.channels_of_group, of_parameters ? walk.stretches : 1));
  const int64_t blocks = finish.groups + (of_parameters ? walk.channels : 0);
  return launch_norm(norm_finish_backward_kernel<T>, blocks, threads, stream, walk, finish);
}

template <typename T>
cudaError_t run_norm_backward(
    const NormGradients<T>& gradients,
    const NormCoefficients<const opmath_t<T>>& coefficients,
    const NormFinishBackward<T>& finish,
    const NormGradOutputs<T>& outputs,
    const NormWalk& walk,
    cudaStream_t stream) {
  return with_constants(
      [&](auto columns, auto with_mask, auto folded) {
        return launch_norm(
            norm_backward_kernel<T, columns.value, with_mask.value, folded.value>, walk.blocks(), walk.threads, stream,
            gradients, coefficients, finish, outputs, walk);
      },
      walk.columns, gradients.mask != nullptr, walk.folded && finish.pairs != nullptr);
}

} // namespace leakyrelu_ext::cuda
