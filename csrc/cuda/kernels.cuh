#pragma once
// The CUDA kernel for everything without sums: leaky_relu, and bias_leaky_relu with other Parts. Free of ATen.
//
// Memory moves in chunks of 16 bytes, or of one element where alignment or layout forbid that. Adjacent threads move
// adjacent chunks, so that a warp's request is one run of memory for every dtype. The eight elements of a mask byte
// then belong to several threads, the "team": one per chunk. A team owns as many bytes as it has threads; each thread
// moves one chunk of every byte and reads or writes one whole byte. In between, the team's threads exchange bits.

#include <cstdint>

#include "../element/activation.h"
#include "order.cuh"

#if !defined(__grid_constant__) // HIP
#define __grid_constant__
#endif

namespace leakyrelu_ext::cuda {

constexpr int kThreads = 128;
constexpr int kRow = 32; // adjacent threads; divides every device's warp size and is a multiple of every team
constexpr int kAccessBytes = 16;

template <typename T>
constexpr int kChunk = kAccessBytes / sizeof(T);

/// Mask bytes per thread: enough for at least two of its 16-byte loads to be in flight at a time.
template <typename T>
constexpr int kThreadMaskBytes = sizeof(T) == 2 ? 2 : 1;

/// Elements that a block moves.
template <typename T>
constexpr int kTile = kThreads * kThreadMaskBytes<T> * kMaskBits;

enum class Pass { kForward, kBackward };

template <typename T, int count>
struct alignas(sizeof(T) * count) Chunk {
  T value[count];
};

/// The Parts of leaky_relu: how the kernel computes an element, and what it needs besides input and mask. Those of
/// bias_leaky_relu: BiasLeakyReLUParts (bias_leaky_relu.cuh).
template <typename T>
struct Plain {
  using opmath = opmath_t<T>;
  static constexpr int kPlanes = 1; // bits per element, at most

  opmath negative_slope;

  /// For the elements of one access.
  template <int chunk>
  struct Neighbours {
    __device__ __forceinline__ void load(const Plain&, int64_t) {}
    /// Computes element number j, whose input is x. Called for each j in turn.
    __device__ __forceinline__ Activated<opmath> activated(const Plain& parts, int64_t, int, opmath x) {
      const bool positive = is_positive(x);
      return {scale_unless(positive, x, parts.negative_slope), positive, true};
    }
  };

  __device__ __forceinline__ opmath gradient(bool positive, bool, opmath grad) const {
    return scale_unless(positive, grad, negative_slope);
  }

