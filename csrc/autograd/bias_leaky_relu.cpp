// Autograd of the bias_leaky_relu ops: derivatives (key Autograd) and version counters (key ADInplaceOrView).
// Schemas: ../ops.cpp.

#include <torch/library.h>

#include "../composite/bias_leaky_relu.h"
#include "../ops.h"
#include "../tensor/bias_leaky_relu.h"
#include "../tensor/checks.h"
#include "../tensor/promote.h"
#include "bias_leaky_relu.h"
#include "mask_node.h"
#include "route.h"

namespace leakyrelu_ext {
namespace {

using torch::autograd::variable_list;

/// Edges: to input, bias, residual. Settings: negative_slope, gain, dropout_p, dim, dtype of the bias.
struct BiasLeakyReLUBackward final
    : MaskNode<BiasLeakyReLUBackward, std::tuple<double, double, double, int64_t, int64_t>> {
  static constexpr const char* kName = kBiasLeakyReLUNodeName;

  static variable_list grads(
      const at::Tensor& grad_output,
      const at::Tensor& mask,
      const Settings& settings,
      const OutputStrides& output_strides,
      Wanted wanted) {
    if (!grad_output.defined()) {
      return variable_list(3);
    }
    const auto [negative_slope, gain, dropout_p, dim, bias_dtype] = settings;
    const std::array<bool, 2> output_mask{wanted[0] || wanted[2], wanted[1]};
    const auto dtype = static_cast<at::ScalarType>(bias_dtype);
    const auto [grad_input, grad_bias] = intercepts(grad_output)
        ? composite::bias_leaky_relu_backward(
              grad_output, mask, negative_slope, as_ref(output_strides), gain, dropout_p, dim, dtype, output_mask)
        : ops::bias_leaky_relu_backward().call(
              grad_output, mask, negative_slope, as_ref(output_strides), gain, dropout_p, dim, dtype, output_mask);
    return only(wanted, grad_input, grad_bias);
  }

  static variable_list grads_in_place(
      at::Tensor grad_output, const at::Tensor& mask, const Settings& settings, Wanted wanted) {
    const auto [negative_slope, gain, dropout_p, dim, bias_dtype] = settings;
    const at::Tensor grad_bias = ops::bias_leaky_relu_backward_().call(
        grad_output, mask, negative_slope, gain, dropout_p, dim, static_cast<at::ScalarType>(bias_dtype), wanted[1]);
    return only(wanted, grad_output, grad_bias);
  }

 private:
  /// Input and residual share one gradient tensor, as in PyTorch's addition.
  static variable_list only(Wanted wanted, const at::Tensor& grad_input, const at::Tensor& grad_bias) {
    return {
        wanted[0] ? grad_input : at::Tensor(), wanted[1] ? grad_bias : at::Tensor(),
        wanted[2] ? grad_input : at::Tensor()};
  }
};

const at::Tensor& or_undefined(const std::optional<at::Tensor>& tensor) {
  static const at::Tensor undefined;
  return tensor.has_value() ? *tensor : undefined;
}

void check(const char* op, const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_layouts(input, arguments, op);
  check_bias_leaky_relu(op, input, arguments);
}

Route route_of(const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  return route(input, or_undefined(arguments.bias), or_undefined(arguments.residual));
}

auto node_of(const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  const auto dtype = arguments.bias.has_value() ? arguments.bias->scalar_type() : input.scalar_type();
  return node_for<BiasLeakyReLUBackward>(
      {arguments.negative_slope, arguments.gain, arguments.dropout_p, arguments.dim, static_cast<int64_t>(dtype)},
      input, or_undefined(arguments.bias), or_undefined(arguments.residual));
}

/// The residual in input's dtype and shape, by differentiable ops.
std::optional<at::Tensor> fitted_residual(const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  if (!arguments.residual.has_value()) {
    return std::nullopt;
  }
  const at::Tensor same_dtype = arguments.residual->to(input.scalar_type());
  return same_dtype.sym_sizes() == input.sym_sizes() ? same_dtype : same_dtype.expand_symint(input.sym_sizes());
}

std::tuple<at::Tensor, at::Tensor> record_forward(
    const at::Tensor& given, const BiasLeakyReLUArguments& given_arguments) {
  check("bias_leaky_relu", given, given_arguments);
  const at::Tensor input = promote(given, given_arguments.residual).input;
  const auto residual = fitted_residual(input, given_arguments);
  const BiasLeakyReLUArguments arguments = given_arguments.with(given_arguments.bias, residual);
  const auto node = node_of(input, arguments);
  std::tuple<at::Tensor, at::Tensor> outputs;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    outputs = arguments.call(ops::bias_leaky_relu_forward(), input);
  }
  record(node, std::get<0>(outputs), std::get<1>(outputs));
  return outputs;
}

at::Tensor record_forward_(at::Tensor& input, const BiasLeakyReLUArguments& given_arguments) {
  check("bias_leaky_relu_", input, given_arguments);
  check_holds(input, given_arguments.residual, "bias_leaky_relu_");
  const auto residual = fitted_residual(input, given_arguments);
  const BiasLeakyReLUArguments arguments = given_arguments.with(given_arguments.bias, residual);
  const auto node = node_of(input, arguments);
  at::Tensor mask;
  {
    at::AutoDispatchBelowAutograd guard;
    mask = arguments.call(ops::bias_leaky_relu_forward_(), input);
  }
  record_inplace(node, input, mask);
  return mask;
}

at::Tensor bias_leaky_relu_autograd(
    c10::DispatchKeySet keys, const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  switch (route_of(input, arguments)) {
    case Route::record:
      return std::get<0>(record_forward(input, arguments));
    case Route::aten:
      return composite::bias_leaky_relu(input, arguments);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return arguments.redispatch(ops::bias_leaky_relu(), keys & c10::after_autograd_keyset, input);
}

std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_forward_autograd(
    c10::DispatchKeySet keys, const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  switch (route_of(input, arguments)) {
    case Route::record:
      return record_forward(input, arguments);
    case Route::aten:
      return composite::bias_leaky_relu_forward(input, arguments);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return arguments.redispatch(ops::bias_leaky_relu_forward(), keys & c10::after_autograd_keyset, input);
}

/// Raises autograd's errors before any byte is overwritten.
void check_inplace(const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  torch::autograd::check_inplace(
      input,
      torch::autograd::compute_requires_grad(input, or_undefined(arguments.bias), or_undefined(arguments.residual)));
}

at::Tensor& bias_leaky_relu_autograd_(
    c10::DispatchKeySet keys, at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_inplace(input, arguments);
  switch (route_of(input, arguments)) {
    case Route::record:
      record_forward_(input, arguments);
      return input;
    case Route::aten:
      return composite::bias_leaky_relu_(input, arguments);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowAutograd guard;
  return arguments.redispatch(ops::bias_leaky_relu_(), keys & c10::after_autograd_keyset, input);
}

at::Tensor bias_leaky_relu_forward_autograd_(
    c10::DispatchKeySet keys, at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_inplace(input, arguments);
  switch (route_of(input, arguments)) {
    case Route::record:
      return record_forward_(input, arguments);
    case Route::aten:
      return composite::bias_leaky_relu_forward_(input, arguments);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowAutograd guard;
  return arguments.redispatch(ops::bias_leaky_relu_forward_(), keys & c10::after_autograd_keyset, input);
}

/// To be differentiated itself, the backward runs as ATen ops: a product and a sum.
std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_backward_autograd(
    c10::DispatchKeySet keys,
    const at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    at::OptionalSymIntArrayRef output_strides,
    double gain,
    double dropout_p,
    int64_t dim,
    at::ScalarType bias_dtype,
    std::array<bool, 2> output_mask) {
  if (route(grad_output) != Route::below) {
    return composite::bias_leaky_relu_backward(
        grad_output, mask, negative_slope, output_strides, gain, dropout_p, dim, bias_dtype, output_mask);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return ops::bias_leaky_relu_backward().redispatch(
      keys & c10::after_autograd_keyset, grad_output, mask, negative_slope, output_strides, gain, dropout_p, dim,
      bias_dtype, output_mask);
}

at::Tensor bias_leaky_relu_backward_autograd_(
    c10::DispatchKeySet keys,
    at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    double gain,
    double dropout_p,
    int64_t dim,
    at::ScalarType bias_dtype,
    bool with_bias) {
  check_no_derivative(grad_output, "bias_leaky_relu_backward_");
  at::AutoDispatchBelowAutograd guard;
  return ops::bias_leaky_relu_backward_().redispatch(
      keys & c10::after_autograd_keyset, grad_output, mask, negative_slope, gain, dropout_p, dim, bias_dtype,
      with_bias);
}

at::Tensor& bias_leaky_relu_version_(
    c10::DispatchKeySet keys, at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_not_inference(input);
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    arguments.redispatch(ops::bias_leaky_relu_(), keys & c10::after_ADInplaceOrView_keyset, input);
  }
  torch::autograd::increment_version(input);
  return input;
}

at::Tensor bias_leaky_relu_forward_version_(
    c10::DispatchKeySet keys, at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_not_inference(input);
  at::Tensor mask;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    mask = arguments.redispatch(ops::bias_leaky_relu_forward_(), keys & c10::after_ADInplaceOrView_keyset, input);
  }
  torch::autograd::increment_version(input);
  return mask;
}

at::Tensor bias_leaky_relu_backward_version_(
    c10::DispatchKeySet keys,
    at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    double gain,
    double dropout_p,
    int64_t dim,
    at::ScalarType bias_dtype,
    bool with_bias) {
  check_not_inference(grad_output);
  at::Tensor grad_bias;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    grad_bias = ops::bias_leaky_relu_backward_().redispatch(
        keys & c10::after_ADInplaceOrView_keyset, grad_output, mask, negative_slope, gain, dropout_p, dim, bias_dtype,
        with_bias);
  }
  torch::autograd::increment_version(grad_output);
  return grad_bias;
}

} // namespace

const std::type_info& bias_leaky_relu_node_type() {
  return typeid(BiasLeakyReLUBackward);
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, Autograd, m) {
  m.impl("bias_leaky_relu", TORCH_FN(Unpacked<bias_leaky_relu_autograd>::call));
  m.impl("bias_leaky_relu_", TORCH_FN(Unpacked<bias_leaky_relu_autograd_>::call));
  m.impl("bias_leaky_relu_forward", TORCH_FN(Unpacked<bias_leaky_relu_forward_autograd>::call));
  m.impl("bias_leaky_relu_forward_", TORCH_FN(Unpacked<bias_leaky_relu_forward_autograd_>::call));
  m.impl("bias_leaky_relu_backward", TORCH_FN(bias_leaky_relu_backward_autograd));
  m.impl("bias_leaky_relu_backward_", TORCH_FN(bias_leaky_relu_backward_autograd_));
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, ADInplaceOrView, m) {
  m.impl("bias_leaky_relu_", TORCH_FN(Unpacked<bias_leaky_relu_version_>::call));
  m.impl("bias_leaky_relu_forward_", TORCH_FN(Unpacked<bias_leaky_relu_forward_version_>::call));
  m.impl("bias_leaky_relu_backward_", TORCH_FN(bias_leaky_relu_backward_version_));
}

} // namespace leakyrelu_ext
