#pragma once
// The arguments of the bias_leaky_relu ops as one object, and their checks.

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>

#include <optional>

#include "../element/activation.h"
#include "../element/bias_leaky_relu.h"
#include "../torch_versions.h"
#include "checks.h"

namespace leakyrelu_ext {

/// All arguments but input.
struct BiasLeakyReLUArguments {
  const std::optional<at::Tensor>& bias;
  double negative_slope;
  const std::optional<at::Tensor>& residual;
  int64_t dim;
  double gain;
  std::optional<double> clamp;
  double dropout_p;

  BiasLeakyReLUSettings settings() const {
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

  BiasLeakyReLUArguments with(
      const std::optional<at::Tensor>& other_bias, const std::optional<at::Tensor>& other_residual) const {
    return {other_bias, negative_slope, other_residual, dim, gain, clamp, dropout_p};
  }
};

/// Adapts function(input, arguments) or function(keys, input, arguments) to the dispatcher. (Signature is a parameter
/// for nvcc, which takes specialisations that differ only in the function's type for the same one.)
template <auto function, typename Signature = decltype(function)>
struct Unpacked;

template <auto function, typename Result, typename Input>
struct Unpacked<function, Result (*)(Input, const BiasLeakyReLUArguments&)> {
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
struct Unpacked<function, Result (*)(c10::DispatchKeySet, Input, const BiasLeakyReLUArguments&)> {
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

inline void check_dim(const at::Tensor& tensor, int64_t dim, const char* op, const char* argument) {
  TORCH_CHECK_INDEX(
      dim >= -tensor.dim() && dim < tensor.dim(), op, "(): argument 'dim' must be a dimension of '", argument,
      "', from ", -tensor.dim(), " to ", tensor.dim() - 1, ", got ", dim);
}

/// Like check_mask, but the mask may have a second half.
inline void check_bias_leaky_relu_mask(
    const at::Tensor& grad_output, const at::Tensor& mask, double dropout_p, const char* op) {
  const c10::SymInt bytes = mask_bytes(grad_output.sym_numel());
  TORCH_CHECK(
      mask.device() == grad_output.device(), op, "(): argument 'mask' must be on the device of 'grad_output' (",
      grad_output.device(), "), got ", mask.device());
  const bool fits = mask.sym_numel() == bytes * 2 || (mask.sym_numel() == bytes && !(dropout_p > 0));
  TORCH_CHECK(
      mask.scalar_type() == at::kByte && mask.dim() == 1 && fits, op,
      "(): argument 'mask' must be a uint8 tensor of shape (", bytes, ",), or with clamp or dropout (", bytes * 2,
      ",), one or two bits per element of 'grad_output', got ", mask.scalar_type(), " of shape ", mask.sym_sizes(),
      mask_hint(mask));
}

inline void check_bias_dtype(at::ScalarType dtype, const char* op) {
  LEAKYRELU_EXT_CHECK_DTYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16, op,
      "(): argument 'bias_dtype' must be float64, float32, bfloat16 or float16, got ", dtype);
}

/// The checks that the forward ops share.
inline void check_bias_leaky_relu(const char* op, const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  const auto& [bias, negative_slope, residual, dim, gain, clamp, dropout_p] = arguments;
  const auto check_tensor = [&](const at::Tensor& tensor, const char* argument) {
    const auto dtype = tensor.scalar_type();
    LEAKYRELU_EXT_CHECK_DTYPE(
        dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16, op,
        "(): argument '", argument, "' must be of dtype float64, float32, bfloat16 or float16, got ", dtype);
    TORCH_CHECK(
        tensor.device() == input.device(), op, "(): argument '", argument, "' must be on the device of 'input' (",
        input.device(), "), got ", tensor.device());
  };
  check_tensor(input, "input");
  if (bias.has_value()) {
    check_tensor(*bias, "bias");
    check_dim(input, dim, op, "input");
    TORCH_CHECK(
        bias->dim() == 1 && bias->sym_size(0) == input.sym_size(dim), op, "(): argument 'bias' must be of shape (",
        input.sym_size(dim), ",), the size of 'input' in dim ", dim, ", got ", bias->sym_sizes());
  }
  if (residual.has_value()) {
    check_tensor(*residual, "residual");
    bool fits = residual->dim() <= input.dim();
    for (int64_t d = 1; fits && d <= residual->dim(); ++d) {
      fits = residual->sym_size(-d) == 1 || residual->sym_size(-d) == input.sym_size(-d);
    }
    TORCH_CHECK(
        fits, op, "(): argument 'residual' must broadcast to the shape of 'input' ", input.sym_sizes(), ", got ",
        residual->sym_sizes());
  }
  check_slope(
      residual.has_value() ? c10::promoteTypes(input.scalar_type(), residual->scalar_type()) : input.scalar_type(),
      negative_slope);
  TORCH_CHECK_VALUE(
      !clamp.has_value() || *clamp >= 0, op, "(): argument 'clamp' must be at least 0, or None, got ", *clamp);
  TORCH_CHECK_VALUE(
      dropout_p >= 0 && dropout_p <= 1, op, "(): argument 'dropout_p' must be from 0 to 1, got ", dropout_p);
}

/// In place, input's dtype must be that of the sum.
inline void check_holds(const at::Tensor& input, const std::optional<at::Tensor>& residual, const char* op) {
  TORCH_CHECK(
      !residual.has_value() || c10::promoteTypes(input.scalar_type(), residual->scalar_type()) == input.scalar_type(),
      op, "(): argument 'residual' of dtype ", residual->scalar_type(), " makes results that 'input' of dtype ",
      input.scalar_type(), " cannot hold in place");
}

inline void check_layouts(const at::Tensor& input, const BiasLeakyReLUArguments& arguments, const char* op) {
  check_layout(input, op);
  if (arguments.bias.has_value()) {
    check_layout(*arguments.bias, op, "bias");
  }
  if (arguments.residual.has_value()) {
    check_layout(*arguments.residual, op, "residual");
  }
}

} // namespace leakyrelu_ext
