#pragma once
// In which order norm_leaky_relu's steps go over its lots (norm_walk.h), and on which threads.

#include <ATen/Parallel.h>
#include <c10/util/irange.h>

#include <algorithm>

#include "norm_walk.h"

namespace leakyrelu_ext::cpu {

template <class Walk>
class NormSteps {
 public:
  NormSteps(const Walk& walk, const NormShape& shape) : walk_(walk), shape_(shape) {}

  /// Runs step(lot) for all lots, in parallel.
  template <typename Step>
  void over_lots(const Step& step, bool backwards = false) const {
    parallel(walk_.units() * walk_.lots_of_unit(), [&](int64_t begin, int64_t end) {
      for (const auto i : c10::irange(begin, end)) {
        step(walk_.lot(backwards ? begin + end - 1 - i : i));
      }
    });
  }

  /// Runs before(lot) for all lots, between(group) for all groups, and then after(lot) for all lots: the last ones first,
  /// which the caches still hold.
  template <typename Before, typename Between, typename After>
  void over_units(const Before& before, const Between& between, const After& after) const {
    const int64_t units = walk_.units(), groups = shape_.sizes().groups, threads = at::get_num_threads();
    if (units < kUnitsPerThread * threads && units % threads != 0) {
      over_lots(before);
      parallel(groups, [&](int64_t begin, int64_t end) {
        for (const auto group : c10::irange(begin, end)) {
          between(group);
        }
      });
      over_lots(after, /*backwards=*/true);
      return;
    }
    // Small units go through each step together: then they do not wait for one another's divisions and roots.
    const int64_t lots = walk_.lots_of_unit(), of_unit = walk_.groups_of_unit();
    const int64_t together = std::max<int64_t>(1, kLotElements * units / shape_.numel());
    parallel(units, [&](int64_t begin, int64_t end) {
      for (int64_t first = begin; first < end; first += together) {
        const int64_t last = std::min(end, first + together);
        for (const auto number : c10::irange(first * lots, last * lots)) {
          before(walk_.lot(number));
        }
        for (const auto group : c10::irange(first * of_unit, std::min(groups, last * of_unit))) {
          between(group);
        }
        for (int64_t number = last * lots - 1; number >= first * lots; --number) {
          after(walk_.lot(number));
        }
      }
    });
  }

 private:
  static constexpr int64_t kUnitsPerThread = 8;
  static constexpr int64_t kGrainElements = 16384;
  static constexpr int64_t kRowElements = 64; // take as long as what a channel of a sample takes besides

  /// Calls step(begin, end) for parts of [0, count), which together are all elements.
  template <typename Step>
  void parallel(int64_t count, const Step& step) const {
    const int64_t cost = shape_.numel() + kRowElements * shape_.samples * shape_.channels;
    at::parallel_for(0, count, std::max<int64_t>(1, kGrainElements * count / cost), step);
  }

  const Walk& walk_;
  const NormShape& shape_;
};

} // namespace leakyrelu_ext::cpu
