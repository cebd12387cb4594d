#pragma once
// What python.cpp needs to know of the autograd node. Derivatives: autograd.cpp.

#include <typeinfo>

namespace leakyrelu_ext {

constexpr const char* kNodeName = "LeakyReLUBackward";

/// The C++ type of the node behind every op's grad_fn.
const std::type_info& node_type();

} // namespace leakyrelu_ext
