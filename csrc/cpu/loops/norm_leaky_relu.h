#pragma once
// The types of norm_leaky_relu's loops. Free of ATen.
//
// A loop works on rows of consecutive elements. Statistics are values per channel: kConstant: one for a row; kArray: one
// for each element of a row, the same for every row. Each row's mask begins a byte.

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "../../element/norm_leaky_relu.h"

namespace leakyrelu_ext::cpu {

enum class Stores : bool;

/// Rows of n elements, `step` elements from one to the next: a multiple of n, with masks where there are several.
struct NormRows {
  int64_t n;
  int64_t count;
  int64_t step;
  int64_t entry_step; // kConstant: of statistics, from one row to the next, 0 or 1

  int64_t mask_step() const {
    return step / n * mask_bytes(n);
  }
};

/// leaky_relu((input - mean) * scale + shift + residual). Unused pointers are nullptr.
template <typename T>
struct NormForwardRun {
  const T* input;
  const T* residual;
  const opmath_t<T>* mean;
  const opmath_t<T>* scale;
  const opmath_t<T>* shift;
  T* output;
  uint8_t* mask;
  NormRows rows;
};

template <typename T>
struct NormBackwardRun {
  const T* grad_output;
  const T* input;
  const uint8_t* mask;
  const opmath_t<T>* mean;
  const opmath_t<T>* scale;
  const opmath_t<T>* shift;
  // How the statistics depend on the input: grad_input gains ((input - mean) * along + offset) * rstd. nullptr: they do
  // not.
  const opmath_t<T>* along;
  const opmath_t<T>* offset;
  const opmath_t<T>* rstd;
  T* grad_input; // may be grad_output
  T* grad_residual;
  NormRows rows;
};

template <typename T>
struct NormLoops {
  // Results are pairs. kConstant: one for each `rows_of_pair` rows; kArray: one for each element of a row.
  /// Writes the mean, and the sum of squared distances from it.
  void (*moments)(const T* input, const NormRows& rows, int64_t rows_of_pair, double* pairs);
  void (*forward)(const NormForwardRun<T>& run, opmath_t<T> negative_slope, Stores stores);
  /// Writes the sum of the norm's gradients, and of their products with input - mean. kConstant: rows of one pair have the
  /// same statistics.
  void (*sums)(const NormBackwardRun<T>& run, opmath_t<T> negative_slope, int64_t rows_of_pair, double* pairs);
  void (*backward)(const NormBackwardRun<T>& run, opmath_t<T> negative_slope, Stores stores);
};

} // namespace leakyrelu_ext::cpu
