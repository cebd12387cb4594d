#pragma once
// bias_leaky_relu: dropout(clamp(gain * leaky_relu(input + bias + residual))). What one call computes, apart from its tensors.

#include <cstdint>
#include <optional>

namespace leakyrelu_ext {

struct BiasLeakyReLUSettings {
  double negative_slope = 0.01;
  double gain = 1;
  std::optional<double> clamp = std::nullopt;
  double dropout_p = 0;

  /// One bit per element says whether the sum was positive, a second one whether a gradient passes: neither clamped nor dropped.
  bool has_passed() const {
    return clamp.has_value() || dropout_p > 0;
  }

  /// What dropout multiplies the elements by that it keeps.
  double dropout_scale() const {
    return dropout_p < 1 ? 1 / (1 - dropout_p) : 0;
  }
};

/// Element e of a tensor, counted in its dense memory order, belongs to channel e / inner % count.
struct Channels {
  int64_t count = 1;
  int64_t inner = 1;
};

} // namespace leakyrelu_ext
