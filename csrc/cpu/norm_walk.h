#pragma once
// How norm_leaky_relu's work is cut up. Lots are what a loop is called for: part of a row of pixels, with one value per
// statistic, or some pixels of all channels. Units are lots that share no group with others: a unit's lots can go
// through all steps while they are in a core's cache. Neither depends on the number of threads, nor do the results.

#include <ATen/Parallel.h>
#include <c10/util/irange.h>

#include <algorithm>

#include "../tensor/norm_leaky_relu.h"
#include "loops/loops.h"
#include "parallel.h"

namespace leakyrelu_ext::cpu {

/// Consecutive elements: `rows` rows of n. Positions count from the beginning of the tensors.
struct NormLot {
  int64_t begin;
  int64_t n;
  int64_t rows;
  int64_t entry; // of the first element
  int64_t mask_begin;
  int64_t pair; // where its results begin; one pair, or one per channel
};

class NormWalk {
 public:
  explicit NormWalk(const NormShape& shape) : shape_(shape), batch_(shape.over_batch()) {
    if (shape.channels_innermost) {
      // Over the batch samples do not matter: pixels of all in one row.
      stretches_ = batch_ ? 1 : shape.samples;
      stretch_ = batch_ ? shape.samples * shape.pixels : shape.pixels;
      lot_ = std::max(kFewestPixels, kLotElements / shape.channels);
    } else {
      stretches_ = shape.samples * shape.channels;
      stretch_ = shape.pixels;
      lot_ = kLotElements;
    }
    lots_per_stretch_ = at::divup(stretch_, lot_);
  }

  const NormShape& shape() const {
    return shape_;
  }
  PerChannel kind() const {
    return shape_.channels_innermost ? PerChannel::kArray : PerChannel::kConstant;
  }
  int64_t lots() const {
    return stretches_ * lots_per_stretch_;
  }
  int64_t pairs() const {
    return lots() * (shape_.channels_innermost ? shape_.channels : 1);
  }

  NormLot lot(int64_t number) const {
    const bool whole = lots_per_stretch_ == 1; // spares short rows the divisions
    const int64_t stretch = whole ? number : number / lots_per_stretch_;
    const int64_t begin = whole ? 0 : number % lots_per_stretch_ * lot_;
    const int64_t n = std::min(lot_, stretch_ - begin);
    if (shape_.channels_innermost) {
      const int64_t pixel = stretch * stretch_ + begin, channels = shape_.channels;
      return {pixel * channels, channels, n, batch_ ? 0 : stretch * channels, pixel * mask_bytes(channels),
              number * channels};
    }
    return {
        stretch * stretch_ + begin,
        n,
        1,
        batch_ ? stretch % shape_.channels : stretch,
        stretch * mask_bytes(stretch_) + begin / kMaskBits,
        number};
  }

  int64_t units() const {
    return shape_.channels_innermost ? stretches_ : shape_.sizes().groups;
  }

  template <typename Each>
  void for_each_lot(int64_t unit, const Each& each) const {
    if (batch_ && !shape_.channels_innermost) {
      for (const auto sample : c10::irange(shape_.samples)) {
        for_lots_of_stretches(sample * shape_.channels + unit, 1, each);
      }
    } else {
      const int64_t stretches = stretches_ / units();
      for_lots_of_stretches(unit * stretches, stretches, each);
    }
  }

  template <typename Each>
  void for_each_group(int64_t unit, const Each& each) const {
    const int64_t groups = shape_.sizes().groups / units();
    for (const auto group : c10::irange(unit * groups, (unit + 1) * groups)) {
      each(group);
    }
  }

  template <typename Each>
  void for_each_entry(int64_t group, const Each& each) const {
    const int64_t entries = shape_.channels_per_group();
    for (const auto entry : c10::irange(group * entries, (group + 1) * entries)) {
      each(entry);
    }
  }

  /// Calls each(pair, elements) for all pairs of an entry, in one order.
  template <typename Each>
  void for_each_pair(int64_t entry, const Each& each) const {
    const bool columns = shape_.channels_innermost;
    const int64_t step = columns ? shape_.channels : 1, channel = columns ? entry % shape_.channels : 0;
    const auto of_stretch = [&](int64_t stretch) {
      for (const auto k : c10::irange(lots_per_stretch_)) {
        each((stretch * lots_per_stretch_ + k) * step + channel, std::min(lot_, stretch_ - k * lot_));
      }
    };
    if (!batch_) {
      of_stretch(columns ? entry / shape_.channels : entry);
    } else if (columns) {
      of_stretch(0);
    } else {
      for (const auto sample : c10::irange(shape_.samples)) {
        of_stretch(sample * shape_.channels + entry);
      }
    }
  }

  /// Runs step(lot) for all lots, in parallel.
  template <typename Step>
  void parallel_over_lots(const Step& step) const {
    parallel(lots(), [&](int64_t number) { step(lot(number)); });
  }

  /// Runs before(lot) for all lots, between(group) for all groups, and then after(lot) for all lots, in parallel.
  template <typename Before, typename Between, typename After>
  void parallel_over_units(const Before& before, const Between& between, const After& after) const {
    if (units() >= kUnitsPerThread * at::get_num_threads() || units() % at::get_num_threads() == 0) {
      parallel(units(), [&](int64_t unit) {
        for_each_lot(unit, before);
        for_each_group(unit, between);
        for_each_lot(unit, after);
      });
    } else {
      parallel_over_lots(before);
      parallel(shape_.sizes().groups, between);
      parallel_over_lots(after);
    }
  }

 private:
  // In elements. Results of few lots are many pairs; those of large ones leave the caches before they are read again.
  static constexpr int64_t kLotElements = 8192;
  static constexpr int64_t kFewestPixels = 64;
  static constexpr int64_t kUnitsPerThread = 8;

  template <typename Each>
  void for_lots_of_stretches(int64_t first, int64_t stretches, const Each& each) const {
    for (const auto number : c10::irange(first * lots_per_stretch_, (first + stretches) * lots_per_stretch_)) {
      each(lot(number));
    }
  }

  /// Calls step(i) for [0, count), which together are all elements.
  template <typename Step>
  void parallel(int64_t count, const Step& step) const {
    const int64_t grain = std::max<int64_t>(1, kGrainElements * count / std::max<int64_t>(shape_.numel(), 1));
    at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      for (const auto i : c10::irange(begin, end)) {
        step(i);
      }
    });
  }
  static constexpr int64_t kGrainElements = 16384;

  NormShape shape_;
  bool batch_;
  int64_t stretches_; // runs of memory that lots do not cross
  int64_t stretch_;   // their size in elements, or in pixels of all channels
  int64_t lot_;       // the same of a lot
  int64_t lots_per_stretch_;
};

} // namespace leakyrelu_ext::cpu
