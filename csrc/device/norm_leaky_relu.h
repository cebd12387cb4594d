#pragma once
// Shared by the norm_leaky_relu ops of all devices with kernels: which calls these take, allocation and layout. A
// backend supplies
//   empty_strided(sizes, strides, dtype, device) -> Tensor
//   forward(NormForward)
//   backward(NormBackward)
// and registers the ops with NormOps<Backend>::register_kernels(m).

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include <array>
#include <optional>
#include <tuple>

#include "../composite/norm_leaky_relu.h"
#include "../stats.h"
#include "../tensor/checks.h"
#include "../tensor/norm_leaky_relu.h"
#include "leaky_relu.h"

namespace leakyrelu_ext {

/// A call with elements. All tensors but the parameters lie in memory as `shape` says.
struct NormForward {
  const at::Tensor& input;
  const std::optional<at::Tensor>& weight;
  const std::optional<at::Tensor>& bias;
  const std::optional<at::Tensor>& running_mean;
  const std::optional<at::Tensor>& running_var;
  const at::Tensor* residual; // nullptr: none
  const at::Tensor& output;
  const at::Tensor& statistics;
  const at::Tensor* mask; // nullptr: not wanted
  NormShape shape;
  bool use_input_stats;
  double momentum;
  double eps;
  double negative_slope;
};

/// A call with elements.
struct NormBackward {
  const at::Tensor& grad_output;
  const at::Tensor& input;
  const at::Tensor& statistics;
  const at::Tensor* mask;          // nullptr: signs follow from the statistics
  const at::Tensor* grad_input;    // nullptr, like the next: not wanted; may be grad_output
  const at::Tensor* grad_residual; // may be grad_input
  const at::Tensor* grad_weight;
  const at::Tensor* grad_bias;
  NormShape shape;
  bool use_input_stats;
  double negative_slope;
};

/// Whether kernels take the call. All others are PyTorch's own to compute or to refuse.
inline bool norm_kernels_take(const at::Tensor& input, const NormArguments& arguments) {
  const auto dtype = input.scalar_type();
  if ((dtype != at::kFloat && dtype != at::kDouble && dtype != at::kHalf && dtype != at::kBFloat16) ||
      input.dim() < 2 || input.numel() == 0 || !(arguments.eps >= 0)) {
    return false;
  }
  const int64_t channels = input.size(1), groups = arguments.num_groups;
  if (groups < 0 || (groups > 0 && channels % groups != 0)) {
    return false;
  }
  const bool running = arguments.running_mean.has_value();
  if (running != arguments.running_var.has_value() || (!arguments.use_input_stats && !running) ||
      (running && groups != 0 && groups != channels)) {
    return false;
  }
  for (const auto* statistic : {&arguments.running_mean, &arguments.running_var}) {
    if (statistic->has_value() &&
        ((*statistic)->requires_grad() || ((*statistic)->is_inference() && !c10::InferenceMode::is_enabled()) ||
         ((*statistic)->dim() == 1 && (*statistic)->stride(0) == 0 && channels > 1))) {
      return false; // may not be written
    }
  }
  std::optional<at::ScalarType> parameters;
  for (const auto* parameter : {&arguments.weight, &arguments.bias, &arguments.running_mean, &arguments.running_var}) {
    if (!parameter->has_value()) {
      continue;
    }
    const at::Tensor& values = **parameter;
    const auto of_values = values.scalar_type();
    const bool wider = of_values == at::kFloat && (dtype == at::kHalf || dtype == at::kBFloat16);
    if (values.unsafeGetTensorImpl()->is_python_dispatch() || values.device() != input.device() ||
        values.layout() != at::kStrided || values.dim() != 1 || values.size(0) != channels ||
        !(of_values == dtype || wider) || parameters.value_or(of_values) != of_values) {
      return false;
    }
    parameters = of_values;
  }
  const auto& residual = arguments.residual;
  return !residual.has_value() ||
      (residual->sizes() == input.sizes() && residual->scalar_type() == dtype && residual->device() == input.device() &&
       residual->layout() == at::kStrided && !residual->unsafeGetTensorImpl()->is_python_dispatch());
}

template <class Backend>
struct NormOps {
  using Forward = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  using Backward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
  using BackwardInPlace = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

  static at::Tensor norm_leaky_relu(const at::Tensor& input, const NormArguments& arguments) {
    if (!norm_kernels_take(input, arguments)) {
      return composite::norm_leaky_relu(input, arguments);
    }
    return std::get<0>(run_forward(input, arguments, false));
  }

