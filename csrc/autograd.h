#pragma once
// What python.cpp needs to know of the autograd nodes. Derivatives: autograd.cpp, bias_autograd.cpp.

#include <typeinfo>

namespace leakyrelu_ext {

constexpr const char* kNodeName = "LeakyReLUBackward";

constexpr const char* kBiasNodeName = "BiasLeakyReLUBackward";

/// The C++ types of the nodes behind the ops' grad_fn.
const std::type_info& node_type();
const std::type_info& bias_node_type();

} // namespace leakyrelu_ext
