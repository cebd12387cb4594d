// Derivatives and version counters of the bias_leaky_relu ops (dispatch keys Autograd and ADInplaceOrView). Schemas: ops.cpp.

#include <torch/library.h>

#include "autograd.h"
#include "bias_composite.h"
#include "checks.h"
#include "mask_node.h"
#include "ops.h"
#include "promote.h"

namespace leakyrelu_ext {
namespace {

using torch::autograd::variable_list;

/// Edges: input, bias, residual. Settings: negative_slope, gain, dropout_p, dim, dtype of the bias.
struct BiasLeakyReLUBackward final
    : MaskNode<BiasLeakyReLUBackward, std::tuple<double, double, double, int64_t, int64_t>> {
  static constexpr const char* kName = kBiasNodeName;

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
  /// One tensor is the gradient of both input and residual, as PyTorch's addition does it.
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

/// One call's arguments but input.
struct Arguments {
  const std::optional<at::Tensor>& bias;
  double negative_slope;
  const std::optional<at::Tensor>& residual;
  int64_t dim;
  double gain;
  std::optional<double> clamp;
  double dropout_p;

  void check(const char* op, const at::Tensor& input) const {
    check_layouts(input, bias, residual, op);
    check_family(op, input, bias, residual, dim, {negative_slope, gain, clamp, dropout_p});
  }

  Route route_of(const at::Tensor& input) const {
    return route(input, or_undefined(bias), or_undefined(residual));
  }

  template <typename Op, typename Input>
  decltype(auto) call(const Op& op, Input& input, const std::optional<at::Tensor>& other) const {
    return op.call(input, bias, negative_slope, other, dim, gain, clamp, dropout_p);
  }

  template <typename Op, typename Input>
  decltype(auto) redispatch(const Op& op, c10::DispatchKeySet keys, Input& input) const {
    return op.redispatch(keys, input, bias, negative_slope, residual, dim, gain, clamp, dropout_p);
  }

  template <typename Function, typename Input>
  decltype(auto) pass_to(const Function& function, Input& input) const {
    return function(input, bias, negative_slope, residual, dim, gain, clamp, dropout_p);
  }

  auto node(const at::Tensor& input, const at::Tensor& other) const {
    const auto dtype = bias.has_value() ? bias->scalar_type() : input.scalar_type();
    return node_for<BiasLeakyReLUBackward>(
        {negative_slope, gain, dropout_p, dim, static_cast<int64_t>(dtype)}, input, or_undefined(bias), other);
  }

  /// The residual in input's shape and dtype, differentiably.
  std::optional<at::Tensor> fitted_residual(const at::Tensor& input) const {
    if (!residual.has_value()) {
      return std::nullopt;
    }
    const at::Tensor same_dtype = residual->to(input.scalar_type());
    return same_dtype.sym_sizes() == input.sym_sizes() ? same_dtype : same_dtype.expand_symint(input.sym_sizes());
  }
};

std::tuple<at::Tensor, at::Tensor> record_forward(const Arguments& arguments, const at::Tensor& given) {
  arguments.check("bias_leaky_relu", given);
  const at::Tensor input = promote(given, arguments.residual).input;
  const auto residual = arguments.fitted_residual(input);
  const auto node = arguments.node(input, or_undefined(residual));
  std::tuple<at::Tensor, at::Tensor> outputs;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    outputs = arguments.call(ops::bias_leaky_relu_forward(), input, residual);
  }
  record(node, std::get<0>(outputs), std::get<1>(outputs));
  return outputs;
}

at::Tensor record_forward_(const Arguments& arguments, at::Tensor& input) {
  arguments.check("bias_leaky_relu_", input);
  check_holds(input, arguments.residual, "bias_leaky_relu_");
  const auto residual = arguments.fitted_residual(input);
  const auto node = arguments.node(input, or_undefined(residual));
  at::Tensor mask;
  {
    at::AutoDispatchBelowAutograd guard;
    mask = arguments.call(ops::bias_leaky_relu_forward_(), input, residual);
  }
  record_inplace(node, input, mask);
  return mask;
}

at::Tensor bias_leaky_relu_autograd(
    c10::DispatchKeySet keys,
    const at::Tensor& input,
    const std::optional<at::Tensor>& bias,
    double negative_slope,
    const std::optional<at::Tensor>& residual,
    int64_t dim,
    double gain,
    std::optional<double> clamp,
    double dropout_p) {
  const Arguments arguments{bias, negative_slope, residual, dim, gain, clamp, dropout_p};
  switch (arguments.route_of(input)) {
    case Route::record:
      return std::get<0>(record_forward(arguments, input));
    case Route::aten:
      return arguments.pass_to(composite::bias_leaky_relu, input);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return arguments.redispatch(ops::bias_leaky_relu(), keys & c10::after_autograd_keyset, input);
}

std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_forward_autograd(
    c10::DispatchKeySet keys,
    const at::Tensor& input,
    const std::optional<at::Tensor>& bias,
    double negative_slope,
    const std::optional<at::Tensor>& residual,
    int64_t dim,
    double gain,
    std::optional<double> clamp,
    double dropout_p) {
  const Arguments arguments{bias, negative_slope, residual, dim, gain, clamp, dropout_p};
  switch (arguments.route_of(input)) {
    case Route::record:
      return record_forward(arguments, input);
    case Route::aten:
      return arguments.pass_to(composite::bias_leaky_relu_forward, input);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return arguments.redispatch(ops::bias_leaky_relu_forward(), keys & c10::after_autograd_keyset, input);
}

/// Everything autograd refuses is refused before a byte is overwritten.
void check_inplace(const Arguments& arguments, const at::Tensor& input) {
  torch::autograd::check_inplace(
      input,
      torch::autograd::compute_requires_grad(input, or_undefined(arguments.bias), or_undefined(arguments.residual)));
}

at::Tensor& bias_leaky_relu_autograd_(
    c10::DispatchKeySet keys,
    at::Tensor& input,
    const std::optional<at::Tensor>& bias,
    double negative_slope,
    const std::optional<at::Tensor>& residual,
    int64_t dim,
    double gain,
    std::optional<double> clamp,
    double dropout_p) {
  const Arguments arguments{bias, negative_slope, residual, dim, gain, clamp, dropout_p};
  check_inplace(arguments, input);
  switch (arguments.route_of(input)) {
    case Route::record:
      record_forward_(arguments, input);
      return input;
    case Route::aten:
      return arguments.pass_to(composite::bias_leaky_relu_, input);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowAutograd guard;
  return arguments.redispatch(ops::bias_leaky_relu_(), keys & c10::after_autograd_keyset, input);
}

at::Tensor bias_leaky_relu_forward_autograd_(
    c10::DispatchKeySet keys,
    at::Tensor& input,
    const std::optional<at::Tensor>& bias,
    double negative_slope,
    const std::optional<at::Tensor>& residual,
    int64_t dim,
    double gain,
    std::optional<double> clamp,
    double dropout_p) {
  const Arguments arguments{bias, negative_slope, residual, dim, gain, clamp, dropout_p};
  check_inplace(arguments, input);
  switch (arguments.route_of(input)) {
    case Route::record:
      return record_forward_(arguments, input);
    case Route::aten:
      return arguments.pass_to(composite::bias_leaky_relu_forward_, input);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowAutograd guard;
  return arguments.redispatch(ops::bias_leaky_relu_forward_(), keys & c10::after_autograd_keyset, input);
}

/// A derivative of this derivative is ATen's: a product and a sum.
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
    c10::DispatchKeySet keys,
    at::Tensor& input,
    const std::optional<at::Tensor>& bias,
    double negative_slope,
    const std::optional<at::Tensor>& residual,
    int64_t dim,
    double gain,
    std::optional<double> clamp,
    double dropout_p) {
  check_not_inference(input);
  const Arguments arguments{bias, negative_slope, residual, dim, gain, clamp, dropout_p};
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    arguments.redispatch(ops::bias_leaky_relu_(), keys & c10::after_ADInplaceOrView_keyset, input);
  }
  torch::autograd::increment_version(input);
  return input;
}

at::Tensor bias_leaky_relu_forward_version_(
    c10::DispatchKeySet keys,
    at::Tensor& input,
    const std::optional<at::Tensor>& bias,
    double negative_slope,
    const std::optional<at::Tensor>& residual,
    int64_t dim,
    double gain,
    std::optional<double> clamp,
    double dropout_p) {
  check_not_inference(input);
  const Arguments arguments{bias, negative_slope, residual, dim, gain, clamp, dropout_p};
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

const std::type_info& bias_node_type() {
  return typeid(BiasLeakyReLUBackward);
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, Autograd, m) {
  m.impl("bias_leaky_relu", TORCH_FN(bias_leaky_relu_autograd));
  m.impl("bias_leaky_relu_", TORCH_FN(bias_leaky_relu_autograd_));
  m.impl("bias_leaky_relu_forward", TORCH_FN(bias_leaky_relu_forward_autograd));
  m.impl("bias_leaky_relu_forward_", TORCH_FN(bias_leaky_relu_forward_autograd_));
  m.impl("bias_leaky_relu_backward", TORCH_FN(bias_leaky_relu_backward_autograd));
  m.impl("bias_leaky_relu_backward_", TORCH_FN(bias_leaky_relu_backward_autograd_));
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, ADInplaceOrView, m) {
  m.impl("bias_leaky_relu_", TORCH_FN(bias_leaky_relu_version_));
  m.impl("bias_leaky_relu_forward_", TORCH_FN(bias_leaky_relu_forward_version_));
  m.impl("bias_leaky_relu_backward_", TORCH_FN(bias_leaky_relu_backward_version_));
}

} // namespace leakyrelu_ext
