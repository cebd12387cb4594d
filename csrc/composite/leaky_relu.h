#pragma once
// The leaky_relu ops composed of ATen ops, for transforms, tracers and devices without native kernels.

#include <ATen/core/Tensor.h>

#include <tuple>

namespace leakyrelu_ext::composite {

/// Like at::leaky_relu_, but differentiable with any slope.
at::Tensor& leaky_relu_(at::Tensor& input, const at::Scalar& negative_slope);

std::tuple<at::Tensor, at::Tensor> leaky_relu_forward(const at::Tensor& input, double negative_slope);

at::Tensor leaky_relu_forward_(at::Tensor& input, double negative_slope);

at::Tensor leaky_relu_backward(
    const at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    at::OptionalSymIntArrayRef output_strides);

void leaky_relu_backward_(at::Tensor& grad_output, const at::Tensor& mask, double negative_slope);

/// Packs one bit per element, in the memory order that `strides` describe.
at::Tensor pack_mask(const at::Tensor& bits, c10::SymIntArrayRef strides);

/// Unpacks a mask into a bool tensor of shape `sizes`. `strides` describe its memory order; nullopt: contiguous.
at::Tensor unpack_mask(const at::Tensor& mask, c10::SymIntArrayRef sizes, at::OptionalSymIntArrayRef strides);

} // namespace leakyrelu_ext::composite