  static Forward norm_leaky_relu_forward(const at::Tensor& input, const NormArguments& arguments, bool with_mask) {
    if (!norm_kernels_take(input, arguments)) {
      return composite::norm_leaky_relu_forward(input, arguments, with_mask);
    }
    return run_forward(input, arguments, with_mask);
  }

  static Backward norm_leaky_relu_backward(
      const at::Tensor& grad_output,
      const at::Tensor& given_input,
      const at::Tensor& statistics,
      const std::optional<at::Tensor>& weight,
      const at::Tensor& mask,
      int64_t num_groups,
      bool use_input_stats,
      double eps,
      double negative_slope,
      std::array<bool, 4> output_mask) {
    check_norm_backward(
        "norm_leaky_relu_backward", grad_output, given_input, statistics, weight, mask, num_groups, use_input_stats,
        negative_slope);
    if (given_input.numel() == 0) {
      return composite::norm_leaky_relu_backward(
          grad_output, given_input, statistics, weight, mask, num_groups, use_input_stats, eps, negative_slope,
          output_mask);
    }
    const auto format = norm_memory_format(given_input);
    const at::Tensor input = given_input.contiguous(format), grad = grad_output.contiguous(format);
    const at::Tensor grad_input = like_input_if(output_mask[0], input);
    const auto [grad_weight, grad_bias, grad_residual] = run_backward(
        grad, input, statistics, weight, mask, num_groups, use_input_stats, negative_slope,
        output_mask[0] ? &grad_input : nullptr, {output_mask[1], output_mask[2], output_mask[3]});
    return {grad_input, grad_weight, grad_bias, grad_residual};
  }

  static BackwardInPlace norm_leaky_relu_backward_(
      at::Tensor& grad_output,
      const at::Tensor& given_input,
      const at::Tensor& statistics,
      const std::optional<at::Tensor>& weight,
      const at::Tensor& mask,
      int64_t num_groups,
      bool use_input_stats,
      double eps,
      double negative_slope,
      std::array<bool, 3> output_mask) {
    check_norm_backward(
        "norm_leaky_relu_backward_", grad_output, given_input, statistics, weight, mask, num_groups, use_input_stats,
        negative_slope);
    at::assert_no_partial_overlap(grad_output, given_input);
    at::assert_no_overlap(grad_output, statistics);
    at::assert_no_overlap(grad_output, mask);
    const at::Tensor input = given_input.contiguous(norm_memory_format(given_input));
    if (input.numel() == 0 || grad_output.strides() != input.strides()) {
      return composite::norm_leaky_relu_backward_(
          grad_output, input, statistics, weight, mask, num_groups, use_input_stats, eps, negative_slope, output_mask);
    }
    stats::count(stats::backward_into_grad_output);
    return run_backward(
        grad_output, input, statistics, weight, mask, num_groups, use_input_stats, negative_slope, &grad_output,
        output_mask);
  }

  static void register_kernels(torch::Library& m) {
    m.impl("norm_leaky_relu", TORCH_FN(NormUnpacked<norm_leaky_relu>::call));
    m.impl("norm_leaky_relu_forward", TORCH_FN(NormUnpacked<norm_leaky_relu_forward>::call));
    m.impl("norm_leaky_relu_backward", TORCH_FN(norm_leaky_relu_backward));
    m.impl("norm_leaky_relu_backward_", TORCH_FN(norm_leaky_relu_backward_));
  }

 private:
  static at::Tensor empty_like(const at::Tensor& input) {
    return Backend::empty_strided(input.sizes(), input.strides(), input.scalar_type(), input.device());
  }

  static at::Tensor like_input_if(bool wanted, const at::Tensor& input) {
    return wanted ? empty_like(input) : Backend::empty_strided({0}, {1}, input.scalar_type(), input.device());
  }

