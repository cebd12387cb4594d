#pragma once
// The memory order of a strided tensor compared with a dense one of the same shape.

#include <c10/util/ArrayRef.h>
#include <c10/util/SmallVector.h>

#include <algorithm>
#include <cstdint>

namespace leakyrelu_ext {

/// The dimensions of a strided tensor in the dense tensor's memory order, innermost first. Dimensions that one stride
/// can traverse together are merged.
class StridedOrder {
 public:
  struct Dimension {
    int64_t size;
    int64_t stride;   // of the strided tensor
    int64_t position; // distance of neighbours in the dense order
  };

  StridedOrder(c10::IntArrayRef sizes, c10::IntArrayRef strides, c10::IntArrayRef dense_strides) {
    c10::SmallVector<int64_t, 5> innermost_first;
    for (int64_t d = 0; d < static_cast<int64_t>(sizes.size()); ++d) {
      innermost_first.push_back(d);
    }
    std::stable_sort(innermost_first.begin(), innermost_first.end(), [&](int64_t a, int64_t b) {
      return dense_strides[a] < dense_strides[b];
    });
    int64_t position = 1;
    for (const int64_t d : innermost_first) {
      if (sizes[d] == 1) {
        continue;
      }
      if (!dims_.empty() && dims_.back().stride * dims_.back().size == strides[d]) {
        dims_.back().size *= sizes[d];
      } else {
        dims_.push_back({sizes[d], strides[d], position});
      }
      position *= sizes[d];
    }
    if (dims_.empty()) {
      dims_.push_back({1, 1, 1});
    }
    numel_ = position;
  }

  int64_t numel() const {
    return numel_;
  }

  c10::ArrayRef<Dimension> dims() const {
    return dims_;
  }

 private:
  c10::SmallVector<Dimension, 5> dims_;
  int64_t numel_;
};

} // namespace leakyrelu_ext
