#pragma once
// How norm_leaky_relu's work is cut up. Lots are what a loop is called for; units are lots that share no group with
// others: a unit's lots can go through all steps while they are in a core's cache. Neither depends on the number of
// threads, nor do the results. NormPlanes: channels are rows of pixels. NormColumns: pixels are rows of channels.
//
// What loops write for a lot are pairs. NormPlanes numbers those of moments by group and those of sums by entry, NormColumns
// as they come: one for each element of a lot's row.

#include <ATen/Parallel.h>
#include <c10/util/irange.h>

#include <algorithm>
#include <numeric>

#include "../tensor/norm_leaky_relu.h"
#include "loops/loops.h"

namespace leakyrelu_ext::cpu {

/// Rows of memory. Positions count from the beginning of the tensors.
struct NormLot {
  int64_t begin;
  NormRows rows;
  int64_t place; // of the first row's statistics
  int64_t mask_begin;
  int64_t moments; // where its pairs begin
  int64_t sums;
};

// In elements. Results of few lots are many pairs; those of large ones leave the caches before they are read again.
constexpr int64_t kLotElements = 8192;

class NormPlanes {
 public:
  static constexpr PerChannel kind = PerChannel::kConstant;

  /// in_order: for one pass over all elements. Then a sample's rows lie in a unit, those of a channel do not.
  NormPlanes(const NormShape& shape, bool /*with_mask*/, bool in_order = false)
      : channels_(shape.channels),
        pixels_(shape.pixels),
        of_channels_(in_order && shape.over_batch()),
        over_batch_(!in_order && shape.over_batch()),
        rows_of_group_(
            of_channels_      ? channels_
                : over_batch_ ? shape.samples
                              : shape.channels_per_group()),
        groups_(of_channels_ ? shape.samples : shape.sizes().groups),
        lots_of_row_(at::divup(pixels_, kLotElements)) {
    const int64_t fitting = std::max<int64_t>(1, kLotElements / pixels_);
    rows_of_lot_ = std::min(rows_of_group_, fitting);
    lots_of_group_ = at::divup(rows_of_group_, rows_of_lot_) * lots_of_row_;
    // Small groups that lie one after the other share a unit, and a lot.
    groups_of_unit_ =
        of_channels_ || over_batch_ || lots_of_group_ > 1 ? 1 : std::max<int64_t>(1, fitting / rows_of_group_ / 2);
  }

  int64_t units() const {
    return at::divup(groups_, groups_of_unit_);
  }
  int64_t lots_of_unit() const {
    return lots_of_group_;
  }

  NormLot lot(int64_t number) const {
    const bool whole = lots_of_group_ == 1; // spares small groups the divisions
    const int64_t unit = whole ? number : number / lots_of_group_, j = whole ? 0 : number % lots_of_group_;
    const int64_t part = whole ? 0 : j % lots_of_row_;
    const int64_t first = whole ? 0 : j / lots_of_row_ * rows_of_lot_; // of the unit's rows
    const int64_t rows = groups_of_unit_ == 1
        ? std::min(rows_of_lot_, rows_of_group_ - first)
        : std::min(groups_of_unit_, groups_ - unit * groups_of_unit_) * rows_of_group_;
    const int64_t row = over_batch_ ? first * channels_ + unit : unit * groups_of_unit_ * rows_of_group_ + first;
    const int64_t entry = over_batch_ ? unit : of_channels_ ? first : row; // of the first row
    return {
        row * pixels_ + part * kLotElements,
        {std::min(kLotElements, pixels_ - part * kLotElements), rows, over_batch_ ? channels_ * pixels_ : pixels_,
         over_batch_ ? 0 : 1},
        entry,
        row * mask_bytes(pixels_) + part * (kLotElements / kMaskBits),
        unit * groups_of_unit_ * lots_of_group_ + j,
        over_batch_ ? number : entry * lots_of_row_ + part};
  }

  /// What moments are taken of, and how many of its rows become one pair.
  PerChannel kind_of_moments() const {
    return kind;
  }
  NormRows rows_of_moments(const NormLot& lot) const {
    return lot.rows;
  }
  int64_t rows_per_moments() const {
    return rows_of_lot_;
  }
  int64_t rows_per_sums() const {
    return over_batch_ ? rows_of_lot_ : 1;
  }
  int64_t moments() const {
    return groups_ * lots_of_group_;
  }
  int64_t sums() const {
    return over_batch_ ? moments() : groups_ * rows_of_group_ * lots_of_row_;
  }

  /// Calls each(pair, elements) for all moments of a group, in one order.
  template <typename Each>
  void for_each_moments(int64_t group, const Each& each) const {
    for (const auto j : c10::irange(lots_of_group_)) {
      const int64_t rows = std::min(rows_of_lot_, rows_of_group_ - j / lots_of_row_ * rows_of_lot_);
      each(group * lots_of_group_ + j, rows * std::min(kLotElements, pixels_ - j % lots_of_row_ * kLotElements));
    }
  }

  template <typename Each>
  void for_each_sums(int64_t entry, const Each& each) const {
    const int64_t pairs = over_batch_ ? lots_of_group_ : lots_of_row_;
    for (const auto j : c10::irange(pairs)) {
      each(entry * pairs + j);
    }
  }

  int64_t groups_of_unit() const {
    return groups_of_unit_;
  }

  /// Where an entry's statistics stand in the arrays that loops read.
  template <typename Each>
  void for_each_place(int64_t entry, const Each& each) const {
    each(entry);
  }
  bool has_copies() const {
    return false;
  }
  int64_t places() const {
    return over_batch_ ? channels_ : groups_ * rows_of_group_;
  }

