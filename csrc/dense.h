#pragma once
// Layouts: which dense memory order a tensor's results and its mask take.

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/DimVector.h>

namespace leakyrelu_ext {

/// The strides of at::empty_like(tensor): the tensor's own if it is dense, else dense ones in the same order of dimensions.
inline c10::DimVector dense_strides(const at::Tensor& tensor) {
  if (tensor.is_non_overlapping_and_dense()) {
    return c10::DimVector(tensor.strides());
  }
  return c10::DimVector(at::infer_dense_strides(tensor.sizes(), tensor.strides()));
}

/// dense_strides() also of symbols.
inline c10::SymDimVector dense_sym_strides(const at::Tensor& tensor) {
  if (tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides()) {
    return c10::SymDimVector(at::empty_like(tensor).sym_strides());
  }
  return c10::SymDimVector(c10::fromIntArrayRefSlow(dense_strides(tensor)));
}

/// True if both orders place every element at the same offset: strides may differ only where a size is 1.
inline bool same_order(at::IntArrayRef sizes, at::IntArrayRef strides, at::IntArrayRef other) {
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] != 1 && strides[d] != other[d]) {
      return false;
    }
  }
  return true;
}

} // namespace leakyrelu_ext
