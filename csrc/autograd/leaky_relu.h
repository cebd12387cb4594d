#pragma once
// The nodes of leaky_relu in autograd's graph, and how one is recorded: also for aten's op (installed.cpp).

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <typeinfo>

namespace leakyrelu_ext {

/// The nodes of a Leaky ReLU differ in their names.
enum class NodeKind {
  ours,
  aten, // under PyTorch's own op: the name by which tools know its nodes
  aten_inplace,
};
constexpr const char* kNodeNames[] = {"LeakyReLUBackward", "LeakyReluBackward0", "LeakyReluBackward1"};

/// The C++ type of the node behind grad_fn.
const std::type_info& node_type(NodeKind kind);

/// What one of these nodes has saved.
double saved_negative_slope(const torch::autograd::Node& node);
at::Tensor saved_mask(const torch::autograd::Node& node);

/// Leaky ReLU where a node is to be recorded (Route::record). Modes see aten's op. `under_aten`: of a call of that op.
at::Tensor record_leaky_relu(const at::Tensor& input, double negative_slope, bool under_aten);
void record_leaky_relu_(at::Tensor& input, double negative_slope, bool under_aten);

} // namespace leakyrelu_ext
