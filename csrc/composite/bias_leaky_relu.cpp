// bias_leaky_relu composed of ATen ops, and the dispatch keys that use it; see leaky_relu.cpp.

#include "bias_leaky_relu.h"

#include <ATen/ops/bernoulli.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/where.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <limits>
#include <vector>

#include "../element/activation.h"
#include "../element/bias_leaky_relu.h"
#include "../ops.h"
#include "../tensor/checks.h"
#include "../tensor/dense.h"
#include "../tensor/promote.h"
#include "functionalize.h"
#include "leaky_relu.h"

namespace leakyrelu_ext {
namespace composite {
namespace {

at::ScalarType opmath_type(at::ScalarType dtype) {
  return c10::promoteTypes(dtype, at::kFloat);
}

/// Returns gain * leaky_relu(sum) and sum = input + bias + residual, both in opmath.
std::tuple<at::Tensor, at::Tensor> activated(const Promoted& operands, const BiasLeakyReLUArguments& arguments) {
  const auto& bias = arguments.bias;
  const auto opmath = opmath_type(operands.input.scalar_type());
  at::Tensor sum = operands.input.to(opmath);
  if (bias.has_value()) {
    c10::SymDimVector shape(sum.dim(), 1);
    shape[arguments.dim < 0 ? arguments.dim + sum.dim() : arguments.dim] = bias->sym_size(0);
    sum = sum.add(bias->to(opmath).view_symint(shape));
  }
  if (operands.residual.has_value()) {
    sum = sum.add(operands.residual->to(opmath));
  }
  at::Tensor value = at::leaky_relu(sum, arguments.negative_slope);
  return {arguments.gain == 1 ? value : value.mul(arguments.gain), sum};
}

/// Returns the value after clamp and dropout, and where a gradient passes.
std::tuple<at::Tensor, at::Tensor> clamped_and_dropped(at::Tensor value, const BiasLeakyReLUSettings& settings) {
  at::Tensor passed = at::full_like(value, 1, value.options().dtype(at::kBool));
  if (settings.clamp.has_value()) {
    // at::clamp raises for a bound beyond float32's range. Such a bound has no effect: use infinity.
    const double largest =
        value.scalar_type() == at::kDouble ? std::numeric_limits<double>::max() : std::numeric_limits<float>::max();
    const double bound = *settings.clamp <= largest ? *settings.clamp : std::numeric_limits<double>::infinity();
    passed = value.ge(-bound).logical_and(value.le(bound));
    value = at::clamp(value, -bound, bound);
  }
  if (settings.dropout_p > 0) {
    // Not full_like: under vmap(randomness="same") the random tensor must not be batched.
    const at::Tensor kept =
        at::bernoulli(at::full_symint(value.sym_sizes(), 1 - settings.dropout_p, value.options())).to(at::kBool);
    passed = passed.logical_and(kept);
    value = at::where(kept, value.mul(settings.dropout_scale()), 0);
  }
  return {std::move(value), std::move(passed)};
}

} // namespace

at::Tensor bias_leaky_relu(const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_bias_leaky_relu("bias_leaky_relu", input, arguments);
  const Promoted operands = promote(input, arguments.residual);
  at::Tensor value = std::get<0>(activated(operands, arguments));
  if (arguments.settings().has_passed()) {
    value = std::get<0>(clamped_and_dropped(std::move(value), arguments.settings()));
  }
  return value.to(operands.input.scalar_type());
}

at::Tensor& bias_leaky_relu_(at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_not_inference(input);
  check_bias_leaky_relu("bias_leaky_relu_", input, arguments);
  check_holds(input, arguments.residual, "bias_leaky_relu_");
  return input.copy_(composite::bias_leaky_relu(input.clone(), arguments));
}

std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_forward(
    const at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_bias_leaky_relu("bias_leaky_relu_forward", input, arguments);
  const Promoted operands = promote(input, arguments.residual);
  auto [value, sum] = activated(operands, arguments);
  const c10::SymDimVector strides = dense_sym_strides(operands.input);
  at::Tensor mask = pack_mask(sum.gt(0), strides);
  if (arguments.settings().has_passed()) {
    auto [result, passed] = clamped_and_dropped(std::move(value), arguments.settings());
    value = std::move(result);
    mask = at::cat({mask, pack_mask(passed, strides)});
  }
  return {value.to(operands.input.scalar_type()), std::move(mask)};
}

at::Tensor bias_leaky_relu_forward_(at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_not_inference(input);
  check_bias_leaky_relu("bias_leaky_relu_forward_", input, arguments);
  check_holds(input, arguments.residual, "bias_leaky_relu_forward_");
  auto [output, mask] = composite::bias_leaky_relu_forward(input.clone(), arguments);
  input.copy_(output);
  return mask;
}

std::tuple<at::Tensor, at::Tensor> bias_leaky_relu_backward(
    const at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    at::OptionalSymIntArrayRef output_strides,
    double gain,
    double dropout_p,
    int64_t dim,
    at::ScalarType bias_dtype,
    std::array<bool, 2> output_mask) {
  constexpr auto op = "bias_leaky_relu_backward";
  check_floating(grad_output, op, "grad_output");
  check_bias_leaky_relu_mask(grad_output, mask, dropout_p, op);
  check_bias_dtype(bias_dtype, op);
  if (output_strides.has_value()) {
    check_strides_size(grad_output, output_strides->size(), op);
  }
  const c10::SymInt bytes = mask_bytes(grad_output.sym_numel());
  const double factor = gain * BiasLeakyReLUSettings{negative_slope, gain, std::nullopt, dropout_p}.dropout_scale();
  at::Tensor grad = grad_output.to(opmath_type(grad_output.scalar_type()));
  grad = factor == 1 ? grad : grad.mul(factor);
  // Our leaky_relu_backward has a derivative and kernels, but a subclass that intercepts ops knows only ATen's.
  const at::Tensor positive = mask.slice_symint(0, 0, bytes);
  grad = grad.unsafeGetTensorImpl()->is_python_dispatch()
      ? composite::leaky_relu_backward(grad, positive, negative_slope, output_strides)
      : ops::leaky_relu_backward().call(grad, positive, negative_slope, output_strides);
  if (mask.sym_numel() != bytes) {
    const at::Tensor passed = unpack_mask(mask.slice_symint(0, bytes), grad.sym_sizes(), output_strides);
    grad = at::where(passed, grad, 0);
  }
  at::Tensor grad_bias;
  if (output_mask[1]) {
    check_dim(grad_output, dim, op, "grad_output");
    std::vector<int64_t> others;
    for (int64_t d = 0; d < grad.dim(); ++d) {
      if (d != (dim < 0 ? dim + grad.dim() : dim)) {
        others.push_back(d);
      }
    }
    grad_bias = (others.empty() ? grad : grad.sum(others)).to(bias_dtype);
  } else {
    grad_bias = at::empty({0}, grad_output.options().dtype(bias_dtype));
  }
  return {
      output_mask[0] ? grad.to(grad_output.scalar_type()) : at::empty({0}, grad_output.options()),
      std::move(grad_bias)};
}

} // namespace composite

namespace {

at::Tensor bias_leaky_relu_backward_by_aten_(
    at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    double gain,
    double dropout_p,
    int64_t dim,
    at::ScalarType bias_dtype,
    bool with_bias) {
  const c10::SymDimVector strides(grad_output.sym_strides());
  auto [grad_input, grad_bias] = composite::bias_leaky_relu_backward(
      grad_output, mask, negative_slope, c10::SymIntArrayRef(strides), gain, dropout_p, dim, bias_dtype,
      {true, with_bias});
  grad_output.copy_(grad_input);
  return grad_bias;
}

std::optional<at::Tensor> plain_value(const std::optional<at::Tensor>& tensor) {
  return tensor.has_value() ? std::make_optional(leakyrelu_ext::plain_value(*tensor)) : std::nullopt;
}

at::Tensor& bias_leaky_relu_functionalized_(at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_holds(input, arguments.residual, "bias_leaky_relu_");
  const auto bias = plain_value(arguments.bias), residual = plain_value(arguments.residual);
  const BiasLeakyReLUArguments plain = arguments.with(bias, residual);
  if (!functionalization::isFunctionalTensor(input)) {
    at::AutoDispatchSkipFunctionalize guard;
    return plain.call(ops::bias_leaky_relu_(), input);
  }
  replace_value(
      input, [&](const at::Tensor& value) { return std::make_tuple(plain.call(ops::bias_leaky_relu(), value)); });
  return input;
}

at::Tensor bias_leaky_relu_forward_functionalized_(at::Tensor& input, const BiasLeakyReLUArguments& arguments) {
  check_holds(input, arguments.residual, "bias_leaky_relu_forward_");
  const auto bias = plain_value(arguments.bias), residual = plain_value(arguments.residual);
  const BiasLeakyReLUArguments plain = arguments.with(bias, residual);
  if (!functionalization::isFunctionalTensor(input)) {
    at::AutoDispatchSkipFunctionalize guard;
    return plain.call(ops::bias_leaky_relu_forward_(), input);
  }
  const auto results =
      replace_value(input, [&](const at::Tensor& value) { return plain.call(ops::bias_leaky_relu_forward(), value); });
  return functionalization::to_functional_tensor(std::get<1>(results));
}

at::Tensor bias_leaky_relu_backward_functionalized_(
    at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    double gain,
    double dropout_p,
    int64_t dim,
    at::ScalarType bias_dtype,
    bool with_bias) {
  const at::Tensor bits = leakyrelu_ext::plain_value(mask);
  if (!functionalization::isFunctionalTensor(grad_output)) {
    at::AutoDispatchSkipFunctionalize guard;
    return ops::bias_leaky_relu_backward_().call(
        grad_output, bits, negative_slope, gain, dropout_p, dim, bias_dtype, with_bias);
  }
  const auto results = replace_value(grad_output, [&](const at::Tensor& value) {
    return ops::bias_leaky_relu_backward().call(
        value, bits, negative_slope, value.sym_strides(), gain, dropout_p, dim, bias_dtype, {true, with_bias});
  });
  return functionalization::to_functional_tensor(std::get<1>(results));
}

/// Runs inside vmap, also if no tensor is batched: for dropout, only PyTorch's own ops follow vmap's randomness rules.
template <const auto& (*op)(), auto composite, typename Input, typename Result>
Result in_vmap(Input input, const BiasLeakyReLUArguments& arguments) {
  if (arguments.dropout_p > 0) {
    return composite(input, arguments);
  }
  const c10::impl::ExcludeDispatchKeyGuard guard(c10::DispatchKey::FuncTorchVmapMode);
  return arguments.call(op(), input);
}

void register_composites(torch::Library& m) {
  m.impl("bias_leaky_relu", TORCH_FN(Unpacked<composite::bias_leaky_relu>::call));
  m.impl("bias_leaky_relu_", TORCH_FN(Unpacked<composite::bias_leaky_relu_>::call));
  m.impl("bias_leaky_relu_forward", TORCH_FN(Unpacked<composite::bias_leaky_relu_forward>::call));
  m.impl("bias_leaky_relu_forward_", TORCH_FN(Unpacked<composite::bias_leaky_relu_forward_>::call));
  m.impl("bias_leaky_relu_backward", TORCH_FN(composite::bias_leaky_relu_backward));
  m.impl("bias_leaky_relu_backward_", TORCH_FN(bias_leaky_relu_backward_by_aten_));
}

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CompositeExplicitAutograd, m) {
  register_composites(m);
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, FuncTorchBatched, m) {
  register_composites(m);
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, FuncTorchVmapMode, m) {
  using Both = std::tuple<at::Tensor, at::Tensor>;
  m.impl(
      "bias_leaky_relu",
      TORCH_FN(
          (Unpacked<in_vmap<ops::bias_leaky_relu, composite::bias_leaky_relu, const at::Tensor&, at::Tensor>>::call)));
  m.impl(
      "bias_leaky_relu_",
      TORCH_FN(
          (Unpacked<in_vmap<ops::bias_leaky_relu_, composite::bias_leaky_relu_, at::Tensor&, at::Tensor&>>::call)));
  m.impl(
      "bias_leaky_relu_forward",
      TORCH_FN((
          Unpacked<in_vmap<ops::bias_leaky_relu_forward, composite::bias_leaky_relu_forward, const at::Tensor&, Both>>::
              call)));
  m.impl(
      "bias_leaky_relu_forward_",
      TORCH_FN(
          (Unpacked<in_vmap<
               ops::bias_leaky_relu_forward_, composite::bias_leaky_relu_forward_, at::Tensor&, at::Tensor>>::call)));
}

// See leaky_relu_forward_ in leaky_relu.cpp: the op writes one tensor and returns another.
TORCH_LIBRARY_IMPL(leakyrelu_ext, Negative, m) {
  m.impl("bias_leaky_relu_forward_", TORCH_FN(Unpacked<composite::bias_leaky_relu_forward_>::call));
  m.impl("bias_leaky_relu_backward_", TORCH_FN(bias_leaky_relu_backward_by_aten_));
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, Functionalize, m) {
  m.impl("bias_leaky_relu_", TORCH_FN(Unpacked<bias_leaky_relu_functionalized_>::call));
  m.impl("bias_leaky_relu_forward_", TORCH_FN(Unpacked<bias_leaky_relu_forward_functionalized_>::call));
  m.impl("bias_leaky_relu_backward_", TORCH_FN(bias_leaky_relu_backward_functionalized_));
}

} // namespace leakyrelu_ext
