#pragma once
// The autograd node of bias_leaky_relu.

#include <typeinfo>

namespace leakyrelu_ext {

constexpr const char* kBiasLeakyReLUNodeName = "BiasLeakyReLUBackward";

/// The C++ type of the node behind grad_fn.
const std::type_info& bias_leaky_relu_node_type();

} // namespace leakyrelu_ext
