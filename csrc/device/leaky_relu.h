#pragma once
// Shared by the leaky_relu ops of all devices: argument checks, allocation and layout. A backend supplies
//   empty_strided(sizes, strides, dtype, device)            -> Tensor
//   forward(input, output, mask or nullptr, negative_slope)  on dense tensors of one memory order; output may be input
//   backward(grad_output, mask, grad_input, negative_slope)  likewise
//   forward_strided   like forward, with any strided input; output is dense, or is input (no elements share memory)
//   backward_strided  like backward, with any strided grad_output; grad_input is dense
// and registers the ops with DeviceOps<Backend>::register_kernels(m).

#include <ATen/core/Tensor.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include <cmath>
#include <limits>
#include <tuple>

#include "../element/activation.h"
#include "../stats.h"
#include "../tensor/checks.h"
#include "../tensor/dense.h"

namespace leakyrelu_ext {

/// The slope in the kernel's precision. All NaN become the same: the bfloat16 kernels round as integers, which could
/// carry a NaN's low payload bits over into another number.
template <typename T>
opmath_t<T> slope_as(double negative_slope) {
  return std::isnan(negative_slope) ? std::numeric_limits<opmath_t<T>>::quiet_NaN()
                                    : static_cast<opmath_t<T>>(negative_slope);
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
    run_forward_(input, nullptr, negative_slope);
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
    at::Tensor mask = empty_mask(input);
    run_forward_(input, &mask, negative_slope);
    return mask;
  }

  static at::Tensor leaky_relu_backward(
      const at::Tensor& grad_output,
      const at::Tensor& mask,
      double negative_slope,
      at::OptionalIntArrayRef output_strides) {
    check_floating(grad_output, "leaky_relu_backward", "grad_output");
    check_slope(grad_output.scalar_type(), negative_slope);
    check_mask(grad_output, mask, "leaky_relu_backward");
    const auto bits = mask.expect_contiguous();
    at::Tensor grad_input = empty_for_backward(grad_output, output_strides);
    stats::count(stats::backward_calls);
    if (grad_output.numel() == 0) {
      return grad_input;
    }
    if (same_order(grad_output.sizes(), grad_output.strides(), grad_input.strides())) {
      Backend::backward(grad_output, *bits, grad_input, negative_slope);
    } else {
      Backend::backward_strided(grad_output, *bits, grad_input, negative_slope);
    }
    return grad_input;
  }

  static void leaky_relu_backward_(at::Tensor& grad_output, const at::Tensor& mask, double negative_slope) {
    check_floating(grad_output, "leaky_relu_backward_", "grad_output");
    check_slope(grad_output.scalar_type(), negative_slope);
    check_mask(grad_output, mask, "leaky_relu_backward_");
    TORCH_CHECK(
        grad_output.is_non_overlapping_and_dense(),
        "leaky_relu_backward_(): argument 'grad_output' must be dense, got strides ", grad_output.strides(),
        " for shape ", grad_output.sizes());
    stats::count(stats::backward_calls);
    stats::count(stats::backward_into_grad_output);
    if (grad_output.numel() != 0) {
      Backend::backward(grad_output, *mask.expect_contiguous(), grad_output, negative_slope);
    }
  }

  static void register_kernels(torch::Library& m) {
    m.impl("leaky_relu", TORCH_FN(leaky_relu));
    m.impl("leaky_relu_", TORCH_FN(leaky_relu_));
    m.impl("leaky_relu_forward", TORCH_FN(leaky_relu_forward));
    m.impl("leaky_relu_forward_", TORCH_FN(leaky_relu_forward_));
    m.impl("leaky_relu_backward", TORCH_FN(leaky_relu_backward));
    m.impl("leaky_relu_backward_", TORCH_FN(leaky_relu_backward_));
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
    check_strides_size(grad_output, output_strides->size(), "leaky_relu_backward");
    check_dense(sizes, *output_strides, "leaky_relu_backward");
    return Backend::empty_strided(sizes, *output_strides, grad_output.scalar_type(), grad_output.device());
  }

  static void check_inplace_input(const at::Tensor& input, const char* op) {
    check_floating(input, op, "input");
    check_not_overlapping(input, op);
  }

  static void run_forward(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    check_slope(input.scalar_type(), negative_slope);
    if (input.numel() == 0) {
      return;
    }
    if (same_order(input.sizes(), input.strides(), output.strides())) {
      Backend::forward(input, output, mask, negative_slope);
    } else {
      Backend::forward_strided(input, output, mask, negative_slope);
    }
  }

  static void run_forward_(const at::Tensor& input, const at::Tensor* mask, double negative_slope) {
    if (input.is_non_overlapping_and_dense()) {
      run_forward(input, input, mask, negative_slope);
    } else if (!may_overlap(input)) {
      check_slope(input.scalar_type(), negative_slope);
      Backend::forward_strided(input, input, mask, negative_slope);
    } else { // every element is read before the first is written
      const at::Tensor output = empty_like(input);
      run_forward(input, output, mask, negative_slope);
      input.copy_(output);
    }
  }
};

} // namespace leakyrelu_ext
