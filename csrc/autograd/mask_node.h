#pragma once
// Autograd nodes that save a mask, for the kernels of the Autograd key.

#include <c10/util/strides.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <bitset>
#include <optional>
#include <tuple>
#include <vector>

#include "../tensor/dense.h"
#include "../torch_versions.h"
#include "call_compiled.h"
#include "interception.h"
#include "sole_owner.h"

namespace leakyrelu_ext {

/// The strides of the dense tensor that a mask is for; nullopt: contiguous.
using OutputStrides = std::optional<std::vector<c10::SymInt>>;

inline at::OptionalSymIntArrayRef as_ref(const OutputStrides& strides) {
  return strides.has_value() ? at::OptionalSymIntArrayRef(*strides) : at::OptionalSymIntArrayRef();
}

/// For each input of a node, whether its gradient is needed.
using Wanted = std::bitset<3>;

struct SavesMask : torch::autograd::Node {
  torch::autograd::SavedVariable mask;

  virtual double negative_slope() const = 0;

  /// Like PyTorch's own getters, does not take the node's lock: apply holds it while hooks in Python run.
  at::Tensor saved_mask() const {
    return mask.unpack();
  }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    mask.reset_data();
  }
};

/// The node of an op that is linear once its mask is given. It derives from Node, as PyTorch's generated nodes do:
/// torch::autograd::Function costs a small tensor a quarter more time (forward and backward).
///
/// Derived supplies kName, Settings (a std::tuple of types that compiled autograd can pack, negative_slope first),
///   static variable_list grads(grad_output, mask, Settings, OutputStrides, wanted): differentiable gradients;
///   static variable_list grads_in_place(grad_output, mask, Settings, wanted): the same, in grad_output's memory.
template <class Derived, class SettingsTuple>
struct MaskNode : SavesMask {
  using Settings = SettingsTuple;
  using variable_list = torch::autograd::variable_list;

  Settings settings;
  OutputStrides output_strides;

  std::string name() const override {
    return Derived::kName;
  }

  double negative_slope() const override {
    return std::get<0>(settings);
  }

  variable_list apply(variable_list&& incoming) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const at::Tensor bits = mask.unpack();
    at::Tensor grad_output = std::move(incoming[0]);
    if (may_overwrite(grad_output)) {
      at::AutoDispatchBelowADInplaceOrView guard;
      return Derived::grads_in_place(std::move(grad_output), bits, settings, wanted());
    }
    return Derived::grads(grad_output, bits, settings, output_strides, wanted());
  }

  // Compiled autograd: everything that apply depends on, and apply as a function of it.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    args.collect(mask, /*is_output=*/false);
    std::apply([&](const auto&... setting) { (args.collect(setting), ...); }, settings);
    args.collect(output_strides);
  }

  variable_list apply_with_saved(
      const variable_list& incoming, torch::dynamo::autograd::SwapSavedVariables& saved) override {
    saved.before(mask);
    std::apply([&](auto&... setting) { (saved.before(setting), ...); }, settings);
    saved.before(output_strides);
    torch::dynamo::autograd::PackedArgs packed;
    packed.pack(mask.unpack());
    std::apply([&](const auto&... setting) { (packed.pack(setting), ...); }, settings);
    packed.pack(output_strides);
    packed.pack(static_cast<int64_t>(wanted().to_ulong()));
    auto grad_inputs = call_compiled(*this, incoming, saved, std::move(packed), apply_functional);
    saved.after(mask);
    std::apply([&](auto&... setting) { (saved.after(setting), ...); }, settings);
    saved.after(output_strides);
    return grad_inputs;
  }

  void save(const at::Tensor& output, const at::Tensor& bits) {
    mask = torch::autograd::SavedVariable(bits, /*is_output=*/false);
    if (!output.is_contiguous()) {
      const auto strides = dense_sym_strides(output);
      output_strides.emplace(strides.begin(), strides.end());
    }
  }

 private:
  Wanted wanted() const {
    Wanted result;
    for (size_t edge = 0; edge < num_outputs(); ++edge) {
      result[edge] = task_should_compute_output(edge);
    }
    return result;
  }

  /// True if the gradient of the input may overwrite grad_output: grad_output has exactly the wanted layout, nobody
  /// else will read it, and no second derivative is being recorded.
  bool may_overwrite(const at::Tensor& grad_output) const {
    if (at::GradMode::is_enabled() || functorch_active() || mode_active() || !is_sole_owner(grad_output)) {
      return false;
    }
    // Strides must be equal even where a size is 1: the result's must not depend on who else holds the gradient.
    return output_strides.has_value()
        ? grad_output.sym_strides() == c10::SymIntArrayRef(*output_strides)
        : grad_output.strides() == at::IntArrayRef(c10::contiguous_strides(grad_output.sizes()));
  }

  static variable_list apply_functional(const variable_list& incoming, const std::vector<c10::IValue>& args) {
    torch::dynamo::autograd::PackedArgs packed(args);
    const auto mask = packed.unpack<at::Tensor>();
    Settings settings;
    std::apply(
        [&](auto&... setting) { ((setting = packed.unpack<std::decay_t<decltype(setting)>>()), ...); }, settings);
    const auto output_strides = packed.unpack<OutputStrides>();
    return Derived::grads(incoming[0], mask, settings, output_strides, Wanted(packed.unpack<int64_t>()));
  }
};

/// Makes a node with edges to the inputs' history. Call it before an in-place op changes that history.
template <class Node, typename... Inputs>
NodePtr<Node> node_for(const typename Node::Settings& settings, const Inputs&... inputs) {
  auto node = make_node<Node>();
  node->set_next_edges(torch::autograd::collect_next_edges(inputs...));
  node->settings = settings;
  return node;
}

template <class Node>
void record(const NodePtr<Node>& node, const at::Tensor& output, const at::Tensor& mask) {
  torch::autograd::set_history(output, node);
  node->save(output, mask);
  complete(node);
}

template <class Node>
void record_inplace(const NodePtr<Node>& node, const at::Tensor& input, const at::Tensor& mask) {
  const auto attached = attach_inplace(input, node);
  node->save(input, mask);
  complete(attached);
}

inline void check_no_derivative(const at::Tensor& grad_output, const std::string& op) {
  TORCH_CHECK(
      !torch::autograd::compute_requires_grad(grad_output) && !torch::autograd::isFwGradDefined(grad_output), op,
      "(): argument 'grad_output' must not require grad nor have a tangent: this op is not differentiable, ",
      op.substr(0, op.size() - 1), " is");
}

} // namespace leakyrelu_ext
