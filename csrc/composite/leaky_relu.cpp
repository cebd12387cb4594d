// The leaky_relu ops composed of ATen ops, and the dispatch keys that use them: devices without native kernels
// (CompositeExplicitAutograd), vmap (FuncTorchBatched), functionalization (Functionalize) and lazy negation (Negative).

#include "leaky_relu.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/where.h>
#include <torch/library.h>

#include <algorithm>
#include <numeric>

#include "../element/activation.h"
#include "../ops.h"
#include "../tensor/checks.h"
#include "../tensor/dense.h"
#include "functionalize.h"

namespace leakyrelu_ext {
namespace composite {
namespace {

/// Dimensions from the outermost to the innermost in memory.
std::vector<int64_t> memory_order(c10::SymIntArrayRef strides) {
  std::vector<int64_t> order(strides.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return strides[a] > strides[b]; });
  return order;
}

at::Tensor bit_values(const at::Tensor& like) {
  return at::arange(kMaskBits, like.options().dtype(at::kByte)).exp2().to(at::kByte);
}

} // namespace

at::Tensor pack_mask(const at::Tensor& positive, c10::SymIntArrayRef strides) {
  const c10::SymInt n = positive.sym_numel();
  const c10::SymInt bytes = mask_bytes(n);
  const at::Tensor flat = positive.permute(memory_order(strides)).reshape_symint({n}).to(at::kByte);
  const at::Tensor padded = at::constant_pad_nd_symint(flat, {0, bytes * kMaskBits - n}, 0);
  return padded.view_symint({bytes, kMaskBits}).mul(bit_values(flat)).sum(-1, /*keepdim=*/false, at::kByte);
}

at::Tensor unpack_mask(const at::Tensor& mask, c10::SymIntArrayRef sizes, at::OptionalSymIntArrayRef strides) {
  const c10::SymInt n = c10::multiply_integers(sizes);
  const at::Tensor bits = mask.unsqueeze(-1).bitwise_and(bit_values(mask)).ne(0);
  const at::Tensor flat = bits.reshape_symint({mask_bytes(n) * kMaskBits}).slice_symint(0, 0, n);
  if (!strides.has_value()) {
    return flat.view_symint(sizes);
  }
  const auto order = memory_order(*strides);
  std::vector<c10::SymInt> ordered_sizes(order.size());
  std::vector<int64_t> inverse(order.size());
  for (size_t d = 0; d < order.size(); ++d) {
    ordered_sizes[d] = sizes[order[d]];
    inverse[order[d]] = static_cast<int64_t>(d);
  }
  return flat.view_symint(ordered_sizes).permute(inverse);
}

at::Tensor& leaky_relu_(at::Tensor& input, const at::Scalar& negative_slope) {
  check_not_inference(input);
  // ATen's in-place op infers the input's sign from its output, so its backward refuses negative slopes.
  const bool recoverable = !negative_slope.isSymbolic() && negative_slope.toDouble() >= 0;
  return recoverable ? at::leaky_relu_(input, negative_slope)
                     : input.copy_(at::leaky_relu(input.clone(), negative_slope));
}

std::tuple<at::Tensor, at::Tensor> leaky_relu_forward(const at::Tensor& input, double negative_slope) {
  check_floating(input, "leaky_relu_forward", "input");
  at::Tensor output = at::leaky_relu(input, negative_slope);
  at::Tensor mask = pack_mask(input.gt(0), dense_sym_strides(output));
  return {std::move(output), std::move(mask)};
}

at::Tensor leaky_relu_forward_(at::Tensor& input, double negative_slope) {
  check_floating(input, "leaky_relu_forward_", "input");
  at::Tensor mask = pack_mask(input.gt(0), dense_sym_strides(input));
  composite::leaky_relu_(input, negative_slope);
  return mask;
}

at::Tensor leaky_relu_backward(
    const at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    at::OptionalSymIntArrayRef output_strides) {
  check_floating(grad_output, "leaky_relu_backward", "grad_output");
  check_mask(grad_output, mask, "leaky_relu_backward");
  if (output_strides.has_value()) {
    check_strides_size(grad_output, output_strides->size(), "leaky_relu_backward");
  }
  const at::Tensor positive = unpack_mask(mask, grad_output.sym_sizes(), output_strides);
  return at::where(positive, grad_output, grad_output.mul(negative_slope));
}

void leaky_relu_backward_(at::Tensor& grad_output, const at::Tensor& mask, double negative_slope) {
  const c10::SymDimVector strides(grad_output.sym_strides());
  grad_output.copy_(leaky_relu_backward(grad_output, mask, negative_slope, c10::SymIntArrayRef(strides)));
}

} // namespace composite

