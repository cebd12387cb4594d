#pragma once
// What bias_leaky_relu adds to the kernel of kernels.cuh: bias, residual, gain, clamp and dropout. Free of ATen.

#include <cstdint>
#include <limits>

#include "../element/activation.h"
#include "../element/bias_leaky_relu.h"
#include "../element/philox.h"
#include "kernels.cuh"
#include "launch.cuh"
#include "order.cuh"

namespace leakyrelu_ext::cuda {

/// Maps an element's number in the dense order to its channel.
struct ChannelOrder {
  Divisor<uint64_t> inner_divisor;
  Divisor<uint64_t> count_divisor;
  int64_t inner;
  int64_t count;
  int run; // inner, or kManyElements if inner is larger

  ChannelOrder() = default;

  explicit ChannelOrder(const Channels& channels)
      : inner_divisor(channels.inner),
        count_divisor(channels.count),
        inner(channels.inner),
        count(channels.count),
        run(static_cast<int>(channels.inner < kManyElements ? channels.inner : kManyElements)) {}

  /// Steps through the channels of consecutive elements: two divisions for the first, none for the others.
  struct Cursor {
    int64_t channel;
    int left; // elements left in this channel

    /// Moves to the next element. Returns true if a new channel begins there.
    __device__ __forceinline__ bool advance(const ChannelOrder& order) {
      if (--left != 0) {
        return false;
      }
      left = order.run;
      channel = channel + 1 == order.count ? 0 : channel + 1;
      return true;
    }
  };

  __device__ __forceinline__ Cursor at(int64_t element) const {
    const auto number = static_cast<int64_t>(inner_divisor.divide(element));
    const auto round = static_cast<int64_t>(count_divisor.divide(number));
    const int64_t left = inner - (element - number * inner);
    return {number - round * count, left < run ? static_cast<int>(left) : run};
  }

 private:
  static constexpr int64_t kManyElements = 1 << 30;
};

/// The generator's state, like at::PhiloxCudaState: values, or pointers that a CUDA graph reads at each replay.
struct RandomState {
  uint64_t seed;
  uint64_t offset;
  const int64_t* seed_in_graph; // nullptr: not captured
  const int64_t* offset_in_graph;
};

/// Bit j says whether element + j is kept. The `count` elements are in the same group of four.
template <int count>
__device__ __forceinline__ unsigned kept_bits(const RandomState& state, uint64_t threshold, int64_t element) {
  uint64_t seed = state.seed, offset = state.offset;
  if (state.seed_in_graph != nullptr) {
    seed = static_cast<uint64_t>(*state.seed_in_graph);
    offset += static_cast<uint64_t>(*state.offset_in_graph);
  }
  // PyTorch's kernels count threads in this half of the counter. With its highest bit set, numbers never repeat theirs.
  offset |= uint64_t{1} << 63;
  const Random4 random = philox(seed, offset, static_cast<uint64_t>(element) / 4);
  unsigned kept = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    kept |= random.value[i] < threshold ? 1u << i : 0;
  }
  return count == 4 ? kept : kept >> element % 4;
}

template <typename T>
__device__ __forceinline__ T read_only(const T* pointer) {
  return __ldg(pointer);
}

/// The Parts of bias_leaky_relu (compare Plain), for forward and backward. Missing parts are detected at run time,
/// uniformly for all threads.
template <typename T>
struct BiasLeakyReLUParts {
  using opmath = opmath_t<T>;
  static constexpr int kPlanes = 2;

  BiasLeakyReLUConstants<opmath> constants; // a backward's gain includes the dropout_scale
  int64_t passed_plane;                     // bytes from the mask's first plane to this one; 0: all elements pass
  // Only in a forward:
  const opmath* bias; // nullptr: none
  const T* residual;  // in the output's order; nullptr: none
  ChannelOrder channels;
  bool bias_in_chunks; // the biases of a 16-byte access are contiguous
  bool drops;
  uint64_t threshold; // keep_threshold()
  RandomState random;

  void set_bias(const opmath* values, const Channels& of) {
    bias = values;
    channels = ChannelOrder(of);
    bias_in_chunks = of.inner == 1 && of.count % kChunk<T> == 0 && is_aligned(values);
  }

  template <int chunk>
  struct Neighbours {
    static constexpr int kPiece = chunk < 4 ? chunk : 4; // elements whose biases and random bits are in registers
    static constexpr bool kPrefetch = chunk >= 4;        // if a thread has few enough chunks

    // If absent, residual and bias are -0: x + -0 is x, also if x is -0.
    Chunk<T, chunk> residual;
    opmath bias[kPiece];
    unsigned kept;
    ChannelOrder::Cursor cursor;

    __device__ __forceinline__ void load(const BiasLeakyReLUParts& parts, int64_t element) {
      if (kPrefetch) {
        load_residual(parts, element);
      }
    }

    __device__ __forceinline__ Activated<opmath> activated(
        const BiasLeakyReLUParts& parts, int64_t element, int j, opmath x) {
      if (!kPrefetch && j == 0) {
        load_residual(parts, element);
      }
      if (j % kPiece == 0) {
        kept = parts.drops ? kept_bits<kPiece>(parts.random, parts.threshold, element + j) : ~0u;
        load_biases(parts, element, j);
      }
      const opmath sum = x + bias[j % kPiece] + static_cast<opmath>(residual.value[j]);
      return activate(sum, (kept & 1u << j % kPiece) != 0, parts.constants);
    }

   private:
    __device__ __forceinline__ void load_residual(const BiasLeakyReLUParts& parts, int64_t element) {
      if (parts.residual != nullptr) {
        residual = *reinterpret_cast<const Chunk<T, chunk>*>(parts.residual + element);
      } else {
#pragma unroll
        for (int j = 0; j < chunk; ++j) {
          residual.value[j] = static_cast<T>(opmath(-0.0));
        }
      }
    }

    __device__ __forceinline__ void load_biases(const BiasLeakyReLUParts& parts, int64_t element, int begin) {
      if (parts.bias == nullptr) {
#pragma unroll
        for (int j = 0; j < kPiece; ++j) {
          bias[j] = opmath(-0.0);
        }
        return;
      }
      if (begin == 0) {
        cursor = parts.channels.at(element);
      }
      if (kPiece > 1 && parts.bias_in_chunks) {
        using Biases = Chunk<opmath, kPiece>; // of 16 bytes
        const auto some = *reinterpret_cast<const Biases*>(parts.bias + cursor.channel + begin);
#pragma unroll
        for (int j = 0; j < kPiece; ++j) {
          bias[j] = some.value[j];
        }
        return;
      }
#pragma unroll
      for (int j = 0; j < kPiece; ++j) {
        const bool another = begin + j == 0 || cursor.advance(parts.channels);
        bias[j] = bias[j == 0 ? kPiece - 1 : j - 1];
        if (another) {
          bias[j] = read_only(parts.bias + cursor.channel);
        }
      }
    }
  };

  __device__ __forceinline__ opmath gradient(bool positive, bool passed, opmath grad) const {
    return activation_grad(positive, passed, grad, constants.negative_slope, constants.gain);
  }

  __device__ __forceinline__ int64_t plane_bytes() const {
    return passed_plane;
  }
};

/// Runs on n > 0 elements of one dense order.
template <Pass pass, typename T>
cudaError_t run_bias_leaky_relu(Memory<T> memory, int64_t n, const BiasLeakyReLUParts<T>& parts, cudaStream_t stream) {
  return launch<T, pass>(memory, n, parts, Dense{}, Dense{}, is_aligned(parts.residual), stream);
}

} // namespace leakyrelu_ext::cuda
