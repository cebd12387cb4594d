#pragma once
// norm_leaky_relu of groups that a block holds in shared memory: one launch, and memory is read once. Planes only, a channel
// per group. Free of ATen.

#include "norm_backward.cuh"
#include "norm_forward.cuh"

namespace leakyrelu_ext::cuda {

/// Elements of a tensor that a block holds: 16 KiB.
template <typename T>
constexpr int kHeld = 16384 / sizeof(T);

/// The walk with one block per line, if a block can hold one; otherwise walk.splits is 0.
template <typename T>
NormWalk held_walk(NormWalk walk) {
  const bool fits = !walk.columns && walk.channels_of_group == 1 &&
      ceil_div(walk.items, walk.threads) * walk.threads * walk.chunk <= kHeld<T>;
  walk.split = walk.items;
  walk.splits = fits ? 1 : 0;
  return walk;
}

/// A thread's accesses, which it alone uses.
template <typename T, int chunk>
class HeldChunks {
 public:
  explicit __device__ __forceinline__ HeldChunks(void* shared)
      : chunks_(static_cast<Chunk<T, chunk>*>(shared) + threadIdx.x) {}

  __device__ __forceinline__ Chunk<T, chunk>& operator[](int i) const {
    return chunks_[i * static_cast<int>(blockDim.x)];
  }

