#pragma once
// What every device's implementation of the ops shares: argument checks, allocation and layout. A backend supplies
//   empty_strided(sizes, strides, dtype, device)            -> Tensor
//   forward(input, output, mask or nullptr, negative_slope)  over dense tensors of one memory order; output may be input
//   backward(grad_output, mask, grad_input, negative_slope)  likewise
// and registers the ops with DeviceOps<Backend>::register_kernels(m).

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Scalar.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include <tuple>

#include "activation.h"
#include "dense.h"

namespace leakyrelu_ext {

inline void check_floating(const at::Tensor& tensor, const char* op, const char* argument) {
  const auto dtype = tensor.scalar_type();
  TORCH_CHECK_NOT_IMPLEMENTED(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16, op,
      "(): \"leaky_relu\" not implemented for '", dtype, "': argument '", argument,
      "' must be of dtype float64, float32, bfloat16 or float16");
}

/// The slope in the kernel's precision; raises on overflow, as the built-in does.
template <typename T>
opmath_t<T> slope_as(double negative_slope) {
  return c10::Scalar(negative_slope).to<opmath_t<T>>();
}

template <class Backend>
struct DeviceOps {
  static at::Tensor leaky_relu(const at::Tensor& input, double negative_slope) {
    check_floating(input, "leaky_relu", "input");
    at::Tensor output = empty_like(input);
    run_forward(input, output, nullptr, negative_slope);
    return output;
  }

  static at::Tensor& leaky_relu_(at::Tensor& input, double negative_slope) {
    check_inplace_input(input, "leaky_relu_");
    if (input.is_non_overlapping_and_dense()) {
      run_forward(input, input, nullptr, negative_slope);
    } else {
      input.copy_(leaky_relu(input, negative_slope));
    }
    return input;
  }

  static std::tuple<at::Tensor, at::Tensor> leaky_relu_forward(const at::Tensor& input, double negative_slope) {
    check_floating(input, "leaky_relu_forward", "input");
    at::Tensor output = empty_like(input);
    at::Tensor mask = empty_mask(input);
    run_forward(input, output, &mask, negative_slope);
    return {std::move(output), std::move(mask)};
  }

  static at::Tensor leaky_relu_forward_(at::Tensor& input, double negative_slope) {
    check_inplace_input(input, "leaky_relu_forward_");
    if (!input.is_non_overlapping_and_dense()) {
      auto [output, mask] = leaky_relu_forward(input, negative_slope);
      input.copy_(output);
      return mask;
    }
    at::Tensor mask = empty_mask(input);
    run_forward(input, input, &mask, negative_slope);
    return mask;
  }

  static at::Tensor leaky_relu_backward(
      const at::Tensor& grad_output,
      const at::Tensor& mask,
      double negative_slope,
      at::OptionalIntArrayRef output_strides) {
    check_floating(grad_output, "leaky_relu_backward", "grad_output");
    check_mask(grad_output, mask);
    at::Tensor grad_input = empty_for_backward(grad_output, output_strides);
    if (grad_output.numel() == 0) {
      return grad_input;
    }
    if (same_order(grad_output.sizes(), grad_output.strides(), grad_input.strides())) {
      Backend::backward(grad_output, mask, grad_input, negative_slope);
    } else {
      grad_input.copy_(grad_output);
      Backend::backward(grad_input, mask, grad_input, negative_slope);
    }
    return grad_input;
  }

  static void register_kernels(torch::Library& m) {
    m.impl("leaky_relu", TORCH_FN(leaky_relu));
    m.impl("leaky_relu_", TORCH_FN(leaky_relu_));
    m.impl("leaky_relu_forward", TORCH_FN(leaky_relu_forward));
    m.impl("leaky_relu_forward_", TORCH_FN(leaky_relu_forward_));
    m.impl("leaky_relu_backward", TORCH_FN(leaky_relu_backward));
  }

 private:
  static at::Tensor empty_like(const at::Tensor& input) {
    return Backend::empty_strided(input.sizes(), dense_strides(input), input.scalar_type(), input.device());
  }

  static at::Tensor empty_mask(const at::Tensor& input) {
    return Backend::empty_strided({mask_bytes(input.numel())}, {1}, at::kByte, input.device());
  }

  static at::Tensor empty_for_backward(const at::Tensor& grad_output, at::OptionalIntArrayRef output_strides) {
    const auto sizes = grad_output.sizes();
    if (!output_strides.has_value()) {
      return Backend::empty_strided(
          sizes, c10::contiguous_strides(sizes), grad_output.scalar_type(), grad_output.device());
    }
    TORCH_CHECK(
        output_strides->size() == sizes.size(),
        "leaky_relu_backward(): argument 'output_strides' must have one entry per dimension of 'grad_output' (",
        sizes.size(), "), got ", *output_strides);
    at::Tensor grad_input =
        Backend::empty_strided(sizes, *output_strides, grad_output.scalar_type(), grad_output.device());
    // The kernels write numel consecutive elements: strides that do not describe such memory must not reach them.
    TORCH_CHECK(
        grad_input.is_non_overlapping_and_dense(),
        "leaky_relu_backward(): argument 'output_strides' must describe dense, non-overlapping memory of shape ", sizes,
        ", got ", *output_strides);
    return grad_input;
  }

  static void check_inplace_input(const at::Tensor& input, const char* op) {
    check_floating(input, op, "input");
    TORCH_CHECK(
        at::has_internal_overlap(input) != at::MemOverlap::Yes, op,
        "(): unsupported operation: more than one element of the written-to tensor, argument 'input', refers to a "
        "single memory location. Please clone() the tensor before performing the operation.");
  }

  static void check_mask(const at::Tensor& grad_output, const at::Tensor& mask) {
    TORCH_CHECK(
        mask.scalar_type() == at::kByte && mask.dim() == 1 && mask.is_contiguous() &&
            mask.numel() == mask_bytes(grad_output.numel()),
        "leaky_relu_backward(): argument 'mask' must be a contiguous uint8 tensor of shape (",
        mask_bytes(grad_output.numel()), ",), one bit per element of 'grad_output', got ", mask.scalar_type(),
        " of shape ", mask.sizes());
    TORCH_CHECK(
        mask.device() == grad_output.device(),
        "leaky_relu_backward(): argument 'mask' must be on the device of "
        "'grad_output' (",
        grad_output.device(), "), got ", mask.device());
  }

  static void run_forward(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    if (input.numel() == 0) {
      return;
    }
    if (same_order(input.sizes(), input.strides(), output.strides())) {
      Backend::forward(input, output, mask, negative_slope);
    } else {
      output.copy_(input);
      Backend::forward(output, output, mask, negative_slope);
    }
  }
};

} // namespace leakyrelu_ext
