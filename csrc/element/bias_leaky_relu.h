#pragma once
// The settings of bias_leaky_relu, dropout(clamp(gain * leaky_relu(input + bias + residual))): all but its tensors.

#include <cstdint>
#include <optional>

namespace leakyrelu_ext {

struct BiasLeakyReLUSettings {
  double negative_slope = 0.01;
  double gain = 1;
  std::optional<double> clamp = std::nullopt;
  double dropout_p = 0;

  /// Whether the mask has a second bit per element, which says that a gradient passes: neither clamped nor dropped.
  bool has_passed() const {
    return clamp.has_value() || dropout_p > 0;
  }

  /// The factor of the elements that dropout keeps.
  double dropout_scale() const {
    return dropout_p < 1 ? 1 / (1 - dropout_p) : 0;
  }
};

/// Element number e of the dense memory order belongs to channel e / inner % count.
struct Channels {
  int64_t count = 1;
  int64_t inner = 1;
};

} // namespace leakyrelu_ext