  /// All tensors but `statistics` and `weight` lie in memory as `input`. grad_input may be grad_output.
  static BackwardInPlace run_backward(
      const at::Tensor& grad_output,
      const at::Tensor& input,
      const at::Tensor& statistics,
      const std::optional<at::Tensor>& weight,
      const at::Tensor& mask,
      int64_t num_groups,
      bool use_input_stats,
      double negative_slope,
      const at::Tensor* grad_input,
      std::array<bool, 3> output_mask) {
    // Kernels write parameters of the dtypes that a forward takes.
    const auto dtype = input.scalar_type();
    const auto of_weight = weight.has_value() ? weight->scalar_type() : statistics.scalar_type();
    const auto per_channel = [&](bool wanted) {
      const auto written = of_weight == dtype ? dtype : statistics.scalar_type();
      return Backend::empty_strided({wanted ? input.size(1) : 0}, {1}, written, input.device());
    };
    const at::Tensor grad_weight = per_channel(output_mask[0]), grad_bias = per_channel(output_mask[1]),
                     grad_residual = like_input_if(output_mask[2], input);
    stats::count(stats::backward_calls);
    const auto if_wanted = [&](int i, const at::Tensor& tensor) { return output_mask[i] ? &tensor : nullptr; };
    Backend::backward(
        {grad_output, input, statistics.contiguous(), mask.numel() == 0 ? nullptr : &mask, grad_input,
         if_wanted(2, grad_residual), if_wanted(0, grad_weight), if_wanted(1, grad_bias),
         NormShape(input, num_groups, use_input_stats), use_input_stats, negative_slope});
    const auto as_weight = [&](const at::Tensor& grad) {
      return grad.scalar_type() == of_weight ? grad : grad.to(of_weight);
    };
    return {as_weight(grad_weight), as_weight(grad_bias), grad_residual};
  }

  static Forward run_forward(const at::Tensor& given_input, const NormArguments& arguments, bool with_mask) {
    check_slope(given_input.scalar_type(), arguments.negative_slope);
    const auto format = norm_memory_format(given_input);
    const at::Tensor input = given_input.contiguous(format);
    const NormShape shape(input, arguments.num_groups, arguments.use_input_stats);
    const auto opmath = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    at::Tensor output = empty_like(input);
    at::Tensor statistics = Backend::empty_strided({shape.sizes().numel()}, {1}, opmath, input.device());
    at::Tensor mask = Backend::empty_strided({with_mask ? shape.mask_bytes() : 0}, {1}, at::kByte, input.device());
    std::optional<at::Tensor> residual;
    if (arguments.residual.has_value()) {
      residual = arguments.residual->contiguous(format);
    }
    Backend::forward(
        {input, arguments.weight, arguments.bias, arguments.running_mean, arguments.running_var,
         residual.has_value() ? &*residual : nullptr, output, statistics, with_mask ? &mask : nullptr, shape,
         arguments.use_input_stats, arguments.momentum, arguments.eps, arguments.negative_slope});
    return {std::move(output), std::move(statistics), std::move(mask)};
  }

  static void check_norm_backward(
      const char* op,
      const at::Tensor& grad_output,
      const at::Tensor& input,
      const at::Tensor& statistics,
      const std::optional<at::Tensor>& weight,
      const at::Tensor& mask,
      int64_t num_groups,
      bool use_input_stats,
      double negative_slope) {
    check_floating(input, op, "input");
    check_slope(input.scalar_type(), negative_slope);
    TORCH_CHECK(
        grad_output.sizes() == input.sizes() && grad_output.scalar_type() == input.scalar_type() &&
            grad_output.device() == input.device(),
        op, "(): argument 'grad_output' must be of the shape, dtype and device of 'input', ", input.sizes(), ", ",
        input.scalar_type(), ", ", input.device(), ", got ", grad_output.sizes(), ", ", grad_output.scalar_type(), ", ",
        grad_output.device());
    check_num_groups(input, num_groups, op);
    const NormShape shape(input, num_groups, use_input_stats);
    const auto opmath = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    TORCH_CHECK(
        statistics.scalar_type() == opmath && statistics.dim() == 1 && statistics.size(0) == shape.sizes().numel() &&
            statistics.device() == input.device(),
        op, "(): argument 'statistics' must be of shape (", shape.sizes().numel(), ",), ", opmath, ", on ",
        input.device(), ", got ", statistics.sizes(), ", ", statistics.scalar_type(), ", ", statistics.device());
    TORCH_CHECK(
        mask.scalar_type() == at::kByte && mask.dim() == 1 && mask.is_contiguous() &&
            (mask.numel() == 0 || mask.numel() == shape.mask_bytes()) && mask.device() == input.device(),
        op, "(): argument 'mask' must be a contiguous uint8 tensor of shape (0,) or (", shape.mask_bytes(), ",), got ",
        mask.scalar_type(), " of shape ", mask.sizes(), mask_hint(mask));
    TORCH_CHECK(
        !weight.has_value() ||
            (weight->dim() == 1 && weight->size(0) == input.size(1) && at::isFloatingType(weight->scalar_type())),
        op, "(): argument 'weight' must be floating-point of shape (", input.size(1), ",), got ",
        weight.has_value() ? weight->scalar_type() : at::kFloat, " of shape ",
        weight.has_value() ? weight->sizes() : at::IntArrayRef());
  }
};

} // namespace leakyrelu_ext