 private:
  int64_t channels_;
  int64_t pixels_;
  bool of_channels_; // statistics are per channel, groups are samples
  bool over_batch_;
  int64_t rows_of_group_;
  int64_t groups_;
  int64_t lots_of_row_;
  int64_t rows_of_lot_;
  int64_t lots_of_group_;
  int64_t groups_of_unit_;
};

/// Of few channels, a row is several pixels, with a copy of the statistics for each: rows should fill registers.
class NormColumns {
 public:
  static constexpr PerChannel kind = PerChannel::kArray;

  /// Over the batch samples do not matter: pixels of all are one stretch of rows.
  NormColumns(const NormShape& shape, bool with_mask, bool /*in_order*/ = false)
      : channels_(shape.channels),
        over_batch_(shape.over_batch()),
        stretches_(over_batch_ ? 1 : shape.samples),
        pixels_(over_batch_ ? shape.samples * shape.pixels : shape.pixels),
        groups_of_unit_(shape.sizes().groups / stretches_),
        groups_in_a_row_(!over_batch_ && pixels_ == 1),
        copies_(groups_in_a_row_ || (with_mask && channels_ % kMaskBits != 0) ? 1 : copies_for(channels_)),
        // Moments of a lot are merged one by one.
        rows_of_lot_(std::max(kFewestRows, (copies_ > 1 ? 4 : 1) * kLotElements / (copies_ * channels_))),
        whole_lots_(at::divup(pixels_ / copies_, rows_of_lot_)),
        lots_of_stretch_(whole_lots_ + (pixels_ % copies_ != 0 ? 1 : 0)) {}

  int64_t units() const {
    return stretches_;
  }
  int64_t lots_of_unit() const {
    return lots_of_stretch_;
  }

  NormLot lot(int64_t number) const {
    const int64_t stretch = number / lots_of_stretch_, j = number % lots_of_stretch_;
    const bool rest = j == whole_lots_; // less than a row
    const int64_t pixel = stretch * pixels_ + (rest ? pixels_ / copies_ : j * rows_of_lot_) * copies_;
    const int64_t n = (rest ? pixels_ % copies_ : copies_) * channels_;
    return {
        pixel * channels_,
        {n, rows_of(j), n, 0},
        stretch * copies_ * channels_,
        pixel * mask_bytes(channels_),
        number * (groups_in_a_row_ ? groups_of_unit_ : copies_ * channels_),
        number * copies_ * channels_};
  }

  PerChannel kind_of_moments() const {
    return groups_in_a_row_ ? PerChannel::kConstant : kind;
  }
  NormRows rows_of_moments(const NormLot& lot) const {
    const int64_t entries = channels_ / groups_of_unit_;
    return groups_in_a_row_ ? NormRows{entries, groups_of_unit_, entries, 1} : lot.rows;
  }
  int64_t rows_per_moments() const {
    return 1;
  }
  int64_t rows_per_sums() const {
    return 1;
  }
  int64_t moments() const {
    return groups_in_a_row_ ? stretches_ * groups_of_unit_ : sums();
  }
  int64_t sums() const {
    return stretches_ * lots_of_stretch_ * copies_ * channels_;
  }

  template <typename Each>
  void for_each_moments(int64_t group, const Each& each) const {
    const int64_t entries = channels_ / groups_of_unit_;
    if (groups_in_a_row_) {
      each(group, entries);
      return;
    }
    for (const auto entry : c10::irange(group * entries, (group + 1) * entries)) {
      for_each_pair(entry, each);
    }
  }

  template <typename Each>
  void for_each_sums(int64_t entry, const Each& each) const {
    for_each_pair(entry, [&](int64_t pair, int64_t /*rows*/) { each(pair); });
  }

  int64_t groups_of_unit() const {
    return groups_of_unit_;
  }

  template <typename Each>
  void for_each_place(int64_t entry, const Each& each) const {
    for (const auto copy : c10::irange(copies_)) {
      each((entry / channels_ * copies_ + copy) * channels_ + entry % channels_);
    }
  }
  bool has_copies() const {
    return copies_ > 1;
  }
  int64_t places() const {
    return stretches_ * copies_ * channels_;
  }

 private:
  static constexpr int64_t kFewestRows = 64;
  static constexpr int64_t kWidest = 32; // elements in a register
  static constexpr int64_t kLongest = 256;

  /// So many that rows are whole registers; if they would get long, at least several.
  static int64_t copies_for(int64_t channels) {
    const int64_t whole = kWidest / std::gcd(channels, kWidest);
    return whole * channels <= kLongest ? whole : channels < kWidest ? kLongest / channels : 1;
  }

  int64_t rows_of(int64_t lot) const {
    return lot == whole_lots_ ? 1 : std::min(rows_of_lot_, pixels_ / copies_ - lot * rows_of_lot_);
  }

  template <typename Each>
  void for_each_pair(int64_t entry, const Each& each) const {
    const int64_t stretch = entry / channels_, channel = entry % channels_;
    for (const auto lot : c10::irange(lots_of_stretch_)) {
      const int64_t copies = lot == whole_lots_ ? pixels_ % copies_ : copies_;
      for (const auto copy : c10::irange(copies)) {
        each(((stretch * lots_of_stretch_ + lot) * copies_ + copy) * channels_ + channel, rows_of(lot));
      }
    }
  }

  int64_t channels_;
  bool over_batch_;
  int64_t stretches_; // runs of memory that lots do not cross
  int64_t pixels_;    // of a stretch
  int64_t groups_of_unit_;
  bool groups_in_a_row_; // each is consecutive in memory
  int64_t copies_;       // pixels in a row
  int64_t rows_of_lot_;
  int64_t whole_lots_; // of whole rows
  int64_t lots_of_stretch_;
};

} // namespace leakyrelu_ext::cpu
