#pragma once
// The arguments that bias_leaky_relu and its kin share, as one object.

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>

#include <optional>

#include "family.h"

namespace leakyrelu_ext {

/// All but input.
struct FamilyArguments {
  const std::optional<at::Tensor>& bias;
  double negative_slope;
  const std::optional<at::Tensor>& residual;
  int64_t dim;
  double gain;
  std::optional<double> clamp;
  double dropout_p;

  Family family() const {
    return {negative_slope, gain, clamp, dropout_p};
  }

  template <typename Op, typename Input>
  decltype(auto) call(const Op& op, Input& input) const {
    return op.call(input, bias, negative_slope, residual, dim, gain, clamp, dropout_p);
  }

  template <typename Op, typename Input>
  decltype(auto) redispatch(const Op& op, c10::DispatchKeySet keys, Input& input) const {
    return op.redispatch(keys, input, bias, negative_slope, residual, dim, gain, clamp, dropout_p);
  }

  FamilyArguments with(
      const std::optional<at::Tensor>& other_bias, const std::optional<at::Tensor>& other_residual) const {
    return {other_bias, negative_slope, other_residual, dim, gain, clamp, dropout_p};
  }
};

/// A function of (input, arguments), or (keys, input, arguments), as the dispatcher calls it. (Signature is a parameter for nvcc,
/// which takes specialisations by the function's type alone for the same one.)
template <auto function, typename Signature = decltype(function)>
struct Unpacked;

template <auto function, typename Result, typename Input>
struct Unpacked<function, Result (*)(Input, const FamilyArguments&)> {
  static Result call(
      Input input,
      const std::optional<at::Tensor>& bias,
      double negative_slope,
      const std::optional<at::Tensor>& residual,
      int64_t dim,
      double gain,
      std::optional<double> clamp,
      double dropout_p) {
    return function(input, {bias, negative_slope, residual, dim, gain, clamp, dropout_p});
  }
};

template <auto function, typename Result, typename Input>
struct Unpacked<function, Result (*)(c10::DispatchKeySet, Input, const FamilyArguments&)> {
  static Result call(
      c10::DispatchKeySet keys,
      Input input,
      const std::optional<at::Tensor>& bias,
      double negative_slope,
      const std::optional<at::Tensor>& residual,
      int64_t dim,
      double gain,
      std::optional<double> clamp,
      double dropout_p) {
    return function(keys, input, {bias, negative_slope, residual, dim, gain, clamp, dropout_p});
  }
};

} // namespace leakyrelu_ext
