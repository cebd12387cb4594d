#pragma once
// Checks that all implementations of an op share. Messages name the op, the argument, its value and what is accepted.

#include <ATen/MemoryOverlap.h>
#include <ATen/core/Tensor.h>
#include <c10/core/InferenceMode.h>
#include <c10/core/Scalar.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "../element/activation.h"
#include "../torch_versions.h"

namespace leakyrelu_ext {

inline void check_floating(const at::Tensor& tensor, const char* op, const char* argument) {
  const auto dtype = tensor.scalar_type();
  LEAKYRELU_EXT_CHECK_DTYPE(
      dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16, op,
      "(): \"leaky_relu\" not implemented for '", dtype, "': argument '", argument,
      "' must be of dtype float64, float32, bfloat16 or float16");
}

/// Like the built-in, raises if the slope overflows the precision of the arithmetic, even for an empty tensor.
inline void check_slope(at::ScalarType dtype, double negative_slope) {
  if (dtype != at::kDouble) {
    c10::Scalar(negative_slope).to<float>();
  }
}

/// Explains a mask of the wrong dtype.
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

/// The kernels write numel consecutive elements, so strides must describe such memory.
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

/// Layouts without kernels raise the same exception type as the built-in.
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

/// PyTorch's own check comes with the version counter's increment, after the write; this one comes before.
inline void check_not_inference(const at::Tensor& input) {
  TORCH_CHECK(
      !input.is_inference() || c10::InferenceMode::is_enabled(),
      "Inplace update to inference tensor outside InferenceMode is not allowed. You can make a clone to get a normal "
      "tensor before doing inplace update.");
}

} // namespace leakyrelu_ext
