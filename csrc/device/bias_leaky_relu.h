#pragma once
// Shared by the bias_leaky_relu ops of all devices: argument checks, allocation and layout. A backend supplies
//   empty_strided(sizes, strides, dtype, device) -> Tensor
//   forward(BiasLeakyReLUForward)
//   backward(BiasLeakyReLUBackward)
// and registers the ops with BiasLeakyReLUOps<Backend>::register_kernels(m).

#include <ATen/core/Tensor.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include <array>
#include <cmath>
#include <tuple>

#include "../element/activation.h"
#include "../stats.h"
#include "../tensor/bias_leaky_relu.h"
#include "../tensor/checks.h"
#include "../tensor/dense.h"
#include "../tensor/promote.h"
#include "../torch_versions.h"
#include "leaky_relu.h"

namespace leakyrelu_ext {

/// A call with elements. `mask`: nullptr if not wanted; its first half says which sums were positive, and if
/// settings.has_passed(), a second half of the same size says where a gradient passes.
struct BiasLeakyReLUForward {
  const at::Tensor& input;    // any strides
  const at::Tensor* bias;     // contiguous, of the opmath dtype; nullptr: none
  const at::Tensor* residual; // of input's sizes and dtype, any strides; nullptr: none
  const at::Tensor& output;   // dense; may be input
  const at::Tensor* mask;
  Channels channels; // in output's memory order
  BiasLeakyReLUSettings settings;
};

/// A call with elements.
struct BiasLeakyReLUBackward {
  const at::Tensor& grad_output; // any strides
  const at::Tensor& mask;        // contiguous, in grad_input's memory order
  at::IntArrayRef strides;       // of grad_input, dense
  const at::Tensor* grad_input;  // may be grad_output; nullptr: not wanted
  const at::Tensor* grad_bias;   // contiguous, of any floating dtype; nullptr: not wanted
  Channels channels;
  BiasLeakyReLUSettings settings; // without clamp

  /// Whether the mask has a second half.
  bool has_passed() const {
    return mask.numel() != mask_bytes(grad_output.numel());
  }
};

/// The largest magnitude at which clamp() passes a gradient; negative if it passes none.
template <typename opmath>
opmath passing(opmath clamp) {
  if (kGradPassesAtBound) {
    return clamp;
  }
  return clamp > 0 ? std::nextafter(clamp, opmath(0)) : opmath(-1);
}

template <typename T>
BiasLeakyReLUConstants<opmath_t<T>> constants_as(const BiasLeakyReLUSettings& settings) {
  using opmath = opmath_t<T>;
  BiasLeakyReLUConstants<opmath> constants;
  constants.negative_slope = slope_as<T>(settings.negative_slope);
  constants.gain = static_cast<opmath>(settings.gain);
  constants.clamp = static_cast<opmath>(settings.clamp.value_or(0));
  constants.passing = passing(constants.clamp);
  constants.dropout_scale = static_cast<opmath>(settings.dropout_scale());
  constants.clamped = settings.clamp.has_value();
  return constants;
}

inline Channels channels_of(const at::Tensor& tensor, at::IntArrayRef dense_strides, int64_t dim) {
  dim = dim < 0 ? dim + tensor.dim() : dim;
  const int64_t count = tensor.size(dim);
  // A dimension of size 1 may have any stride.
  return {count, count == 1 ? tensor.numel() : dense_strides[dim]};
}

template <class Backend>
struct BiasLeakyReLUOps {
  static at::Tensor bias_leaky_relu(const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
    check_bias_leaky_relu("bias_leaky_relu", input, arguments);
    const Promoted operands = promote(input, arguments.residual);
    const at::Tensor output = empty_like(operands.input);
    run_forward(operands, arguments, output, nullptr);
    return output;
  }

  static at::Tensor& bias_leaky_relu_(at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
    check_bias_leaky_relu("bias_leaky_relu_", input, arguments);
    run_forward_("bias_leaky_relu_", input, arguments, nullptr);
    return input;
  }

  static std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_forward(
      const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
    check_bias_leaky_relu("bias_leaky_relu_forward", input, arguments);
    const Promoted operands = promote(input, arguments.residual);
    at::Tensor output = empty_like(operands.input);
    at::Tensor mask = empty_mask(input, arguments.settings());
    run_forward(operands, arguments, output, &mask);
    return {std::move(output), std::move(mask)};
  }

  static at::Tensor bias_leaky_relu_forward_(at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
    check_bias_leaky_relu("bias_leaky_relu_forward_", input, arguments);
    at::Tensor mask = empty_mask(input, arguments.settings());
    run_forward_("bias_leaky_relu_forward_", input, arguments, &mask);
    return mask;
  }

  static std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_backward(
      const at::Tensor& grad_output,
      const at::Tensor& mask,
      double negative_slope,
      at::OptionalIntArrayRef output_strides,
      double gain,
      double dropout_p,
      int64_t dim,
      at::ScalarType bias_dtype,
      std::array<bool, 2> output_mask) {
    constexpr auto op = "bias_leaky_relu_backward";
    const auto sizes = grad_output.sizes();
    c10::DimVector strides(c10::contiguous_strides(sizes));
    if (output_strides.has_value()) {
      check_strides_size(grad_output, output_strides->size(), op);
      check_dense(sizes, *output_strides, op);
      strides = c10::DimVector(*output_strides);
    }
    check_backward(op, grad_output, mask, dropout_p, dim, output_mask[1], bias_dtype);
    at::Tensor grad_input = output_mask[0]
        ? Backend::empty_strided(sizes, strides, grad_output.scalar_type(), grad_output.device())
        : Backend::empty_strided({0}, {1}, grad_output.scalar_type(), grad_output.device());
    at::Tensor grad_bias = run_backward(
        grad_output, mask, output_mask[0] ? &grad_input : nullptr, strides,
        {negative_slope, gain, std::nullopt, dropout_p}, dim, bias_dtype, output_mask[1]);
    return {std::move(grad_input), std::move(grad_bias)};
  }

