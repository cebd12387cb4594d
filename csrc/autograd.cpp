// Derivatives and version counters of the ops (dispatch keys Autograd and ADInplaceOrView). Schemas: ops.cpp.

#include <ATen/ops/leaky_relu.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <c10/util/strides.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/library.h>
#include <torch/version.h>

#include "autograd.h"
#include "checks.h"
#include "composite.h"
#include "dense.h"
#include "ops.h"
#include "sole_owner.h"

namespace leakyrelu_ext {
namespace {

using torch::autograd::variable_list;

bool functorch_active() {
  // Not functorchTLSAccessor(): that stays set after a thread's first transform; this key is there only during one.
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

/// The derivative for grad_output; an op that records its own derivative, so that any order follows.
at::Tensor leaky_relu_grad(
    const at::Tensor& grad_output,
    const at::Tensor& mask,
    double negative_slope,
    const std::optional<std::vector<c10::SymInt>>& output_strides) {
  if (!grad_output.defined()) {
    return {};
  }
  const auto strides =
      output_strides.has_value() ? at::OptionalSymIntArrayRef(*output_strides) : at::OptionalSymIntArrayRef();
  if (grad_output.unsafeGetTensorImpl()->is_python_dispatch() && !c10::impl::TorchDispatchModeTLS::any_modes_set()) {
    // A subclass that intercepts ops knows ATen's; under a mode (AOTAutograd's tracing) the op stays one op.
    return composite::leaky_relu_backward(grad_output, mask, negative_slope, strides);
  }
  return ops::leaky_relu_backward().call(grad_output, mask, negative_slope, strides);
}

/// The node behind every op here: forward and backward alike are linear once the mask is given.
/// A Node as PyTorch generates them for its own ops; torch::autograd::Function costs a small tensor a quarter more time (forward and backward).
struct LeakyReLUBackward final : torch::autograd::Node {
  torch::autograd::SavedVariable mask;
  double negative_slope = 0;
  std::optional<std::vector<c10::SymInt>> output_strides; // nullopt: contiguous

  std::string name() const override {
    return kNodeName;
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    mask.reset_data();
  }

  variable_list apply(variable_list&& grads) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const at::Tensor bits = mask.unpack();
    at::Tensor grad_output = std::move(grads[0]);
    if (may_overwrite(grad_output)) {
      at::AutoDispatchBelowADInplaceOrView guard;
      ops::leaky_relu_backward_().call(grad_output, bits, negative_slope);
      return {std::move(grad_output)};
    }
    return {leaky_relu_grad(grad_output, bits, negative_slope, output_strides)};
  }

  // Compiled autograd: what apply depends on, and apply as a function of it.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    args.collect(mask, /*is_output=*/false);
    args.collect(negative_slope);
    args.collect(output_strides);
  }

  variable_list apply_with_saved(
      const variable_list& grads, torch::dynamo::autograd::SwapSavedVariables& saved) override {
    saved.before(mask);
    saved.before(negative_slope);
    saved.before(output_strides);
    torch::dynamo::autograd::PackedArgs packed;
    packed.pack(mask.unpack());
    packed.pack(negative_slope);
    packed.pack(output_strides);
    const auto args = std::move(packed).vec();
    std::vector<at::TypePtr> schema;
    schema.reserve(args.size());
    for (const auto& arg : args) {
      schema.emplace_back(arg.isTensor() ? at::TypePtr(at::TensorType::get()) : arg.type());
    }
    const auto& compiler = torch::dynamo::autograd::getPyCompilerInterface();
    const auto function = compiler->bind_function(
        saved.get_py_compiler(), name(), apply_functional, schema, /*is_custom_function=*/true, /*is_traceable=*/true);
    const auto metadata =
        torch::dynamo::autograd::IValuePacker<std::vector<std::optional<torch::autograd::InputMetadata>>>::pack(
            torch::dynamo::autograd::get_input_metadata(next_edges()));
    auto grad_inputs =
        compiler->call_function(saved.get_py_compiler(), "apply_functional", function, grads, args, metadata);
    saved.after(mask);
    saved.after(negative_slope);
    saved.after(output_strides);
    return grad_inputs;
  }

 private:
  /// True if the gradient of the input may take grad_output's memory: it has just the layout wanted, nobody else will read it,
  /// and no derivative of this derivative is being recorded.
  bool may_overwrite(const at::Tensor& grad_output) const {
    if (at::GradMode::is_enabled() || functorch_active() || c10::impl::TorchDispatchModeTLS::any_modes_set() ||
        !is_sole_owner(grad_output)) {
      return false;
    }
    // Exactly, also where a size is 1: the result's strides must not depend on who else looks at the gradient.
    return output_strides.has_value()
        ? grad_output.sym_strides() == c10::SymIntArrayRef(*output_strides)
        : grad_output.strides() == at::IntArrayRef(c10::contiguous_strides(grad_output.sizes()));
  }