 private:
  Chunk<T, chunk>* chunks_;
};

/// Calls use(i, items) for each access of a thread; all threads take as many turns.
template <typename Items, typename Use>
__device__ __forceinline__ void for_each_held(Items items, const NormWalk& walk, const Use& use) {
  const int count = static_cast<int>((walk.items + walk.threads - 1) / walk.threads);
#pragma unroll 4
  for (int i = 0; i < count; ++i) {
    use(i, items);
    items.advance();
  }
}

/// The moments of what the block holds: about its mean, once more in double where float did not get them right.
template <typename T, int chunk>
__device__ __forceinline__ NormMoments held_moments(
    const HeldChunks<T, chunk>& chunks, const NormItems<false, chunk>& items, const NormWalk& walk, double* shared) {
  using opmath = opmath_t<T>;
  const int64_t n = walk.elements_of_group;
  const auto total = [&](auto zero, const auto& of_element) {
    decltype(zero) sums[4] = {};
    for_each_held(items, walk, [&](int i, const auto& at) {
      if (at.valid()) {
        const Chunk<T, chunk> some = chunks[i];
#pragma unroll
        for (int j = 0; j < chunk; ++j) {
          sums[j % 4] += of_element(static_cast<opmath>(some.value[j]));
        }
      }
    });
    return total_of_block(static_cast<double>((sums[0] + sums[1]) + (sums[2] + sums[3])), shared);
  };
  const auto moments_about = [&](auto center) {
    const double sum = total(center, [&](opmath x) { return static_cast<decltype(center)>(x) - center; });
    const double squares = total(center, [&](opmath x) {
      const auto distance = static_cast<decltype(center)>(x) - center;
      return distance * distance;
    });
    return NormMoments(static_cast<double>(center), sum, squares, n);
  };
  const double sum = total(opmath(0), [](opmath x) { return x; });
  const auto center = static_cast<opmath>(sum / static_cast<double>(n));
  NormMoments moments = moments_about(is_finite(center) ? center : opmath(0));
  bool exact = moments.exact && moments.distances > 0; // small distances may have vanished
#pragma unroll 1
  for (int attempt = 0; attempt < 2 && !exact && (attempt == 0 || is_finite(moments.mean)); ++attempt) {
    moments = moments_about(is_finite(moments.mean) ? moments.mean : 0.0);
    exact = moments.exact;
  }
  return moments; // the same in all threads
}

template <typename T, bool with_residual, int chunk>
__device__ __forceinline__ void write_held_outputs(
    const NormOutputs<T>& outputs, const NormFinish<T>& finish, const NormWalk& walk, void* held, double* shared) {
  using opmath = opmath_t<T>;
  const NormPlace place(walk);
  const NormItems<false, chunk> items(walk, place);
  const HeldChunks<T, chunk> chunks(held);
  for_each_held(items, walk, [&](int i, const auto& at) {
    if (at.valid()) {
      chunks[i] = load_chunk<T, chunk>(outputs.input + at.element());
    }
  });
  const int64_t n = walk.elements_of_group;
  const NormMoments moments = held_moments(chunks, items, walk, shared);
  if (threadIdx.x == 0) { // the others would only do the same in double
    const int64_t entry = place.stretch * walk.channels + place.line;
    const double rstd = 1 / std::sqrt(moments.distances / static_cast<double>(n) + finish.eps);
    const auto affine = finish.affine(place.line, moments.mean, rstd);
    finish.write_entry(entry, affine);
    finish.statistics.rstd[entry] = static_cast<opmath>(rstd);
    finish.update(walk, entry, moments.mean, moments.distances / static_cast<double>(n - 1));
    shared[0] = affine.mean[0];
    shared[1] = affine.scale[0];
    shared[2] = affine.shift[0];
  }
  __syncthreads();
  const NormAffine<opmath, 1> affine{
      {static_cast<opmath>(shared[0])}, {static_cast<opmath>(shared[1])}, {static_cast<opmath>(shared[2])}};
  for_each_held(items, walk, [&](int i, const auto& at) {
    unsigned bits = 0;
    if (at.valid()) {
      Chunk<T, chunk> residuals;
      if (with_residual) {
        residuals = load_chunk<T, chunk>(outputs.residual + at.element());
      }
      Chunk<T, chunk> values = chunks[i];
      bits = activate_chunk<with_residual>(values, residuals, affine, outputs.negative_slope);
      store_chunk<T, chunk>(outputs.output + at.element(), values);
    }
    if (with_residual && outputs.mask != nullptr) { // uniform for all threads
      store_norm_bits(outputs.mask + at.mask_byte(), bits, at.valid(), at);
    }
  });
}

/// One block per line.
template <typename T, bool with_residual>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, 3) void norm_held_forward_kernel(
    const __grid_constant__ NormOutputs<T> outputs,
    const __grid_constant__ NormFinish<T> finish,
    const __grid_constant__ NormWalk walk) {
  __shared__ Chunk<T, kChunk<T>> held[kHeld<T> / kChunk<T>];
  __shared__ double shared[kNormThreads];
  if (walk.wide) {
    write_held_outputs<T, with_residual, kChunk<T>>(outputs, finish, walk, held, shared);
  } else {
    write_held_outputs<T, with_residual, 1>(outputs, finish, walk, held, shared);
  }
}

