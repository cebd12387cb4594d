#pragma once
// The autograd nodes of leaky_relu, and functions that record one, also for aten's op (installed.cpp).

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/function.h>

#include <typeinfo>

namespace leakyrelu_ext {

/// The kinds of node differ only in name.
enum class NodeKind {
  ours,
  aten, // for PyTorch's own op: tools know its nodes by this name
  aten_inplace,
};
constexpr const char* kNodeNames[] = {"LeakyReLUBackward", "LeakyReluBackward0", "LeakyReluBackward1"};

/// The C++ type of the node behind grad_fn.
const std::type_info& node_type(NodeKind kind);

double saved_negative_slope(const torch::autograd::Node& node);
at::Tensor saved_mask(const torch::autograd::Node& node);

/// Runs Leaky ReLU and records a node (Route::record). Modes see aten's op. `under_aten`: the program called aten's op.
at::Tensor record_leaky_relu(const at::Tensor& input, double negative_slope, bool under_aten);
void record_leaky_relu_(at::Tensor& input, double negative_slope, bool under_aten);

} // namespace leakyrelu_ext
