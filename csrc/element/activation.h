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

/// An element of bias_leaky_relu's forward: `sum` is input + bias + residual.
template <typename opmath>
struct Activated {
  opmath value;
  bool positive;
  bool passed; // a gradient
};

template <typename opmath>
struct BiasLeakyReLUConstants {
  opmath negative_slope;
  opmath gain;
  opmath clamp;         // where clamped
  opmath passing;       // where clamped: a gradient passes up to this magnitude
  opmath dropout_scale; // of the elements kept
  bool clamped;
};

/// The products in the order of the separate ops, so that in float32 and float64 the results are theirs. NaN passes the clamp,
/// but no gradient passes there, as in at::clamp.
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

/// Its derivative times grad. `gain` includes the dropout_scale.
template <typename opmath>
C10_HOST_DEVICE inline opmath activation_grad(
    bool positive, bool passed, opmath grad, opmath negative_slope, opmath gain) {
  return passed ? scale_unless(positive, grad * gain, negative_slope) : opmath(0);
}

/// Elements per mask byte; bit i of byte b (LSB first) belongs to element 8 * b + i in memory order.
constexpr int64_t kMaskBits = 8;

/// Bytes of the mask of n elements.
template <typename Int>
constexpr Int mask_bytes(Int n) {
  return (n + (kMaskBits - 1)) / kMaskBits;
}

} // namespace leakyrelu_ext
