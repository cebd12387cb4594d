#pragma once
// How a kernel of the Autograd key handles a call.

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>

#include "interception.h"

namespace leakyrelu_ext {

enum class Route {
  below,  // no derivative needed: the op itself, without a mask
  record, // record a node
  aten,   // ATen ops, for transforms that a C++ node does not support and devices without native kernels
};

/// The route of a call on these tensors; optional ones may be undefined. The first one's device and layout count.
template <typename... Others>
Route route(const at::Tensor& tensor, const Others&... others) {
  if (functorch_active() || torch::autograd::isFwGradDefined(tensor) ||
      (torch::autograd::isFwGradDefined(others) || ...)) {
    return Route::aten;
  }
  if (!(at::GradMode::is_enabled() && torch::autograd::compute_requires_grad(tensor, others...))) {
    return Route::below;
  }
  return has_native_kernel(tensor) ? Route::record : Route::aten;
}

} // namespace leakyrelu_ext
