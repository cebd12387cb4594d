#pragma once
// The types of norm_leaky_relu's loops. Free of ATen.
//
// A loop works on `rows` rows of n consecutive elements each, one row after the other. Statistics are per row of
// memory's channels: kConstant: one value, there is one row; kArray: n values, the same for every row. Each row's mask
// begins a byte.

#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "../../element/norm_leaky_relu.h"

namespace leakyrelu_ext::cpu {

enum class Stores : bool;

/// leaky_relu((input - mean) * scale + shift + residual). Unused pointers are nullptr.
template <typename T>
struct NormForwardRun {
  const T* input;
  const T* residual;
  const opmath_t<T>* mean;
  const opmath_t<T>* scale;
  const opmath_t<T>* shift;
  T* output; // may be input
  uint8_t* mask;
  int64_t n;
  int64_t rows;
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
  int64_t n;
  int64_t rows;
};

template <typename T>
struct NormLoops {
  /// Writes a pair per channel: the mean, and the sum of squared distances from it.
  void (*moments)(const T* input, int64_t n, int64_t rows, double* pairs);
  void (*forward)(const NormForwardRun<T>& run, opmath_t<T> negative_slope, Stores stores);
  /// Writes a pair per channel: the sum of the norm's gradients, and of their products with input - mean.
  void (*sums)(const NormBackwardRun<T>& run, opmath_t<T> negative_slope, double* pairs);
  void (*backward)(const NormBackwardRun<T>& run, opmath_t<T> negative_slope, Stores stores);
};

} // namespace leakyrelu_ext::cpu
