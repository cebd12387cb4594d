#pragma once
// The arithmetic of one element, defined once for all kernels on host and device.

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

/// Forward: value = input. Backward: value = grad_output. A select, because max() is wrong for slopes above 1.
template <typename opmath>
C10_HOST_DEVICE inline opmath scale_unless(bool positive, opmath value, opmath negative_slope) {
  return positive ? value : value * negative_slope;
}

/// An element of bias_leaky_relu's forward: `sum` is input + bias + residual.
template <typename opmath>
struct Activated {
  opmath value;
  bool positive;
  bool passed; // whether a gradient passes
};

template <typename opmath>
struct BiasLeakyReLUConstants {
  opmath negative_slope;
  opmath gain;
  opmath clamp;         // if clamped
  opmath passing;       // if clamped: the largest magnitude at which a gradient passes
  opmath dropout_scale; // factor of the elements kept
  bool clamped;
};

/// Multiplies in the order of the separate ops, so float32 and float64 results equal theirs. As in at::clamp, NaN stays
/// NaN, but no gradient passes there.
template <typename opmath>
C10_HOST_DEVICE inline Activated<opmath> activate(
    opmath sum, bool kept, const BiasLeakyReLUConstants<opmath>& constants) {
  const bool positive = is_positive(sum);
  opmath value = scale_unless(positive, sum, constants.negative_slope) * constants.gain;
  bool passed = kept;
  if (constants.clamped) {
    passed = passed && value >= -constants.passing && value <= constants.passing;
    value = value > constants.clamp ? constants.clamp : value;
    value = value < -constants.clamp ? -constants.clamp : value;
  }
  return {kept ? value * constants.dropout_scale : opmath(0), positive, passed};
}

/// The derivative of activate() times grad. `gain` includes the dropout_scale.
template <typename opmath>
C10_HOST_DEVICE inline opmath activation_grad(
    bool positive, bool passed, opmath grad, opmath negative_slope, opmath gain) {
  return passed ? scale_unless(positive, grad * gain, negative_slope) : opmath(0);
}

/// Elements per mask byte; bit i of byte b (LSB first) belongs to element 8 * b + i in memory order.
constexpr int64_t kMaskBits = 8;

template <typename Int>
constexpr Int mask_bytes(Int n) {
  return (n + (kMaskBits - 1)) / kMaskBits;
}

} // namespace leakyrelu_ext
