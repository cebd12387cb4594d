#pragma once
// norm_leaky_relu composed of ATen ops, for transforms, tracers, devices without native kernels, and calls that the
// kernels do not take: PyTorch's own norms handle them, or raise.

#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

#include "../tensor/norm_leaky_relu.h"

namespace leakyrelu_ext::composite {

/// Differentiable.
at::Tensor norm_leaky_relu(const at::Tensor& input, const NormArguments& arguments);

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_forward(
    const at::Tensor& input, const NormArguments& arguments, bool with_mask);

/// Differentiable in grad_output, input and weight.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_backward(
    const at::Tensor& grad_output,
    const at::Tensor& input,
    const at::Tensor& statistics,
    const std::optional<at::Tensor>& weight,
    const at::Tensor& mask,
    int64_t num_groups,
    bool use_input_stats,
    double eps,
    double negative_slope,
    std::array<bool, 4> output_mask);

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_backward_(
    at::Tensor& grad_output,
    const at::Tensor& input,
    const at::Tensor& statistics,
    const std::optional<at::Tensor>& weight,
    const at::Tensor& mask,
    int64_t num_groups,
    bool use_input_stats,
    double eps,
    double negative_slope,
    std::array<bool, 3> output_mask);

} // namespace leakyrelu_ext::composite
