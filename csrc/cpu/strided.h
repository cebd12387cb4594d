#pragma once
// Reads strided memory in the order of a dense tensor of the same shape, piece by piece, without a copy of the whole.

#include <ATen/Parallel.h>
#include <c10/util/SmallVector.h>

#include <algorithm>

#include "../element/activation.h"
#include "../tensor/strided_order.h"
#include "loops/loops.h"
#include "parallel.h"

namespace leakyrelu_ext::cpu {

/// True if the tensor consists of rows without gaps, each of whole vector registers and mask bytes.
inline bool has_rows_of(const StridedOrder& order, size_t itemsize) {
  const auto& inner = order.dims()[0];
  constexpr size_t kRegisterBytes = 64;
  return inner.stride == 1 && inner.size * itemsize % kRegisterBytes == 0;
}

/// Splits [begin, begin + n) of the dense order into parts and calls run(offset, stride, position, rows) for each. A
/// part is one row or several, rows.input_step apart, from `offset` on; a row's elements are `stride` apart. `position`
/// counts from begin.
template <typename Run>
void for_each_run(const StridedOrder& order, int64_t begin, int64_t n, const Run& run) {
  const auto dims = order.dims();
  c10::SmallVector<int64_t, 5> index;
  int64_t offset = 0;
  for (const auto& dim : dims) {
    index.push_back(begin % dim.size);
    begin /= dim.size;
    offset += index.back() * dim.stride;
  }
  const auto& inner = dims[0];
  const auto& next = dims[dims.size() > 1 ? 1 : 0];
  for (int64_t position = 0; position < n;) {
    const int64_t left = n - position;
    size_t d = 0; // the dimension along which this part advances
    Rows rows{std::min(inner.size - index[0], left), 1, next.stride, inner.size};
    if (dims.size() > 1 && index[0] == 0 && left >= inner.size) {
      rows.count = std::min(next.size - index[1], left / inner.size);
      d = 1;
    }
    run(offset, inner.stride, position, rows);
    position += rows.n * rows.count;
    index[d] += d == 0 ? rows.n : rows.count;
    offset += d == 0 ? rows.n * inner.stride : rows.count * next.stride;
    for (; d + 1 < dims.size() && index[d] == dims[d].size; ++d) {
      offset += dims[d + 1].stride - dims[d].size * dims[d].stride;
      index[d] = 0;
      ++index[d + 1];
    }
  }
}

/// Copies elements [begin, begin + n) of the dense order to consecutive memory.
template <typename T>
void gather(const Loops<T>& loops, const T* from, const StridedOrder& order, int64_t begin, int64_t n, T* to) {
  for_each_run(order, begin, n, [&](int64_t offset, int64_t stride, int64_t position, Rows rows) {
    loops.gather(from + offset, stride, to + position, rows);
  });
}

template <typename T>
void scatter(const T* from, const StridedOrder& order, int64_t begin, int64_t n, T* to) {
  for_each_run(order, begin, n, [&](int64_t offset, int64_t stride, int64_t position, Rows rows) {
    for (int64_t row = 0; row < rows.count; ++row) {
      for (int64_t j = 0; j < rows.n; ++j) {
        to[offset + row * rows.input_step + stride * j] = from[position + row * rows.n + j];
      }
    }
  });
}

/// For a strided tensor whose innermost dimension in the dense order has a large stride while another one has stride 1:
/// a transposed matrix, or channels_last against contiguous. Reading along the inner dimension would fetch a cache line
/// for each element, so tiles one cache line wide are transposed in the L1 cache.
template <typename T>
class Tiles {
 public:
  static constexpr int64_t kRows = 64 / sizeof(T);
  static constexpr int64_t kColumns = 128;

  explicit Tiles(const StridedOrder& order) : inner_(order.dims()[0]) {
    for (const auto& dim : order.dims().slice(1)) {
      if (dim.stride == 1 && lines_.size == 0) {
        lines_ = dim;
      } else {
        outer_.push_back(dim);
        outer_count_ *= dim.size;
      }
    }
  }

  bool worthwhile() const {
    return lines_.size >= kRows / 2 && inner_.stride >= kRows && inner_.size % kMaskBits == 0;
  }