  static at::Tensor bias_leaky_relu_backward_(
      at::Tensor& grad_output,
      const at::Tensor& mask,
      double negative_slope,
      double gain,
      double dropout_p,
      int64_t dim,
      at::ScalarType bias_dtype,
      bool with_bias) {
    constexpr auto op = "bias_leaky_relu_backward_";
    TORCH_CHECK(
        grad_output.is_non_overlapping_and_dense(), op, "(): argument 'grad_output' must be dense, got strides ",
        grad_output.strides(), " for shape ", grad_output.sizes());
    check_backward(op, grad_output, mask, dropout_p, dim, with_bias, bias_dtype);
    stats::count(stats::backward_into_grad_output);
    return run_backward(
        grad_output, mask, &grad_output, grad_output.strides(), {negative_slope, gain, std::nullopt, dropout_p}, dim,
        bias_dtype, with_bias);
  }

  static void register_kernels(torch::Library& m) {
    m.impl("bias_leaky_relu", TORCH_FN(Unpacked<bias_leaky_relu>::call));
    m.impl("bias_leaky_relu_", TORCH_FN(Unpacked<bias_leaky_relu_>::call));
    m.impl("bias_leaky_relu_forward", TORCH_FN(Unpacked<bias_leaky_relu_forward>::call));
    m.impl("bias_leaky_relu_forward_", TORCH_FN(Unpacked<bias_leaky_relu_forward_>::call));
    m.impl("bias_leaky_relu_backward", TORCH_FN(bias_leaky_relu_backward));
    m.impl("bias_leaky_relu_backward_", TORCH_FN(bias_leaky_relu_backward_));
  }

 private:
  static at::Tensor empty_like(const at::Tensor& input) {
    return Backend::empty_strided(input.sizes(), dense_strides(input), input.scalar_type(), input.device());
  }

  static at::Tensor empty_mask(const at::Tensor& input, const BiasLeakyReLUSettings& settings) {
    return Backend::empty_strided(
        {mask_bytes(input.numel()) * (settings.has_passed() ? 2 : 1)}, {1}, at::kByte, input.device());
  }

  static void run_forward(
      const Promoted& operands,
      const BiasLeakyReLUArguments& arguments,
      const at::Tensor& output,
      const at::Tensor* mask) {
    const auto& [input, residual] = operands;
    if (input.numel() == 0) {
      return;
    }
    at::Tensor bias_values, residual_values;
    Channels channels;
    if (arguments.bias.has_value()) {
      // Compare dtypes first: for a small tensor, every dispatcher call counts.
      const auto opmath = c10::promoteTypes(input.scalar_type(), at::kFloat);
      bias_values = arguments.bias->scalar_type() == opmath ? *arguments.bias : arguments.bias->to(opmath);
      bias_values = bias_values.contiguous();
      channels = channels_of(output, dense_strides(output), arguments.dim);
    }
    if (residual.has_value()) {
      residual_values = residual->sizes() == input.sizes() ? *residual : residual->expand(input.sizes());
    }
    Backend::forward(
        {input, arguments.bias.has_value() ? &bias_values : nullptr, residual.has_value() ? &residual_values : nullptr,
         output, mask, channels, arguments.settings()});
  }

  static void run_forward_(
      const char* op, const at::Tensor& input, const BiasLeakyReLUArguments& arguments, const at::Tensor* mask) {
    check_not_overlapping(input, op);
    check_holds(input, arguments.residual, op);
    const Promoted operands = promote(input, arguments.residual);
    // A bias or residual in the same memory would be overwritten before it is read.
    const bool shared = (arguments.bias.has_value() && arguments.bias->is_alias_of(input)) ||
        (arguments.residual.has_value() && arguments.residual->is_alias_of(input));
    if (input.is_non_overlapping_and_dense() && !shared) {
      run_forward(operands, arguments, input, mask);
    } else {
      const at::Tensor output = empty_like(input);
      run_forward(operands, arguments, output, mask);
      input.copy_(output);
    }
  }

  static void check_backward(
      const char* op,
      const at::Tensor& grad_output,
      const at::Tensor& mask,
      double dropout_p,
      int64_t dim,
      bool with_bias,
      at::ScalarType bias_dtype) {
    check_floating(grad_output, op, "grad_output");
    check_bias_leaky_relu_mask(grad_output, mask, dropout_p, op);
    check_bias_dtype(bias_dtype, op);
    if (with_bias) {
      check_dim(grad_output, dim, op, "grad_output");
    }
  }

  static at::Tensor run_backward(
      const at::Tensor& grad_output,
      const at::Tensor& mask,
      const at::Tensor* grad_input,
      at::IntArrayRef strides,
      const BiasLeakyReLUSettings& settings,
      int64_t dim,
      at::ScalarType bias_dtype,
      bool with_bias) {
    stats::count(stats::backward_calls);
    Channels channels;
    if (with_bias) {
      channels = channels_of(grad_output, strides, dim);
    }
    const at::Tensor grad_bias =
        Backend::empty_strided({with_bias ? channels.count : 0}, {1}, bias_dtype, grad_output.device());
    if (grad_output.numel() == 0) {
      grad_bias.zero_();
      return grad_bias;
    }
    Backend::backward(
        {grad_output, *mask.expect_contiguous(), strides, grad_input, with_bias ? &grad_bias : nullptr, channels,
         settings});
    return grad_bias;
  }
};

} // namespace leakyrelu_ext
