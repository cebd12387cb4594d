#pragma once
// CUDA kernels over dense memory. Free of ATen. One thread owns one mask byte, and so eight consecutive elements:
// no two threads write the same byte, and nothing depends on the warp's size.

#include <cstdint>

#include "../activation.h"

namespace leakyrelu_ext::cuda {

constexpr int kThreads = 256;
constexpr int kAccessBytes = 16;

/// Eight elements, as whole 16-byte accesses if their address allows it.
template <typename T>
struct alignas(kAccessBytes) Group {
  T value[kMaskBits];
};

template <typename T, bool aligned>
__device__ __forceinline__ Group<T> load_group(const T* from, int count) {
  Group<T> group;
  if (aligned && count == kMaskBits) {
    group = *reinterpret_cast<const Group<T>*>(from);
  } else {
#pragma unroll
    for (int j = 0; j < kMaskBits; ++j) {
      if (j < count) {
        group.value[j] = from[j];
      }
    }
  }
  return group;
}

template <typename T, bool aligned>
__device__ __forceinline__ void store_group(T* to, const Group<T>& group, int count) {
  if (aligned && count == kMaskBits) {
    *reinterpret_cast<Group<T>*>(to) = group;
  } else {
#pragma unroll
    for (int j = 0; j < kMaskBits; ++j) {
      if (j < count) {
        to[j] = group.value[j];
      }
    }
  }
}

/// Elements of the group that begins at `begin`: eight, fewer in the last, none past the end.
__device__ __forceinline__ int group_count(int64_t begin, int64_t n) {
  const int64_t left = n - begin;
  return left >= kMaskBits ? static_cast<int>(kMaskBits) : left > 0 ? static_cast<int>(left) : 0;
}

__device__ __forceinline__ int64_t group_index() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}

// Each thread reads its elements before it writes them: output may be input.
template <typename T, bool with_mask, bool aligned>
__global__ __launch_bounds__(kThreads) void forward_kernel(
    const T* input, T* output, uint8_t* mask, int64_t n, opmath_t<T> negative_slope) {
  const int64_t index = group_index();
  const int64_t begin = index * kMaskBits;
  const int count = group_count(begin, n);
  if (count == 0) {
    return;
  }
  Group<T> group = load_group<T, aligned>(input + begin, count);
  unsigned bits = 0;
#pragma unroll
  for (int j = 0; j < kMaskBits; ++j) {
    if (j < count) {
      const auto x = static_cast<opmath_t<T>>(group.value[j]);
      const bool positive = is_positive(x);
      bits |= static_cast<unsigned>(positive) << j;
      group.value[j] = static_cast<T>(scale_unless(positive, x, negative_slope));
    }
  }
  store_group<T, aligned>(output + begin, group, count);
  if (with_mask) {
    mask[index] = static_cast<uint8_t>(bits);
  }
}

template <typename T, bool aligned>
__global__ __launch_bounds__(kThreads) void backward_kernel(
    const T* grad_output, const uint8_t* mask, T* grad_input, int64_t n, opmath_t<T> negative_slope) {
  const int64_t index = group_index();
  const int64_t begin = index * kMaskBits;
  const int count = group_count(begin, n);
  if (count == 0) {
    return;
  }
  const unsigned bits = mask[index];
  Group<T> group = load_group<T, aligned>(grad_output + begin, count);
#pragma unroll
  for (int j = 0; j < kMaskBits; ++j) {
    if (j < count) {
      const auto grad = static_cast<opmath_t<T>>(group.value[j]);
      group.value[j] = static_cast<T>(scale_unless((bits >> j & 1) != 0, grad, negative_slope));
    }
  }
  store_group<T, aligned>(grad_input + begin, group, count);
}

} // namespace leakyrelu_ext::cuda
