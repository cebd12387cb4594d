#pragma once
// Casts input and residual to the dtype of their sum in PyTorch.

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <optional>

namespace leakyrelu_ext {

struct Promoted {
  at::Tensor input;
  std::optional<at::Tensor> residual;
};

inline Promoted promote(const at::Tensor& input, const std::optional<at::Tensor>& residual) {
  if (!residual.has_value() || residual->scalar_type() == input.scalar_type()) {
    return {input, residual};
  }
  const auto dtype = c10::promoteTypes(input.scalar_type(), residual->scalar_type());
  return {input.to(dtype), residual->to(dtype)};
}

} // namespace leakyrelu_ext
