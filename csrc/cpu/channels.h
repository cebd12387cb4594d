#pragma once
// Per-channel values (a bias, or the sums that become its gradient) along the elements of a dense tensor.
//
// Three ways, by the channels' layout. kRows: each channel is a long run of whole mask bytes (contiguous images) with
// one value. kTable: the channels repeat after few elements (channels_last, [N, C]); a table holds one period and a
// piece more, so that a run may begin anywhere in the period. kSpread: otherwise; values are written out for each
// element of a piece.

#include <c10/util/SmallVector.h>

#include <algorithm>
#include <cstdint>

#include "../element/activation.h"
#include "../element/bias_leaky_relu.h"
#include "loops/loops.h"

namespace leakyrelu_ext::cpu {

/// The maximum size of a piece, the unit in which scratch data is prepared.
constexpr int64_t kPiece = 2048;

class ChannelLayout {
 public:
  enum class Way { kRows, kTable, kSpread };

  ChannelLayout(Channels channels, int64_t numel) : channels_(channels) {
    const int64_t period = channels.count * channels.inner;
    if ((channels.inner % kMaskBits == 0 && channels.inner >= kShortestRow) || channels.count == 1) {
      way_ = Way::kRows;
    } else if (period <= kLongestPeriod) {
      way_ = Way::kTable;
      table_size_ = std::min(period + kPiece, numel);
    } else {
      way_ = Way::kSpread;
    }
  }

  Way way() const {
    return way_;
  }

  PerChannel kind() const {
    return way_ == Way::kRows ? PerChannel::kConstant : PerChannel::kArray;
  }

  int64_t count() const {
    return channels_.count;
  }

  int64_t table_size() const {
    return table_size_;
  }

  /// Consecutive elements for one call of a loop.
  struct Run {
    int64_t n;
    int64_t index; // kRows: the channel; kTable: the first element's place in the table
  };

  Run run(int64_t begin, int64_t left) const {
    if (way_ == Way::kSpread) {
      return {std::min(kPiece, left), 0};
    }
    if (way_ == Way::kTable) {
      return {std::min(kPiece, left), begin % (channels_.count * channels_.inner)};
    }
    if (channels_.count == 1) {
      return {left, 0};
    }
    const int64_t row = begin / channels_.inner;
    return {std::min((row + 1) * channels_.inner - begin, left), row % channels_.count};
  }

  /// Calls each(channel, first, n) for each run of one channel in [begin, begin + n); `first` counts from begin.
  template <typename Each>
  void for_each_channel(int64_t begin, int64_t n, const Each& each) const {
    int64_t channel = begin / channels_.inner % channels_.count;
    for (int64_t first = 0, of_run = channels_.inner - begin % channels_.inner; first < n; of_run = channels_.inner) {
      of_run = std::min(of_run, n - first);
      each(channel, first, of_run);
      first += of_run;
      channel = channel + 1 == channels_.count ? 0 : channel + 1;
    }
  }

 private:
  static constexpr int64_t kShortestRow = 64;
  static constexpr int64_t kLongestPeriod = 4096;

  Channels channels_;
  Way way_;
  int64_t table_size_ = 0;
};

template <typename opmath>
class BiasRuns {
 public:
  BiasRuns(const ChannelLayout& layout, const opmath* bias) : layout_(layout), bias_(bias) {
    if (bias != nullptr && layout.way() == ChannelLayout::Way::kTable) {
      table_.resize(layout.table_size());
      spread(0, layout.table_size(), table_.data());
    }
  }

  /// `scratch` has room for kPiece values.
  const opmath* values(int64_t begin, ChannelLayout::Run run, opmath* scratch) const {
    switch (layout_.way()) {
      case ChannelLayout::Way::kRows:
        return bias_ + run.index;
      case ChannelLayout::Way::kTable:
        return table_.data() + run.index;
      case ChannelLayout::Way::kSpread:
        break;
    }
    spread(begin, run.n, scratch);
    return scratch;
  }

 private:
  void spread(int64_t begin, int64_t n, opmath* to) const {
    layout_.for_each_channel(begin, n, [&](int64_t channel, int64_t first, int64_t count) {
      std::fill_n(to + first, count, bias_[channel]);
    });
  }

  const ChannelLayout& layout_;
  const opmath* bias_;
  c10::SmallVector<opmath, kPiece> table_;
};

/// One thread's sums per channel, in double. The loops add up parts of them in the kernel's precision.
template <typename T>
class ChannelSums {
 public:
  using opmath = opmath_t<T>;

  ChannelSums(const Loops<T>& loops, const ChannelLayout& layout, double* sums)
      : loops_(loops), layout_(layout), sums_(sums) {
    if (layout.way() == ChannelLayout::Way::kTable) {
      values_.resize(layout.table_size());
    } else {
      values_.resize(layout.way() == ChannelLayout::Way::kRows ? 1 : kPiece);
    }
  }

  /// Where the loop adds a run's values.
  opmath* values(ChannelLayout::Run run) {
    return values_.data() + (layout_.way() == ChannelLayout::Way::kTable ? run.index : 0);
  }

  /// Call it after each run.
  void take(int64_t begin, ChannelLayout::Run run) {
    switch (layout_.way()) {
      case ChannelLayout::Way::kRows:
        sums_[run.index] += static_cast<double>(values_[0]);
        values_[0] = 0;
        break;
      case ChannelLayout::Way::kTable:
        if (++runs_ == kRunsPerFlush) {
          flush();
        }
        break;
      case ChannelLayout::Way::kSpread:
        flush_from(begin, run.n);
        break;
    }
  }

  /// Call it after the last run.
  void finish() {
    if (layout_.way() == ChannelLayout::Way::kTable) {
      flush();
    }
  }

 private:
  // At most this many values of a table entry are summed in the kernel's precision.
  static constexpr int kRunsPerFlush = 64;

  void flush() {
    flush_from(0, layout_.table_size());
    runs_ = 0;
  }

  void flush_from(int64_t begin, int64_t n) {
    layout_.for_each_channel(begin, n, [&](int64_t channel, int64_t first, int64_t count) {
      sums_[channel] += static_cast<double>(count == 1 ? values_[first] : loops_.sum(values_.data() + first, count));
    });
    std::fill_n(values_.data(), n, opmath(0));
  }

  const Loops<T>& loops_;
  const ChannelLayout& layout_;
  double* sums_;
  c10::SmallVector<opmath, kPiece> values_;
  int runs_ = 0;
};

} // namespace leakyrelu_ext::cpu
