#pragma once
// The arithmetic of norm_leaky_relu that host and device share.

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "activation.h"

namespace leakyrelu_ext {

/// The largest value that becomes 0 when it is rounded to T: half of the smallest subnormal. PyTorch rounds the norm's
/// result before the activation sees it, and 0 takes the slope.
template <typename T>
constexpr opmath_t<T> kRoundsToZero = 0;
template <>
inline constexpr float kRoundsToZero<c10::Half> = 0x1p-25f;
template <>
inline constexpr float kRoundsToZero<c10::BFloat16> = 0x1p-134f;

/// What the kernels know of a group's elements x: leaky_relu((x - mean) * scale + shift). For each entry (a channel, or
/// a channel of a sample) `mean`, `scale` and `shift`, for each group `rstd`, all in opmath and in this order in one
/// tensor. `shift` is the bias, less what rounding took from `mean`.
struct NormStatisticsSizes {
  int64_t entries;
  int64_t groups;

  constexpr int64_t numel() const {
    return 3 * entries + groups;
  }
};

template <typename Value>
struct NormStatistics {
  Value* mean;
  Value* scale;
  Value* shift;
  Value* rstd;

  NormStatistics(Value* data, NormStatisticsSizes sizes)
      : mean(data), scale(data + sizes.entries), shift(data + 2 * sizes.entries), rstd(data + 3 * sizes.entries) {}
};

} // namespace leakyrelu_ext
