#pragma once
// The arithmetic of one element. Every kernel, on host and device, includes this one definition.

#include <c10/macros/Macros.h>

#include <cstdint>
#include <type_traits>

namespace leakyrelu_ext {

/// The type in which an element of type T is computed: float for Half and BFloat16, as in ATen.
template <typename T>
using opmath_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

/// The predicate of forward and backward. Strict, so that +0, -0 and NaN take the slope.
template <typename opmath>
C10_HOST_DEVICE inline bool is_positive(opmath x) {
  return x > opmath(0);
}

/// Forward with value = input, backward with value = grad_output. A select, never max(): with max() a slope above 1 is wrong.
template <typename opmath>
C10_HOST_DEVICE inline opmath scale_unless(bool positive, opmath value, opmath negative_slope) {
  return positive ? value : value * negative_slope;
}

/// Elements per mask byte; bit i of byte b (LSB first) belongs to element 8 * b + i in memory order.
constexpr int64_t kMaskBits = 8;

/// Bytes of the mask of n elements.
template <typename Int>
C10_HOST_DEVICE constexpr Int mask_bytes(Int n) {
  return (n + (kMaskBits - 1)) / kMaskBits;
}

} // namespace leakyrelu_ext