  /// See parallel_over_strided below.
  template <typename Work>
  void parallel_over(const T* from, const Work& work) const {
    const int64_t groups = at::divup(lines_.size, kRows);
    const int64_t grain = std::max<int64_t>(1, kGrain<T> / (kRows * inner_.size));
    at::parallel_for(0, outer_count_ * groups, grain, [&](int64_t first, int64_t last) {
      alignas(64) T tile[kRows][kColumns];
      for (int64_t task = first; task < last; ++task) {
        const int64_t line = task % groups * kRows;
        const int64_t rows = std::min(kRows, lines_.size - line);
        int64_t offset = line;
        int64_t position = line * lines_.position;
        int64_t rest = task / groups;
        for (const auto& dim : outer_) {
          offset += rest % dim.size * dim.stride;
          position += rest % dim.size * dim.position;
          rest /= dim.size;
        }
        for (int64_t column = 0; column < inner_.size; column += kColumns) {
          const int64_t columns = std::min(kColumns, inner_.size - column);
          for (int64_t c = 0; c < columns; ++c) {
            const T* const source = from + offset + (column + c) * inner_.stride;
            for (int64_t r = 0; r < rows; ++r) {
              tile[r][c] = source[r];
            }
          }
          for (int64_t r = 0; r < rows; ++r) {
            work(tile[r], position + r * lines_.position + column, Rows{columns});
          }
        }
      }
    });
  }

 private:
  StridedOrder::Dimension inner_;
  StridedOrder::Dimension lines_{0, 0, 0}; // the one with stride 1
  c10::SmallVector<StridedOrder::Dimension, 5> outer_;
  int64_t outer_count_ = 1;
};

/// Calls work(values, begin, rows) on several threads, in any order. `values`: rows of consecutive elements, those of
/// the dense order from `begin` on, a multiple of kMaskBits.
template <typename T, typename Work>
void parallel_over_strided(const Loops<T>& loops, const T* from, const StridedOrder& order, const Work& work) {
  const auto& inner = order.dims()[0];
  if (has_rows_of(order, sizeof(T))) {
    parallel_over<T>(order.numel(), [&](int64_t begin, int64_t n) {
      for_each_run(order, begin, n, [&](int64_t offset, int64_t, int64_t position, Rows rows) {
        rows.output_step = rows.n;
        work(from + offset, begin + position, rows);
      });
    });
  } else if (const Tiles<T> tiles(order); tiles.worthwhile()) {
    tiles.parallel_over(from, work);
  } else {
    const bool constant = order.dims().size() == 1 && inner.stride == 0; // as in the gradient of a sum
    parallel_over<T>(order.numel(), [&](int64_t begin, int64_t n) {
      alignas(64) T block[kBlock];
      for (const int64_t first = begin, end = begin + n; begin < end; begin += kBlock) {
        const int64_t count = std::min(kBlock, end - begin);
        if (!constant || begin == first) {
          gather(loops, from, order, begin, count, block);
        }
        work(block, begin, Rows{count});
      }
    });
  }
}

/// Like parallel_over_strided, but work() overwrites the values, and they are written back to where they came from.
template <typename T, typename Work>
void parallel_over_strided_in_place(const Loops<T>& loops, T* data, const StridedOrder& order, const Work& work) {
  if (has_rows_of(order, sizeof(T))) {
    parallel_over<T>(order.numel(), [&](int64_t begin, int64_t n) {
      for_each_run(order, begin, n, [&](int64_t offset, int64_t, int64_t position, Rows rows) {
        rows.output_step = rows.input_step;
        work(data + offset, begin + position, rows);
      });
    });
  } else {
    parallel_over<T>(order.numel(), [&](int64_t begin, int64_t n) {
      alignas(64) T block[kBlock];
      for (const int64_t end = begin + n; begin < end; begin += kBlock) {
        const int64_t count = std::min(kBlock, end - begin);
        gather(loops, data, order, begin, count, block);
        work(block, begin, Rows{count});
        scatter(block, order, begin, count, data);
      }
    });
  }
}

} // namespace leakyrelu_ext::cpu
