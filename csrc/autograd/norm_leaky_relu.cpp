// Autograd of the norm_leaky_relu ops. Schemas: ../ops.cpp.

#include <torch/csrc/autograd/saved_variable.h>
#include <torch/library.h>

#include <bitset>

#include "../composite/norm_leaky_relu.h"
#include "../device/norm_leaky_relu.h"
#include "../ops.h"
#include "../tensor/norm_leaky_relu.h"
#include "call_compiled.h"
#include "mask_node.h"
#include "route.h"
#include "sole_owner.h"

namespace leakyrelu_ext {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

const at::Tensor& or_undefined(const std::optional<at::Tensor>& tensor) {
  static const at::Tensor undefined;
  return tensor.has_value() ? *tensor : undefined;
}

std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::make_optional(tensor) : std::nullopt;
}

/// Whether this tensor's calls go to kernels: those of a tracer, of a subclass or of another device are ATen's.
bool goes_to_kernels(const at::Tensor& input) {
  return has_native_kernel(input) && !input.is_meta() && !input.unsafeGetTensorImpl()->is_python_dispatch() &&
      !recorder_active();
}

using OfNorm = std::bitset<4>; // input, weight, bias, residual

/// Edges: as OfNorm. Saves nothing else of the input's size, but with a residual a bit per element.
struct NormLeakyReLUBackward final : torch::autograd::Node {
  /// num_groups, use_input_stats, eps, negative_slope, and the input's memory format: the mask is in that order, and a
  /// hook on saved tensors may return another.
  using Settings = std::tuple<int64_t, bool, double, double, int64_t>;

  SavedVariable input, statistics, weight, mask;
  Settings settings;

  std::string name() const override {
    return "NormLeakyReLUBackward";
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable* saved : {&input, &statistics, &weight, &mask}) {
      saved->reset_data();
    }
  }

  variable_list apply(variable_list&& incoming) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    at::Tensor grad_output = std::move(incoming[0]);
    const at::Tensor saved[] = {
        in_order(input.unpack(), settings), statistics.unpack(), weight.unpack(), mask.unpack()};
    return may_overwrite(grad_output, saved[0])
        ? grads_in_place(std::move(grad_output), saved[0], saved[1], saved[2], saved[3])
        : grads(grad_output, saved[0], saved[1], saved[2], saved[3], settings, wanted());
  }

  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    for (const SavedVariable* saved : {&input, &statistics, &weight, &mask}) {
      args.collect(*saved, /*is_output=*/false);
    }
    std::apply([&](const auto&... setting) { (args.collect(setting), ...); }, settings);
  }

  variable_list apply_with_saved(
      const variable_list& incoming, torch::dynamo::autograd::SwapSavedVariables& saved) override {
    const auto each_saved = [&](const auto& use) {
      for (SavedVariable* variable : {&input, &statistics, &weight, &mask}) {
        use(*variable);
      }
    };
    each_saved([&](SavedVariable& variable) { saved.before(variable); });
    torch::dynamo::autograd::PackedArgs packed;
    each_saved([&](SavedVariable& variable) { packed.pack(variable.unpack()); });
    std::apply([&](const auto&... setting) { (packed.pack(setting), ...); }, settings);
    packed.pack(static_cast<int64_t>(wanted().to_ulong()));
    auto grad_inputs = call_compiled(*this, incoming, saved, std::move(packed), apply_functional);
    each_saved([&](SavedVariable& variable) { saved.after(variable); });
    return grad_inputs;
  }

 private:
  static at::Tensor in_order(const at::Tensor& input, const Settings& settings) {
    return in_memory_format(input, static_cast<at::MemoryFormat>(std::get<4>(settings)));
  }

  /// See MaskNode.
  bool may_overwrite(const at::Tensor& grad_output, const at::Tensor& input) const {
    return wanted()[0] && !at::GradMode::is_enabled() && !functorch_active() && !mode_active() &&
        is_sole_owner(grad_output) && goes_to_kernels(input) && grad_output.strides() == input.strides();
  }

  variable_list grads_in_place(
      at::Tensor grad_output,
      const at::Tensor& input,
      const at::Tensor& statistics,
      const at::Tensor& weight,
      const at::Tensor& mask) const {
    const auto [num_groups, use_input_stats, eps, negative_slope, memory_format] = settings;
    const OfNorm wants = wanted();
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto [grad_weight, grad_bias, grad_residual] = ops::norm_leaky_relu_backward_().call(
        grad_output, input, statistics, if_defined(weight), mask, num_groups, use_input_stats, eps, negative_slope,
        {wants[1], wants[2], wants[3]});
    const auto if_wanted = [&](int edge, const at::Tensor& grad) { return wants[edge] ? grad : at::Tensor(); };
    return {grad_output, if_wanted(1, grad_weight), if_wanted(2, grad_bias), if_wanted(3, grad_residual)};
  }

  OfNorm wanted() const {
    OfNorm result;
    for (size_t edge = 0; edge < num_outputs(); ++edge) {
      result[edge] = task_should_compute_output(edge);
    }
    return result;
  }

  static variable_list grads(
      const at::Tensor& grad_output,
      const at::Tensor& input,
      const at::Tensor& statistics,
      const at::Tensor& weight,
      const at::Tensor& mask,
      const Settings& settings,
      OfNorm wanted) {
    variable_list results(4);
    if (!grad_output.defined()) {
      return results;
    }
    const auto [num_groups, use_input_stats, eps, negative_slope, memory_format] = settings;
    const std::array<bool, 4> output_mask{wanted[0], wanted[1], wanted[2], wanted[3]};
    const auto backward = [&](const auto& op) {
      return op(
          grad_output, input, statistics, if_defined(weight), mask, num_groups, use_input_stats, eps, negative_slope,
          output_mask);
    };
    const auto all = intercepts(grad_output)
        ? backward(composite::norm_leaky_relu_backward)
        : backward([](const auto&... arguments) { return ops::norm_leaky_relu_backward().call(arguments...); });
    std::apply(
        [&](const auto&... grad) {
          size_t edge = 0;
          ((results[edge] = wanted[edge] ? grad : at::Tensor(), ++edge), ...);
        },
        all);
    return results;
  }

  static variable_list apply_functional(const variable_list& incoming, const std::vector<c10::IValue>& args) {
    torch::dynamo::autograd::PackedArgs packed(args);
    at::Tensor saved[4];
    for (at::Tensor& tensor : saved) {
      tensor = packed.unpack<at::Tensor>();
    }
    Settings settings;
    std::apply(
        [&](auto&... setting) { ((setting = packed.unpack<std::decay_t<decltype(setting)>>()), ...); }, settings);
    return grads(
        incoming[0], in_order(saved[0], settings), saved[1], saved[2], saved[3], settings,
        OfNorm(packed.unpack<int64_t>()));
  }
};

