#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>

namespace at::detail {

inline at::Tensor empty_strided_cuda(IntArrayRef sizes, IntArrayRef strides, ScalarType dtype, Device device) {
  TORCH_CHECK(device.is_cpu(), "CUDA on host: an output on another device than the input's");
  return empty_strided_cpu(sizes, strides, dtype);
}

} // namespace at::detail
