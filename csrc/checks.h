#pragma once
// Refusals that every implementation of an op shares. Messages name the op, the argument, what came and what is accepted.

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/Scalar.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "activation.h"
#include "family_arguments.h"
#include "torch_versions.h"

namespace leakyrelu_ext {

inline void check_floating(const at::Tensor& tensor, const char* op, const char* argument) {
  const auto dtype = tensor.scalar_type();
  LEAKYRELU_EXT_CHECK_DTYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16, op,
      "(): \"leaky_relu\" not implemented for '", dtype, "': argument '", argument,
      "' must be of dtype float64, float32, bfloat16 or float16");
}

/// As the built-in: a slope that overflows the precision of the arithmetic is refused, also for an empty tensor.
inline void check_slope(at::ScalarType dtype, double negative_slope) {
  if (dtype != at::kDouble) {
    c10::Scalar(negative_slope).to<float>();
  }
}

/// What a mask has been through that is none.
inline const char* mask_hint(const at::Tensor& mask) {
  return mask.scalar_type() == at::kByte
      ? ""
      : ". Saved-tensor hooks that cast must leave integer tensors as they are: cast "
        "only what is_floating_point()";
}

inline void check_mask(const at::Tensor& grad_output, const at::Tensor& mask, const char* op) {
  TORCH_CHECK(
      mask.device() == grad_output.device(), op, "(): argument 'mask' must be on the device of 'grad_output' (",
      grad_output.device(), "), got ", mask.device());
  TORCH_CHECK(
      mask.scalar_type() == at::kByte && mask.dim() == 1 && mask.sym_numel() == mask_bytes(grad_output.sym_numel()), op,
      "(): argument 'mask' must be a uint8 tensor of shape (", mask_bytes(grad_output.sym_numel()),
      ",), one bit per element of 'grad_output', got ", mask.scalar_type(), " of shape ", mask.sym_sizes(),
      mask_hint(mask));
}

inline void check_strides_size(const at::Tensor& grad_output, size_t strides, const char* op) {
  TORCH_CHECK(
      strides == static_cast<size_t>(grad_output.dim()), op,
      "(): argument 'output_strides' must have one entry per dimension of 'grad_output' (", grad_output.dim(),
      "), got ", strides);
}

/// The kernels write numel consecutive elements: strides that do not describe such memory must not reach them.
inline void check_dense(at::IntArrayRef sizes, at::IntArrayRef strides, const char* op) {
  std::vector<int64_t> ascending(sizes.size());
  std::iota(ascending.begin(), ascending.end(), 0);
  std::stable_sort(ascending.begin(), ascending.end(), [&](int64_t a, int64_t b) { return strides[a] < strides[b]; });
  const bool empty = std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
  bool dense = true;
  int64_t expected = 1;
  for (const int64_t d : ascending) {
    dense = dense && strides[d] >= 0 && (empty || sizes[d] == 1 || strides[d] == expected);
    expected *= sizes[d];
  }
  TORCH_CHECK(
      dense, op, "(): argument 'output_strides' must describe dense, non-overlapping memory of shape ", sizes, ", got ",
      strides);
}

inline void check_dim(const at::Tensor& tensor, int64_t dim, const char* op, const char* argument) {
  TORCH_CHECK_INDEX(
      dim >= -tensor.dim() && dim < tensor.dim(), op, "(): argument 'dim' must be a dimension of '", argument,
      "', from ", -tensor.dim(), " to ", tensor.dim() - 1, ", got ", dim);
}

/// As check_mask, with or without a second half.
inline void check_family_mask(const at::Tensor& grad_output, const at::Tensor& mask, double dropout_p, const char* op) {
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

/// What bias_leaky_relu and its kin refuse.
inline void check_family(const char* op, const at::Tensor& input, const FamilyArguments& arguments) {
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

/// In place, input must hold what the addition gives.
inline void check_holds(const at::Tensor& input, const std::optional<at::Tensor>& residual, const char* op) {
  TORCH_CHECK(
      !residual.has_value() || c10::promoteTypes(input.scalar_type(), residual->scalar_type()) == input.scalar_type(),
      op, "(): argument 'residual' of dtype ", residual->scalar_type(), " makes results that 'input' of dtype ",
      input.scalar_type(), " cannot hold in place");
}

/// Layouts that no kernel takes: the exception type that the built-in raises for each.
inline void check_layout(const at::Tensor& input, const char* op, const char* argument = "input") {
  const auto layout = input.layout();
  TORCH_CHECK_NOT_IMPLEMENTED(
      layout != at::kSparse && !input.is_nested(), op, "(): argument '", argument,
      "' must be a strided or a jagged nested tensor, got ",
      input.is_nested() ? "a strided nested tensor" : "layout Sparse");
  TORCH_CHECK(
      layout == at::kStrided, op, "(): argument '", argument, "' must be a strided tensor, got layout ", layout);
}

inline void check_not_overlapping(const at::Tensor& input, const char* op) {
  TORCH_CHECK(
      at::has_internal_overlap(input) != at::MemOverlap::Yes, op,
      "(): unsupported operation: more than one element of the written-to tensor, argument 'input', refers to a "
      "single memory location. Please clone() the tensor before performing the operation.");
}

inline void check_layouts(const at::Tensor& input, const FamilyArguments& arguments, const char* op) {
  check_layout(input, op);
  if (arguments.bias.has_value()) {
    check_layout(*arguments.bias, op, "bias");
  }
  if (arguments.residual.has_value()) {
    check_layout(*arguments.residual, op, "residual");
  }
}

/// PyTorch's own refusal comes with the version counter's step, after the write; this one comes before.
inline void check_not_inference(const at::Tensor& input) {
  TORCH_CHECK(
      !input.is_inference() || c10::InferenceMode::is_enabled(),
      "Inplace update to inference tensor outside InferenceMode is not allowed. You can make a clone to get a normal "
      "tensor before doing inplace update.");
}

} // namespace leakyrelu_ext
