#pragma once
// bias_leaky_relu composed of ATen ops, for transforms, tracers and devices without native kernels.

#include <ATen/core/Tensor.h>

#include <array>
#include <tuple>

#include "../tensor/bias_leaky_relu.h"

namespace leakyrelu_ext::composite {

at::Tensor bias_leaky_relu(const at::Tensor& input, const BiasLeakyReLUArguments& arguments);

at::Tensor& bias_leaky_relu_(at::Tensor& input, const BiasLeakyReLUArguments& arguments);

std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_forward(
    const at::Tensor& input, const BiasLeakyReLUArguments& arguments);

at::Tensor bias_leaky_relu_forward_(at::Tensor& input, const BiasLeakyReLUArguments& arguments);

std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_backward(
    const at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    at::OptionalSymIntArrayRef output_strides,
    double gain,
    double dropout_p,
    int64_t dim,
    at::ScalarType bias_dtype,
    std::array<bool, 2> output_mask);

} // namespace leakyrelu_ext::composite