/// As PyTorch's own: an update by instance norm shows in the version counters, one by batch norm does not.
void count_update(const NormArguments& arguments) {
  if (arguments.num_groups == 0 || !arguments.use_input_stats) {
    return;
  }
  for (const auto* running : {&arguments.running_mean, &arguments.running_var}) {
    if (running->has_value() && !(*running)->is_inference()) {
      torch::autograd::increment_version(**running);
    }
  }
}

at::Tensor norm_leaky_relu_autograd(c10::DispatchKeySet keys, const at::Tensor& input, const NormArguments& arguments) {
  const at::Tensor &weight = or_undefined(arguments.weight), &bias = or_undefined(arguments.bias),
                   &residual = or_undefined(arguments.residual);
  const Route way = route(input, weight, bias, residual);
  if (way == Route::aten || !goes_to_kernels(input)) {
    return composite::norm_leaky_relu(input, arguments);
  }
  if (way == Route::below) {
    at::Tensor output = [&] {
      at::AutoDispatchBelowADInplaceOrView guard;
      return arguments.redispatch(ops::norm_leaky_relu(), keys & c10::after_ADInplaceOrView_keyset, input);
    }();
    count_update(arguments);
    return output;
  }
  if (!norm_kernels_take(input, arguments)) {
    return composite::norm_leaky_relu(input, arguments);
  }
  const auto node = make_node<NormLeakyReLUBackward>();
  node->set_next_edges(torch::autograd::collect_next_edges(input, weight, bias, residual));
  node->settings = {
      arguments.num_groups, arguments.use_input_stats, arguments.eps, arguments.negative_slope,
      static_cast<int64_t>(norm_memory_format(input))};
  auto [output, statistics, mask] = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return arguments.call(ops::norm_leaky_relu_forward(), input, residual.defined());
  }();
  count_update(arguments);
  torch::autograd::set_history(output, node);
  node->input = SavedVariable(input, /*is_output=*/false);
  node->statistics = SavedVariable(statistics, /*is_output=*/false);
  node->weight = SavedVariable(weight, /*is_output=*/false);
  node->mask = SavedVariable(mask, /*is_output=*/false);
  complete(node);
  return output;
}

