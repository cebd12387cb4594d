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

/// What is known of n values x from the sums of x - shift and of its square. Inlined always: the CPU's tiers must not share
/// a compiled copy.
struct NormMoments {
  double mean;
  double distances; // the sum of squared distances from the mean
  bool exact;       // whether little cancelled, and nothing overflowed or vanished in opmath

  C10_HOST_DEVICE C10_ALWAYS_INLINE NormMoments(double shift, double sum, double squares, int64_t n) {
    const double apart = sum / static_cast<double>(n);
    const double rest = squares - sum * apart;
    mean = shift + apart;
    distances = rest < 0 ? 0 : rest; // NaN stays
    exact = distances >= squares / 4 && ((squares > 1e-20 && squares < 1e30) || (sum == 0 && squares == 0));
  }

  C10_HOST_DEVICE C10_ALWAYS_INLINE void write(double* pair) const {
    pair[0] = mean;
    pair[1] = distances;
  }
};

/// So many values, far apart, show where most of the values to be summed lie: their mean is a good shift. That of equal
/// values is that value, to the bit.
constexpr int64_t kNormSamples = 8;

} // namespace leakyrelu_ext
