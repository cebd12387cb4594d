#pragma once
// How a node joins the graph that compiled autograd traces: as a call of a function of what it has saved.

#include <torch/csrc/dynamo/compiled_autograd.h>

#include <optional>
#include <utility>
#include <vector>

namespace leakyrelu_ext {

/// Calls function(incoming, packed values) in the graph. `packed`: all that the node's apply depends on.
inline torch::autograd::variable_list call_compiled(
    const torch::autograd::Node& node,
    const torch::autograd::variable_list& incoming,
    torch::dynamo::autograd::SwapSavedVariables& saved,
    torch::dynamo::autograd::PackedArgs packed,
    torch::autograd::variable_list (*function)(
        const torch::autograd::variable_list& incoming, const std::vector<c10::IValue>& packed)) {
  const auto args = std::move(packed).vec();
  std::vector<at::TypePtr> schema;
  schema.reserve(args.size());
  for (const auto& arg : args) {
    schema.emplace_back(arg.isTensor() ? at::TypePtr(at::TensorType::get()) : arg.type());
  }
  const auto& compiler = torch::dynamo::autograd::getPyCompilerInterface();
  const auto bound = compiler->bind_function(
      saved.get_py_compiler(), node.name(), function, schema, /*is_custom_function=*/true, /*is_traceable=*/true);
  const auto metadata =
      torch::dynamo::autograd::IValuePacker<std::vector<std::optional<torch::autograd::InputMetadata>>>::pack(
          torch::dynamo::autograd::get_input_metadata(node.next_edges()));
  return compiler->call_function(saved.get_py_compiler(), "apply_functional", bound, incoming, args, metadata);
}

} // namespace leakyrelu_ext