/// Not differentiable itself: norm_leaky_relu is.
std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_forward_autograd(
    c10::DispatchKeySet keys, const at::Tensor& input, const NormArguments& arguments, bool with_mask) {
  TORCH_CHECK(
      route(input, or_undefined(arguments.weight), or_undefined(arguments.bias), or_undefined(arguments.residual)) ==
              Route::below ||
          functorch_active(),
      "norm_leaky_relu_forward(): no argument may require grad nor have a tangent: this op is not differentiable, "
      "norm_leaky_relu is");
  at::AutoDispatchBelowADInplaceOrView guard;
  return arguments.redispatch(
      ops::norm_leaky_relu_forward(), keys & c10::after_ADInplaceOrView_keyset, input, with_mask);
}

/// To be differentiated itself, the backward runs as ATen ops.
std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_backward_autograd(
    c10::DispatchKeySet keys,
    const at::Tensor& grad_output,
    const at::Tensor& input,
    const at::Tensor& statistics,
    const std::optional<at::Tensor>& weight,
    const at::Tensor& mask,
    int64_t num_groups,
    bool use_input_stats,
    double eps,
    double negative_slope,
    std::array<bool, 4> output_mask) {
  if (route(grad_output, input, or_undefined(weight)) != Route::below) {
    return composite::norm_leaky_relu_backward(
        grad_output, input, statistics, weight, mask, num_groups, use_input_stats, eps, negative_slope, output_mask);
  }
  at::AutoDispatchBelowADInplaceOrView guard;
  return ops::norm_leaky_relu_backward().redispatch(
      keys & c10::after_ADInplaceOrView_keyset, grad_output, input, statistics, weight, mask, num_groups,
      use_input_stats, eps, negative_slope, output_mask);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_backward_autograd_(
    c10::DispatchKeySet keys,
    at::Tensor& grad_output,
    const at::Tensor& input,
    const at::Tensor& statistics,
    const std::optional<at::Tensor>& weight,
    const at::Tensor& mask,
    int64_t num_groups,
    bool use_input_stats,
    double eps,
    double negative_slope,
    std::array<bool, 3> output_mask) {
  check_no_derivative(grad_output, "norm_leaky_relu_backward_");
  at::AutoDispatchBelowAutograd guard;
  return ops::norm_leaky_relu_backward_().redispatch(
      keys & c10::after_autograd_keyset, grad_output, input, statistics, weight, mask, num_groups, use_input_stats, eps,
      negative_slope, output_mask);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_backward_version_(
    c10::DispatchKeySet keys,
    at::Tensor& grad_output,
    const at::Tensor& input,
    const at::Tensor& statistics,
    const std::optional<at::Tensor>& weight,
    const at::Tensor& mask,
    int64_t num_groups,
    bool use_input_stats,
    double eps,
    double negative_slope,
    std::array<bool, 3> output_mask) {
  check_not_inference(grad_output);
  auto results = [&] {
    at::AutoDispatchBelowADInplaceOrView guard;
    return ops::norm_leaky_relu_backward_().redispatch(
        keys & c10::after_ADInplaceOrView_keyset, grad_output, input, statistics, weight, mask, num_groups,
        use_input_stats, eps, negative_slope, output_mask);
  }();
  torch::autograd::increment_version(grad_output);
  return results;
}

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, Autograd, m) {
  m.impl("norm_leaky_relu", TORCH_FN(NormUnpacked<norm_leaky_relu_autograd>::call));
  m.impl("norm_leaky_relu_forward", TORCH_FN(NormUnpacked<norm_leaky_relu_forward_autograd>::call));
  m.impl("norm_leaky_relu_backward", TORCH_FN(norm_leaky_relu_backward_autograd));
  m.impl("norm_leaky_relu_backward_", TORCH_FN(norm_leaky_relu_backward_autograd_));
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, ADInplaceOrView, m) {
  m.impl("norm_leaky_relu_backward_", TORCH_FN(norm_leaky_relu_backward_version_));
}

} // namespace leakyrelu_ext
