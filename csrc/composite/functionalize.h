#pragma once
// In-place ops under functionalization, which gives a written tensor a new value instead.

#include <ATen/FunctionalTensorWrapper.h>

#include <tuple>

namespace leakyrelu_ext {

namespace functionalization = at::functionalization::impl;

/// The tensor inside a functional wrapper; any other tensor as it is.
inline at::Tensor plain_value(const at::Tensor& tensor) {
  if (!tensor.defined() || !functionalization::isFunctionalTensor(tensor)) {
    return tensor;
  }
  functionalization::sync(tensor);
  return functionalization::from_functional_tensor(tensor);
}

/// Runs `op` below functionalization and makes its first result the new value of `input`, like PyTorch's generated
/// in-place ops.
template <typename Op>
auto replace_value(at::Tensor& input, const Op& op) {
  functionalization::sync(input);
  const at::Tensor value = functionalization::from_functional_tensor(input);
  auto results = [&] {
    at::AutoDispatchSkipFunctionalize guard;
    return op(value);
  }();
  functionalization::replace_(input, std::get<0>(results));
  functionalization::commit_update(input);
  functionalization::sync(input);
  return results;
}

} // namespace leakyrelu_ext
