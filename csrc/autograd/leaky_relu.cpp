// Autograd of the leaky_relu ops: derivatives (key Autograd) and version counters (key ADInplaceOrView).
// Schemas: ../ops.cpp.

#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/leaky_relu_backward.h>
#include <torch/library.h>

#include "../composite/leaky_relu.h"
#include "../ops.h"
#include "../tensor/checks.h"
#include "leaky_relu.h"
#include "mask_node.h"
#include "route.h"

namespace leakyrelu_ext {
namespace {

using torch::autograd::variable_list;

/// The backward under an observer mode: the mode sees aten's op, called on a tensor with the input's signs.
template <class Node>
at::Tensor observed_backward(
    const at::Tensor& grad_output, const at::Tensor& mask, double negative_slope, const OutputStrides& output_strides) {
  at::Tensor signs;
  {
    const UnobservedGuard unobserved;
    at::AutoDispatchBelowADInplaceOrView guard;
    check_mask(grad_output, mask, "leaky_relu_backward");
    const at::Tensor positive = composite::unpack_mask(mask, grad_output.sym_sizes(), as_ref(output_strides));
    signs = positive.to(grad_output.scalar_type()).sub(0.5);
  }
  if (route(grad_output) != Route::record) {
    return at::leaky_relu_backward(grad_output, signs, negative_slope, /*self_is_result=*/false);
  }
  const auto node = node_for<Node>({negative_slope}, grad_output);
  at::Tensor grad_input;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    grad_input = at::leaky_relu_backward(grad_output, signs, negative_slope, /*self_is_result=*/false);
  }
  torch::autograd::set_history(grad_input, node);
  node->mask = torch::autograd::SavedVariable(mask, /*is_output=*/false);
  node->output_strides = output_strides;
  complete(node);
  return grad_input;
}

/// The node of forward and backward: once the mask is given, both are linear.
template <NodeKind kind>
struct LeakyReLUNode final : MaskNode<LeakyReLUNode<kind>, std::tuple<double>> {
  using Settings = std::tuple<double>;
  static constexpr const char* kName = kNodeNames[static_cast<int>(kind)];

  static variable_list grads(
      const at::Tensor& grad_output,
      const at::Tensor& mask,
      const Settings& settings,
      const OutputStrides& output_strides,
      Wanted /*wanted*/) {
    if (!grad_output.defined()) {
      return {at::Tensor()};
    }
    const auto [negative_slope] = settings;
    if (intercepts(grad_output)) {
      return {composite::leaky_relu_backward(grad_output, mask, negative_slope, as_ref(output_strides))};
    }
    if (observer_active() && !functorch_active()) {
      return {observed_backward<LeakyReLUNode<NodeKind::ours>>(grad_output, mask, negative_slope, output_strides)};
    }
    return {ops::leaky_relu_backward().call(grad_output, mask, negative_slope, as_ref(output_strides))};
  }

  static variable_list grads_in_place(
      at::Tensor grad_output, const at::Tensor& mask, const Settings& settings, Wanted /*wanted*/) {
    ops::leaky_relu_backward_().call(grad_output, mask, std::get<0>(settings));
    return {std::move(grad_output)};
  }
};

using LeakyReLUBackward = LeakyReLUNode<NodeKind::ours>;

/// The op that observer modes see for a recorded call: ours, with a mask, or aten's.
enum class Shown { op, aten };

/// Returns only the mask; modes do not see the call.
at::Tensor unobserved_mask(const at::Tensor& input, double negative_slope) {
  const UnobservedGuard unobserved;
  return std::get<1>(ops::leaky_relu_forward().call(input, negative_slope));
}

template <NodeKind kind>
std::tuple<at::Tensor, at::Tensor> record_forward(const at::Tensor& input, double negative_slope, Shown shown) {
  const auto node = node_for<LeakyReLUNode<kind>>({negative_slope}, input);
  at::Tensor output, mask;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    if (shown == Shown::aten && observer_active()) {
      output = at::leaky_relu(input, negative_slope);
      mask = unobserved_mask(input, negative_slope);
    } else {
      std::tie(output, mask) = ops::leaky_relu_forward().call(input, negative_slope);
    }
  }
  if (kind != NodeKind::ours) {
    as_elementwise_strides(input, output);
  }
  record(node, output, mask);
  return {std::move(output), std::move(mask)};
}

