#pragma once
// The CUDA kernel of everything that needs no sums: leaky_relu, and bias_leaky_relu with more Parts. Free of ATen.
//
// Memory moves in chunks of 16 bytes, or of one element where alignment or layout forbid that. Threads side by side move chunks
// side by side, so that a warp's request is one run of memory whatever the dtype. A mask byte, eight elements, then belongs to
// several threads: as many as chunks make eight elements, its "team". A team owns as many bytes as it has threads; each thread
// moves one chunk of every byte and reads or writes one whole byte; in between the bits change hands within the team.

#include <cstdint>

#include "../element/activation.h"
#include "order.cuh"

#if !defined(__grid_constant__) // HIP
#define __grid_constant__
#endif

namespace leakyrelu_ext::cuda {

constexpr int kThreads = 128;
constexpr int kRow = 32; // threads side by side; a divisor of every device's warp, and a multiple of every team
constexpr int kAccessBytes = 16;

template <typename T>
constexpr int kChunk = kAccessBytes / sizeof(T);

/// Mask bytes that a thread makes or reads: at least two of its 16-byte loads are in flight at a time.
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

/// leaky_relu alone: what a kernel computes of an element, and what it needs for that beside the input and the mask. BiasLeakyReLUParts
/// (bias_leaky_relu.cuh) is another.
template <typename T>
struct Plain {
  using opmath = opmath_t<T>;
  static constexpr int kPlanes = 1; // bits per element, at most

  opmath negative_slope;

  /// For the elements of one access.
  template <int chunk>
  struct Neighbours {
    __device__ __forceinline__ void load(const Plain&, int64_t) {}
    /// Element number j of them, in turn, whose input is x.
    __device__ __forceinline__ Activated<opmath> activated(const Plain& parts, int64_t, int, opmath x) {
      const bool positive = is_positive(x);
      return {scale_unless(positive, x, parts.negative_slope), positive, true};
    }
  };

  __device__ __forceinline__ opmath gradient(bool positive, bool, opmath grad) const {
    return scale_unless(positive, grad, negative_slope);
  }

  /// Bytes from the first bits' plane to that of the second ones; 0: there is none.
  __device__ __forceinline__ int64_t plane_bytes() const {
    return 0;
  }
};

/// Blocks that a multiprocessor should hold at a time (or as many as it can): all its threads, if it need not compute addresses.
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

/// A byte holds `team` fields. Turns field f of the team's thread t into field t of its thread f: what each thread has of every
/// byte into one byte whole, and back.
template <int team>
__device__ __forceinline__ unsigned exchange_bits(unsigned bits) {
  constexpr int width = kMaskBits / team;
#pragma unroll
  for (int distance = 1; distance < team; distance *= 2) {
    unsigned lower = 0; // the fields f without the bit `distance`
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

/// A thread's part of a block's tile, which begins at element `begin` and has `count` elements. `chunk`: elements per access.
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
  // Single elements fill the registers sooner, and so does what bias_leaky_relu adds.
  constexpr int at_once = chunk == 1 || (planes > 1 && pass == Pass::kForward) ? 1 : bytes;
  constexpr bool whole = chunk > 1; // such tiles only
  const int lane = threadIdx.x % kRow;
  const int own_byte = lane % team * (kRow / team) + lane / team;
#pragma unroll(whole ? bytes : 1)
  for (int first = 0; first < bytes; first += at_once) {
    Chunk<T, chunk> chunks[at_once][team];
    typename Parts::template Neighbours<chunk> neighbours[at_once][team];
    unsigned bits[at_once][planes];
    const auto row_of = [&](int b) { // of kRow mask bytes
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

/// One block per tile of n elements. `wide`: 16-byte accesses are possible. The mask (nullptr: none wanted) is dense; output may
/// be input.
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
  // The same for all threads of a block: nothing diverges.
  if (wide && left >= kTile<T>) {
    run_tile<T, pass, kChunk<T>>(input, output, mask, begin, kTile<T>, parts, input_order, output_order);
  } else {
    const int count = left < kTile<T> ? static_cast<int>(left) : kTile<T>;
    run_tile<T, pass, 1>(input, output, mask, begin, count, parts, input_order, output_order);
  }
}

} // namespace leakyrelu_ext::cuda