namespace {

at::Tensor& leaky_relu_functionalized_(at::Tensor& input, double negative_slope) {
  if (!functionalization::isFunctionalTensor(input)) {
    at::AutoDispatchSkipFunctionalize guard;
    return ops::leaky_relu_().call(input, negative_slope);
  }
  replace_value(
      input, [&](const at::Tensor& value) { return std::make_tuple(ops::leaky_relu().call(value, negative_slope)); });
  return input;
}

at::Tensor leaky_relu_forward_functionalized_(at::Tensor& input, double negative_slope) {
  if (!functionalization::isFunctionalTensor(input)) {
    at::AutoDispatchSkipFunctionalize guard;
    return ops::leaky_relu_forward_().call(input, negative_slope);
  }
  const auto results = replace_value(
      input, [&](const at::Tensor& value) { return ops::leaky_relu_forward().call(value, negative_slope); });
  return functionalization::to_functional_tensor(std::get<1>(results));
}

void leaky_relu_backward_functionalized_(at::Tensor& grad_output, const at::Tensor& mask, double negative_slope) {
  const at::Tensor bits = plain_value(mask);
  if (!functionalization::isFunctionalTensor(grad_output)) {
    at::AutoDispatchSkipFunctionalize guard;
    return ops::leaky_relu_backward_().call(grad_output, bits, negative_slope);
  }
  replace_value(grad_output, [&](const at::Tensor& value) {
    return std::make_tuple(ops::leaky_relu_backward().call(value, bits, negative_slope, value.sym_strides()));
  });
}

at::Tensor leaky_relu_by_aten(const at::Tensor& input, double negative_slope) {
  return at::leaky_relu(input, negative_slope);
}

at::Tensor& leaky_relu_by_aten_(at::Tensor& input, double negative_slope) {
  return composite::leaky_relu_(input, negative_slope);
}

void register_composites(torch::Library& m) {
  m.impl("leaky_relu", TORCH_FN(leaky_relu_by_aten));
  m.impl("leaky_relu_", TORCH_FN(leaky_relu_by_aten_));
  m.impl("leaky_relu_forward", TORCH_FN(composite::leaky_relu_forward));
  m.impl("leaky_relu_forward_", TORCH_FN(composite::leaky_relu_forward_));
  m.impl("leaky_relu_backward", TORCH_FN(composite::leaky_relu_backward));
  m.impl("leaky_relu_backward_", TORCH_FN(composite::leaky_relu_backward_));
}

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CompositeExplicitAutograd, m) {
  register_composites(m);
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, FuncTorchBatched, m) {
  register_composites(m);
}

// For tensors with the negative bit (the imaginary part of a lazy conjugate). PyTorch's fallback for those serves the
// other ops, but it expects a writing op to return the written tensor; this one returns the mask.
TORCH_LIBRARY_IMPL(leakyrelu_ext, Negative, m) {
  m.impl("leaky_relu_forward_", TORCH_FN(composite::leaky_relu_forward_));
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, Functionalize, m) {
  m.impl("leaky_relu_", TORCH_FN(leaky_relu_functionalized_));
  m.impl("leaky_relu_forward_", TORCH_FN(leaky_relu_forward_functionalized_));
  m.impl("leaky_relu_backward_", TORCH_FN(leaky_relu_backward_functionalized_));
}

} // namespace leakyrelu_ext