template <NodeKind kind>
at::Tensor record_forward_(at::Tensor& input, double negative_slope, Shown shown) {
  const auto node = node_for<LeakyReLUNode<kind>>({negative_slope}, input);
  at::Tensor mask;
  {
    at::AutoDispatchBelowAutograd guard;
    if (shown == Shown::aten && observer_active()) {
      mask = unobserved_mask(input, negative_slope);
      at::leaky_relu_(input, negative_slope);
    } else {
      mask = ops::leaky_relu_forward_().call(input, negative_slope);
    }
  }
  record_inplace(node, input, mask);
  return mask;
}

at::Tensor leaky_relu_autograd(c10::DispatchKeySet keys, const at::Tensor& input, double negative_slope) {
  switch (route(input)) {
    case Route::record:
      return std::get<0>(record_forward<NodeKind::ours>(input, negative_slope, Shown::op));
    case Route::aten:
      return at::leaky_relu(input, negative_slope);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return ops::leaky_relu().redispatch(keys & c10::after_autograd_keyset, input, negative_slope);
}

std::tuple<at::Tensor, at::Tensor> leaky_relu_forward_autograd(
    c10::DispatchKeySet keys, const at::Tensor& input, double negative_slope) {
  switch (route(input)) {
    case Route::record:
      return record_forward<NodeKind::ours>(input, negative_slope, Shown::op);
    case Route::aten:
      return composite::leaky_relu_forward(input, negative_slope);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return ops::leaky_relu_forward().redispatch(keys & c10::after_autograd_keyset, input, negative_slope);
}

at::Tensor& leaky_relu_autograd_(c10::DispatchKeySet keys, at::Tensor& input, double negative_slope) {
  // Raise autograd's errors before any byte is overwritten.
  torch::autograd::check_inplace(input, torch::autograd::compute_requires_grad(input));
  switch (route(input)) {
    case Route::record:
      record_forward_<NodeKind::ours>(input, negative_slope, Shown::op);
      return input;
    case Route::aten:
      return composite::leaky_relu_(input, negative_slope);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowAutograd guard;
  return ops::leaky_relu_().redispatch(keys & c10::after_autograd_keyset, input, negative_slope);
}

at::Tensor leaky_relu_forward_autograd_(c10::DispatchKeySet keys, at::Tensor& input, double negative_slope) {
  torch::autograd::check_inplace(input, torch::autograd::compute_requires_grad(input));
  switch (route(input)) {
    case Route::record:
      return record_forward_<NodeKind::ours>(input, negative_slope, Shown::op);
    case Route::aten:
      return composite::leaky_relu_forward_(input, negative_slope);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowAutograd guard;
  return ops::leaky_relu_forward_().redispatch(keys & c10::after_autograd_keyset, input, negative_slope);
}

at::Tensor leaky_relu_backward_autograd(
    c10::DispatchKeySet keys,
    const at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    at::OptionalSymIntArrayRef output_strides) {
  switch (route(grad_output)) {
    case Route::record: {
      const auto node = node_for<LeakyReLUBackward>({negative_slope}, grad_output);
      at::Tensor grad_input;
      {
        at::AutoDispatchBelowADInplaceOrView guard;
        grad_input = ops::leaky_relu_backward().call(grad_output, mask, negative_slope, output_strides);
      }
      record(node, grad_input, mask);
      return grad_input;
    }
    case Route::aten:
      return composite::leaky_relu_backward(grad_output, mask, negative_slope, output_strides);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return ops::leaky_relu_backward().redispatch(
      keys & c10::after_autograd_keyset, grad_output, mask, negative_slope, output_strides);
}

void leaky_relu_backward_autograd_(
    c10::DispatchKeySet keys, at::Tensor& grad_output, const at::Tensor& mask, double negative_slope) {
  check_no_derivative(grad_output, "leaky_relu_backward_");
  at::AutoDispatchBelowAutograd guard;
  ops::leaky_relu_backward_().redispatch(keys & c10::after_autograd_keyset, grad_output, mask, negative_slope);
}

at::Tensor& leaky_relu_version_(c10::DispatchKeySet keys, at::Tensor& input, double negative_slope) {
  check_not_inference(input);
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ops::leaky_relu_().redispatch(keys & c10::after_ADInplaceOrView_keyset, input, negative_slope);
  }
  torch::autograd::increment_version(input);
  return input;
}

at::Tensor leaky_relu_forward_version_(c10::DispatchKeySet keys, at::Tensor& input, double negative_slope) {
  check_not_inference(input);
  at::Tensor mask;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    mask = ops::leaky_relu_forward_().redispatch(keys & c10::after_ADInplaceOrView_keyset, input, negative_slope);
  }
  torch::autograd::increment_version(input);
  return mask;
}

void leaky_relu_backward_version_(
    c10::DispatchKeySet keys, at::Tensor& grad_output, const at::Tensor& mask, double negative_slope) {
  check_not_inference(grad_output);
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    ops::leaky_relu_backward_().redispatch(keys & c10::after_ADInplaceOrView_keyset, grad_output, mask, negative_slope);
  }
  torch::autograd::increment_version(grad_output);
}

} // namespace

const std::type_info& node_type(NodeKind kind) {
  static const std::type_info* const types[] = {
      &typeid(LeakyReLUNode<NodeKind::ours>), &typeid(LeakyReLUNode<NodeKind::aten>),
      &typeid(LeakyReLUNode<NodeKind::aten_inplace>)};
  return *types[static_cast<int>(kind)];
}

double saved_negative_slope(const torch::autograd::Node& node) {
  return dynamic_cast<const SavesMask&>(node).negative_slope();
}

at::Tensor saved_mask(const torch::autograd::Node& node) {
  return dynamic_cast<const SavesMask&>(node).saved_mask();
}

at::Tensor record_leaky_relu(const at::Tensor& input, double negative_slope, bool under_aten) {
  const auto record_as = under_aten ? record_forward<NodeKind::aten> : record_forward<NodeKind::ours>;
  return std::get<0>(record_as(input, negative_slope, Shown::aten));
}

void record_leaky_relu_(at::Tensor& input, double negative_slope, bool under_aten) {
  const auto record_as = under_aten ? record_forward_<NodeKind::aten_inplace> : record_forward_<NodeKind::ours>;
  record_as(input, negative_slope, Shown::aten);
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, Autograd, m) {
  m.impl("leaky_relu", TORCH_FN(leaky_relu_autograd));
  m.impl("leaky_relu_", TORCH_FN(leaky_relu_autograd_));
  m.impl("leaky_relu_forward", TORCH_FN(leaky_relu_forward_autograd));
  m.impl("leaky_relu_forward_", TORCH_FN(leaky_relu_forward_autograd_));
  m.impl("leaky_relu_backward", TORCH_FN(leaky_relu_backward_autograd));
  m.impl("leaky_relu_backward_", TORCH_FN(leaky_relu_backward_autograd_));
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, ADInplaceOrView, m) {
  m.impl("leaky_relu_", TORCH_FN(leaky_relu_version_));
  m.impl("leaky_relu_forward_", TORCH_FN(leaky_relu_forward_version_));
  m.impl("leaky_relu_backward_", TORCH_FN(leaky_relu_backward_version_));
}

} // namespace leakyrelu_ext