  /// Bytes from the mask's first plane of bits to its second; 0: there is no second.
  __device__ __forceinline__ int64_t plane_bytes() const {
    return 0;
  }
};

/// Blocks that a multiprocessor should hold at a time (or as many as it can). 16 are all its threads; addresses and
/// bias_leaky_relu's forward need registers, so fewer fit.
template <typename Parts, Pass pass, typename Order>
constexpr int kBlocks = !std::is_same_v<Order, Dense> ? std::is_same_v<Order, Strided<uint32_t>> ? 12 : 8
    : Parts::kPlanes == 1 || pass == Pass::kBackward  ? 16
                                                      : 12;

__device__ __forceinline__ unsigned value_of_lane_xor(unsigned value, int distance) {
#if defined(__HIP_PLATFORM_AMD__)
  return __shfl_xor(value, distance);
#else
  return __shfl_xor_sync(0xffffffff, value, distance);
#endif
}

/// Transposes the team's bits: field f of thread t becomes field t of thread f, `team` fields per byte. This turns each
/// thread's part of every byte into one whole byte, and back.
template <int team>
__device__ __forceinline__ unsigned exchange_bits(unsigned bits) {
  constexpr int width = kMaskBits / team;
#pragma unroll
  for (int distance = 1; distance < team; distance *= 2) {
    unsigned lower = 0; // the fields whose number has no bit `distance`
#pragma unroll
    for (int field = 0; field < team; ++field) {
      lower |= (field & distance) == 0 ? ((1u << width) - 1) << field * width : 0;
    }
    const unsigned other = value_of_lane_xor(bits, distance);
    bits = (threadIdx.x & distance) == 0 ? (bits & lower) | (other & lower) << distance * width
                                         : (bits & ~lower) | (other & ~lower) >> distance * width;
  }
  return bits;
}

/// A thread's part of a block's tile of `count` elements from `begin` on. `chunk`: elements per access.
template <typename T, Pass pass, int chunk, typename Parts, typename InputOrder, typename OutputOrder>
__device__ __forceinline__ void run_tile(
    const T* input,
    T* output,
    uint8_t* mask,
    int64_t begin,
    int count,
    const Parts& parts,
    const InputOrder& input_order,
    const OutputOrder& output_order) {
  constexpr int team = kMaskBits / chunk;
  constexpr int bytes = kThreadMaskBytes<T>;
  constexpr int planes = Parts::kPlanes;
  // Single-element accesses need more registers, and so does bias_leaky_relu's forward.
  constexpr int at_once = chunk == 1 || (planes > 1 && pass == Pass::kForward) ? 1 : bytes;
  constexpr bool whole = chunk > 1; // only whole tiles are moved in chunks
  const int lane = threadIdx.x % kRow;
  const int own_byte = lane % team * (kRow / team) + lane / team;
#pragma unroll(whole ? bytes : 1)
  for (int first = 0; first < bytes; first += at_once) {
    Chunk<T, chunk> chunks[at_once][team];
    typename Parts::template Neighbours<chunk> neighbours[at_once][team];
    unsigned bits[at_once][planes];
    const auto row_of = [&](int b) { // the first of kRow mask bytes
      return static_cast<int>((first + b) * (kThreads / kRow) + threadIdx.x / kRow) * kRow;
    };
    const auto element = [&](int b, int c) {
      return row_of(b) * static_cast<int>(kMaskBits) + (c * kRow + lane) * chunk;
    };
    // All loads before the first use and, since output may be input, before the first store.
#pragma unroll
    for (int b = 0; b < at_once; ++b) {
#pragma unroll
      for (int c = 0; c < team; ++c) {
        if (whole || element(b, c) < count) {
          chunks[b][c] = *reinterpret_cast<const Chunk<T, chunk>*>(input + input_order(begin + element(b, c)));
          if (pass == Pass::kForward) {
            neighbours[b][c].load(parts, begin + element(b, c));
          }
        }
      }
#pragma unroll
      for (int plane = 0; plane < planes; ++plane) {
        bits[b][plane] = pass == Pass::kForward || plane == 0 ? 0 : ~0u;
        const int byte = row_of(b) + own_byte;
        if (pass == Pass::kBackward && (plane == 0 || parts.plane_bytes() != 0) &&
            (whole || byte * kMaskBits < count)) {
          bits[b][plane] = mask[plane * parts.plane_bytes() + begin / kMaskBits + byte];
        }
      }
    }
#pragma unroll
    for (int b = 0; b < at_once; ++b) {
#pragma unroll
      for (int plane = 0; plane < planes; ++plane) {
        if (pass == Pass::kBackward) {
          bits[b][plane] = exchange_bits<team>(bits[b][plane]);
        }
      }
#pragma unroll
      for (int c = 0; c < team; ++c) {
        if (whole || element(b, c) < count) {
#pragma unroll
          for (int j = 0; j < chunk; ++j) {
            T& value = chunks[b][c].value[j];
            const auto x = static_cast<opmath_t<T>>(value);
            const unsigned bit = 1u << (c * chunk + j);
            if (pass == Pass::kForward) {
              const Activated<opmath_t<T>> activated = neighbours[b][c].activated(parts, begin + element(b, c), j, x);
              bits[b][0] |= activated.positive ? bit : 0;
              bits[b][planes - 1] |= planes > 1 && activated.passed ? bit : 0;
              value = static_cast<T>(activated.value);
            } else {
              value = static_cast<T>(parts.gradient((bits[b][0] & bit) != 0, (bits[b][planes - 1] & bit) != 0, x));
            }
          }
          *reinterpret_cast<Chunk<T, chunk>*>(output + output_order(begin + element(b, c))) = chunks[b][c];
        }
      }
#pragma unroll
      for (int plane = 0; plane < planes; ++plane) {
        if (pass == Pass::kForward && mask != nullptr && (plane == 0 || parts.plane_bytes() != 0)) {
          bits[b][plane] = exchange_bits<team>(bits[b][plane]);
          const int byte = row_of(b) + own_byte;
          if (whole || byte * kMaskBits < count) {
            mask[plane * parts.plane_bytes() + begin / kMaskBits + byte] = static_cast<uint8_t>(bits[b][plane]);
          }
        }
      }
    }
  }
}

/// Runs on n elements, one block per tile. `wide`: 16-byte accesses are possible. The mask is dense (nullptr: not
/// wanted); output may be input.
template <typename T, Pass pass, typename Parts, typename InputOrder, typename OutputOrder>
__global__ C10_LAUNCH_BOUNDS_2(kThreads, (kBlocks<Parts, pass, InputOrder>)) void leaky_relu_kernel(
    const T* input,
    T* output,
    uint8_t* mask,
    int64_t n,
    const __grid_constant__ Parts parts,
    const __grid_constant__ InputOrder input_order,
    const __grid_constant__ OutputOrder output_order,
    bool wide) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kTile<T>;
  const int64_t left = n - begin;
  // Uniform for all threads of a block: nothing diverges.
  if (wide && left >= kTile<T>) {
    run_tile<T, pass, kChunk<T>>(input, output, mask, begin, kTile<T>, parts, input_order, output_order);
  } else {
    const int count = left < kTile<T> ? static_cast<int>(left) : kTile<T>;
    run_tile<T, pass, 1>(input, output, mask, begin, count, parts, input_order, output_order);
  }
}

} // namespace leakyrelu_ext::cuda