template <typename T, bool with_mask, int chunk>
__device__ __forceinline__ void write_held_gradients(
    const NormGradients<T>& gradients,
    const NormFinishBackward<T>& finish,
    const NormGradOutputs<T>& outputs,
    double* pairs,
    const NormWalk& walk,
    void* held,
    double* shared) {
  using opmath = opmath_t<T>;
  const NormPlace place(walk);
  const NormItems<false, chunk> items(walk, place);
  const int64_t entry = place.stretch * walk.channels + place.line;
  NormAffine<opmath, 1> affine;
  affine.load(gradients.statistics, entry);
  const auto bits_of = [&](const auto& at) {
    return with_mask ? static_cast<unsigned>(gradients.mask[at.mask_byte()]) >> at.bit() : 0;
  };
  const HeldChunks<T, chunk> grads(held), inputs(static_cast<T*>(held) + kHeld<T>);
  for_each_held(items, walk, [&](int i, const auto& at) {
    if (at.valid()) {
      grads[i] = load_chunk<T, chunk>(gradients.grad_output + at.element());
      inputs[i] = load_chunk<T, chunk>(gradients.input + at.element());
    }
  });
  NormSums<opmath, false, chunk, 1> sums;
  for_each_held(items, walk, [&](int i, const auto& at) {
    if (at.valid()) {
      const unsigned bits = bits_of(at);
      const Chunk<T, chunk> some_grads = grads[i], some_inputs = inputs[i];
#pragma unroll
      for (int j = 0; j < chunk; ++j) {
        const auto of = norm_gradient<with_mask>(some_grads, some_inputs, bits, j, affine, gradients.negative_slope);
        sums.add(0, j, of.grad, of.grad, of.distance);
      }
    }
  });
  opmath values[2];
  sums.fold(values);
  const double of_grads = total_of_block(static_cast<double>(values[0]), shared);
  const double of_products = total_of_block(static_cast<double>(values[1]), shared);
  NormChain<opmath, 1> chain;
  if (threadIdx.x == 0) {
    const opmath rstd = finish.statistics.rstd[entry];
    if (pairs != nullptr) {
      pairs[2 * entry] = of_grads;
      pairs[2 * entry + 1] = of_products;
    } else {
      finish.write_parameters(place.line, of_grads, of_products * static_cast<double>(rstd));
    }
    const auto scale = static_cast<double>(affine.scale[0]);
    chain.set(scale * of_grads, scale * of_products, rstd, walk.elements_of_group);
    shared[0] = chain.along[0];
    shared[1] = chain.offset[0];
    shared[2] = rstd;
  }
  __syncthreads();
  chain = {
      finish.of_statistics,
      {static_cast<opmath>(shared[0])},
      {static_cast<opmath>(shared[1])},
      {static_cast<opmath>(shared[2])}};
  for_each_held(items, walk, [&](int i, const auto& at) {
    if (at.valid()) {
      Chunk<T, chunk> some_grads = grads[i], some_inputs = inputs[i];
      turn_into_gradients<with_mask>(some_grads, some_inputs, bits_of(at), affine, chain, gradients.negative_slope);
      outputs.store(at.element(), some_grads, some_inputs);
    }
  });
}

/// One block per line. pairs: where sums go that another kernel makes the parameters' gradients of; nullptr: there is one
/// stretch, and the sums are those gradients.
template <typename T, bool with_mask>
__global__ C10_LAUNCH_BOUNDS_2(kNormThreads, 3) void norm_held_backward_kernel(
    const __grid_constant__ NormGradients<T> gradients,
    const __grid_constant__ NormFinishBackward<T> finish,
    const __grid_constant__ NormGradOutputs<T> outputs,
    double* pairs,
    const __grid_constant__ NormWalk walk) {
  __shared__ Chunk<T, kChunk<T>> held[2 * kHeld<T> / kChunk<T>];
  __shared__ double shared[kNormThreads];
  if (walk.wide) {
    write_held_gradients<T, with_mask, kChunk<T>>(gradients, finish, outputs, pairs, walk, held, shared);
  } else {
    write_held_gradients<T, with_mask, 1>(gradients, finish, outputs, pairs, walk, held, shared);
  }
}

template <typename T>
cudaError_t run_norm_held_forward(
    const NormOutputs<T>& outputs, const NormFinish<T>& finish, const NormWalk& walk, cudaStream_t stream) {
  return with_constants(
      [&](auto with_residual) {
        return launch_norm(
            norm_held_forward_kernel<T, with_residual.value>, walk.blocks(), walk.threads, stream, outputs, finish,
            walk);
      },
      outputs.residual != nullptr);
}

template <typename T>
cudaError_t run_norm_held_backward(
    const NormGradients<T>& gradients,
    const NormFinishBackward<T>& finish,
    const NormGradOutputs<T>& outputs,
    double* pairs,
    const NormWalk& walk,
    cudaStream_t stream) {
  return with_constants(
      [&](auto with_mask) {
        return launch_norm(
            norm_held_backward_kernel<T, with_mask.value>, walk.blocks(), walk.threads, stream, gradients, finish,
            outputs, pairs, walk);
      },
      gradients.mask != nullptr);
}

} // namespace leakyrelu_ext::cuda