  static variable_list apply_functional(const variable_list& grads, const std::vector<c10::IValue>& args) {
    torch::dynamo::autograd::PackedArgs packed(args);
    const auto mask = packed.unpack<at::Tensor>();
    const auto negative_slope = packed.unpack<double>();
    const auto output_strides = packed.unpack<std::optional<std::vector<c10::SymInt>>>();
    return {leaky_relu_grad(grads[0], mask, negative_slope, output_strides)};
  }
};

/// A node that leads on to input's history; made before an in-place op changes that history.
c10::intrusive_ptr<LeakyReLUBackward> node_for(const at::Tensor& input, double negative_slope) {
  auto node = c10::make_intrusive<LeakyReLUBackward>();
  node->set_next_edges(torch::autograd::collect_next_edges(input));
  node->negative_slope = negative_slope;
  return node;
}

void save(LeakyReLUBackward& node, const at::Tensor& output, const at::Tensor& mask) {
  node.mask = torch::autograd::SavedVariable(mask, /*is_output=*/false);
  if (!output.is_contiguous()) {
    const auto strides = dense_sym_strides(output);
    node.output_strides.emplace(strides.begin(), strides.end());
  }
}

void finish([[maybe_unused]] const c10::intrusive_ptr<torch::autograd::Node>& node) {
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 14
  torch::autograd::fire_node_creation_hooks(node);
#endif
}

void record(const c10::intrusive_ptr<LeakyReLUBackward>& node, const at::Tensor& output, const at::Tensor& mask) {
  torch::autograd::set_history(output, node);
  save(*node, output, mask);
  finish(node);
}

void record_inplace(
    const c10::intrusive_ptr<LeakyReLUBackward>& node, const at::Tensor& input, const at::Tensor& mask) {
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 14
  const auto attached = torch::autograd::rebase_history(input, node);
#else
  const c10::intrusive_ptr<torch::autograd::Node> attached = node;
  torch::autograd::rebase_history(input, node);
#endif
  save(*node, input, mask);
  finish(attached);
}

enum class Route {
  below,  // no derivative wanted: the op itself, without a mask
  record, // record a LeakyReLUBackward
  aten,   // transforms that a node in C++ does not support, and devices without kernels of ours
};

bool has_native_kernel(const at::Tensor& tensor) {
  const auto device = tensor.device().type();
#ifdef LEAKYRELU_EXT_WITH_CUDA
  const bool supported = device == at::kCPU || device == at::kCUDA || device == at::kMeta;
#else
  const bool supported = device == at::kCPU || device == at::kMeta;
#endif
  return supported && tensor.layout() == at::kStrided && !tensor.is_nested();
}

Route route(const at::Tensor& tensor) {
  if (functorch_active() || torch::autograd::isFwGradDefined(tensor)) {
    return Route::aten;
  }
  if (!(at::GradMode::is_enabled() && tensor.requires_grad())) {
    return Route::below;
  }
  return has_native_kernel(tensor) ? Route::record : Route::aten;
}

std::tuple<at::Tensor, at::Tensor> record_forward(const at::Tensor& input, double negative_slope) {
  const auto node = node_for(input, negative_slope);
  std::tuple<at::Tensor, at::Tensor> outputs;
  {
    at::AutoDispatchBelowADInplaceOrView guard;
    outputs = ops::leaky_relu_forward().call(input, negative_slope);
  }
  record(node, std::get<0>(outputs), std::get<1>(outputs));
  return outputs;
}

at::Tensor record_forward_(at::Tensor& input, double negative_slope) {
  const auto node = node_for(input, negative_slope);
  at::Tensor mask;
  {
    at::AutoDispatchBelowAutograd guard;
    mask = ops::leaky_relu_forward_().call(input, negative_slope);
  }
  record_inplace(node, input, mask);
  return mask;
}

at::Tensor leaky_relu_autograd(c10::DispatchKeySet keys, const at::Tensor& input, double negative_slope) {
  switch (route(input)) {
    case Route::record:
      return std::get<0>(record_forward(input, negative_slope));
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
      return record_forward(input, negative_slope);
    case Route::aten:
      return composite::leaky_relu_forward(input, negative_slope);
    case Route::below:
      break;
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return ops::leaky_relu_forward().redispatch(keys & c10::after_autograd_keyset, input, negative_slope);
}

at::Tensor& leaky_relu_autograd_(c10::DispatchKeySet keys, at::Tensor& input, double negative_slope) {
  // Everything autograd refuses is refused before a byte is overwritten.
  torch::autograd::check_inplace(input, torch::autograd::compute_requires_grad(input));
  switch (route(input)) {
    case Route::record:
      record_forward_(input, negative_slope);
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
      return record_forward_(input, negative_slope);
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
      const auto node = node_for(grad_output, negative_slope);
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
  TORCH_CHECK(
      !torch::autograd::compute_requires_grad(grad_output) && !torch::autograd::isFwGradDefined(grad_output),
      "leaky_relu_backward_(): argument 'grad_output' must not require grad nor have a tangent: this op is not "
      "differentiable, leaky_relu_backward is");
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

const std::type_info& node_type() {
  return typeid(LeakyReLUBackward);
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
