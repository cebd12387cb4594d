#pragma once

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>

#include <cstring>

namespace at::detail {

inline at::Tensor empty_strided_cuda(IntArrayRef sizes, IntArrayRef strides, ScalarType dtype, Device device) {
  TORCH_CHECK(device.is_cpu(), "CUDA on host: an output on another device than the input's");
  Tensor result = empty_strided_cpu(sizes, strides, dtype);
  std::memset(result.mutable_data_ptr(), 0xff, result.storage().nbytes()); // NaN, for who reads what is not written
  cuda_on_host::allocated(result.const_data_ptr(), result.storage().nbytes());
  return result;
}

} // namespace at::detail
