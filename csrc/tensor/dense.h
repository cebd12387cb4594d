#pragma once
// The dense memory order of a tensor's results and its mask.

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/util/DimVector.h>
#include <c10/util/strides.h>

#include <algorithm>
#include <utility>

namespace leakyrelu_ext {

/// The strides of at::empty_like(tensor): the tensor's own if it is dense, else dense ones in the same dimension order.
inline c10::DimVector dense_strides(const at::Tensor& tensor) {
  if (tensor.is_non_overlapping_and_dense()) {
    return c10::DimVector(tensor.strides());
  }
  return c10::DimVector(at::infer_dense_strides(tensor.sizes(), tensor.strides()));
}

/// dense_strides(), also for symbolic shapes.
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

/// Gives a new result the strides that PyTorch's elementwise kernels choose where sizes of 0 or 1 leave a choice:
/// contiguous if the input is, else channels_last if the input is. Later code may depend on these strides.
inline void as_elementwise_strides(const at::Tensor& input, const at::Tensor& output) {
  const c10::DimVector sizes(output.sizes());
  if (input.is_contiguous()) {
    output.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, c10::contiguous_strides(sizes));
  } else if (input.dim() == 4 && input.is_contiguous(at::MemoryFormat::ChannelsLast)) {
    output.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, c10::get_channels_last_strides_2d(sizes));
  }
}

/// False if all elements have different offsets; true if some share one, or if that is hard to tell.
inline bool may_overlap(const at::Tensor& tensor) {
  c10::SmallVector<std::pair<int64_t, int64_t>, 5> by_stride; // stride, size
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) != 1) {
      by_stride.emplace_back(tensor.stride(d), tensor.size(d));
    }
  }
  std::sort(by_stride.begin(), by_stride.end());
  int64_t extent = 1; // spanned by the dimensions so far
  for (const auto& [stride, size] : by_stride) {
    if (stride < extent) {
      return true;
    }
    extent += stride * (size - 1);
  }
  return false;
}

} // namespace leakyrelu_ext
