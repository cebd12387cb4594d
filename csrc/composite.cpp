// The ops spelled in ATen ops, and the dispatch keys that run them: devices without kernels of ours
// (CompositeExplicitAutograd), vmap (FuncTorchBatched) and functionalization (Functionalize).

#include "composite.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/where.h>
#include <c10/util/strides.h>
#include <torch/library.h>

#include <algorithm>
#include <numeric>

#include "activation.h"
#include "dense.h"
#include "ops.h"

namespace leakyrelu_ext {
namespace composite {
namespace {

/// Dimensions from the outermost to the innermost in memory.
std::vector<int64_t> memory_order(at::IntArrayRef strides) {
  std::vector<int64_t> order(strides.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return strides[a] > strides[b]; });
  return order;
}

at::Tensor bit_values(const at::Tensor& like) {
  return at::arange(kMaskBits, like.options().dtype(at::kByte)).exp2().to(at::kByte);
}

at::Tensor pack_mask(const at::Tensor& positive, at::IntArrayRef strides) {
  const int64_t n = positive.numel();
  const int64_t bytes = mask_bytes(n);
  const at::Tensor flat = positive.permute(memory_order(strides)).reshape({n}).to(at::kByte);
  const at::Tensor bits = at::constant_pad_nd(flat, {0, bytes * kMaskBits - n}).view({bytes, kMaskBits});
  return bits.mul(bit_values(bits)).sum(-1, /*keepdim=*/false, at::kByte);
}

at::Tensor unpack_mask(const at::Tensor& mask, at::IntArrayRef sizes, at::IntArrayRef strides) {
  const auto order = memory_order(strides);
  std::vector<int64_t> ordered_sizes(order.size());
  std::vector<int64_t> inverse(order.size());
  for (size_t d = 0; d < order.size(); ++d) {
    ordered_sizes[d] = sizes[order[d]];
    inverse[order[d]] = static_cast<int64_t>(d);
  }
  const int64_t n = c10::multiply_integers(sizes);
  const at::Tensor bits = mask.unsqueeze(-1).bitwise_and(bit_values(mask)).ne(0);
  return bits.reshape({mask_bytes(n) * kMaskBits}).slice(0, 0, n).view(ordered_sizes).permute(inverse);
}

} // namespace

at::Tensor& leaky_relu_(at::Tensor& input, double negative_slope) {
  // ATen's own in-place op recovers the sign of the input from its output, and so refuses a negative slope in the backward.
  return negative_slope < 0 ? input.copy_(at::leaky_relu(input.clone(), negative_slope))
                            : at::leaky_relu_(input, negative_slope);
}

std::tuple<at::Tensor, at::Tensor> leaky_relu_forward(const at::Tensor& input, double negative_slope) {
  at::Tensor output = at::leaky_relu(input, negative_slope);
  at::Tensor mask = pack_mask(input.gt(0), dense_strides(output));
  return {std::move(output), std::move(mask)};
}

at::Tensor leaky_relu_forward_(at::Tensor& input, double negative_slope) {
  at::Tensor mask = pack_mask(input.gt(0), dense_strides(input));
  leaky_relu_(input, negative_slope);
  return mask;
}

at::Tensor leaky_relu_backward(
    const at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    at::OptionalIntArrayRef output_strides) {
  const auto sizes = grad_output.sizes();
  const c10::DimVector strides =
      output_strides.has_value() ? c10::DimVector(*output_strides) : c10::contiguous_strides(sizes);
  return at::where(unpack_mask(mask, sizes, strides), grad_output, grad_output.mul(negative_slope));
}

} // namespace composite

namespace {

at::Tensor& leaky_relu_functionalized_(at::Tensor& input, double negative_slope) {
  return input.copy_(ops::leaky_relu().call(input, negative_slope));
}

at::Tensor leaky_relu_forward_functionalized_(at::Tensor& input, double negative_slope) {
  auto [output, mask] = ops::leaky_relu_forward().call(input, negative_slope);
  input.copy_(output);
  return mask;
}

at::Tensor leaky_relu_by_aten(const at::Tensor& input, double negative_slope) {
  return at::leaky_relu(input, negative_slope);
}

void register_composites(torch::Library& m) {
  m.impl("leaky_relu", TORCH_FN(leaky_relu_by_aten));
  m.impl("leaky_relu_", TORCH_FN(composite::leaky_relu_));
  m.impl("leaky_relu_forward", TORCH_FN(composite::leaky_relu_forward));
  m.impl("leaky_relu_forward_", TORCH_FN(composite::leaky_relu_forward_));
  m.impl("leaky_relu_backward", TORCH_FN(composite::leaky_relu_backward));
}

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CompositeExplicitAutograd, m) {
  register_composites(m);
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, FuncTorchBatched, m) {
  register_composites(m);
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, Functionalize, m) {
  m.impl("leaky_relu_", TORCH_FN(leaky_relu_functionalized_));
  m.impl("leaky_relu_forward_", TORCH_FN(leaky_relu_forward_functionalized_));
}

} // namespace leakyrelu_ext
