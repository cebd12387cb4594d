// Leaky ReLU on CUDA. Schemas: ../ops.cpp. Arithmetic of one element: ../activation.h. Kernels: kernels.cuh.

#include <ATen/Dispatch.h>
#include <ATen/cuda/EmptyTensor.h>
#include <ATen/ops/empty_like.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "../device_ops.h"
#include "kernels.cuh"

namespace leakyrelu_ext {
namespace {

bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % cuda::kAccessBytes == 0;
}

/// One thread per mask byte of n elements, on the current stream.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...), int64_t n, Arguments... arguments) {
  const int64_t blocks = (mask_bytes(n) + cuda::kThreads - 1) / cuda::kThreads;
  TORCH_CHECK(
      blocks <= std::numeric_limits<int32_t>::max(), "leaky_relu: ", n, " elements exceed the largest CUDA grid");
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks));
  config.blockDim = dim3(cuda::kThreads);
  config.stream = c10::cuda::getCurrentCUDAStream();
  C10_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

struct CudaBackend {
  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return at::detail::empty_strided_cuda(sizes, strides, dtype, device);
  }

  static void forward(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    const c10::cuda::CUDAGuard guard(input.device());
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "leaky_relu", [&] {
      // The output first: in place on a copy-on-write tensor this moves the data.
      auto* out = output.mutable_data_ptr<scalar_t>();
      const auto* in = input.const_data_ptr<scalar_t>();
      auto* bits = mask == nullptr ? nullptr : mask->mutable_data_ptr<uint8_t>();
      const bool aligned = is_aligned(in) && is_aligned(out);
      auto* kernel = mask == nullptr
          ? (aligned ? cuda::forward_kernel<scalar_t, false, true> : cuda::forward_kernel<scalar_t, false, false>)
          : (aligned ? cuda::forward_kernel<scalar_t, true, true> : cuda::forward_kernel<scalar_t, true, false>);
      launch(kernel, input.numel(), in, out, bits, input.numel(), slope_as<scalar_t>(negative_slope));
    });
  }

  static void forward_strided(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    const at::Tensor dense = output.is_same(input) ? at::empty_like(input) : output;
    dense.copy_(input);
    forward(dense, dense, mask, negative_slope);
    if (!dense.is_same(output)) {
      output.copy_(dense);
    }
  }

  static void backward_strided(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double negative_slope) {
    grad_input.copy_(grad_output);
    backward(grad_input, mask, grad_input, negative_slope);
  }

  static void backward(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double negative_slope) {
    const c10::cuda::CUDAGuard guard(grad_output.device());
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad_output.scalar_type(), "leaky_relu_backward", [&] {
      auto* out = grad_input.mutable_data_ptr<scalar_t>();
      const auto* in = grad_output.const_data_ptr<scalar_t>();
      auto* kernel = is_aligned(in) && is_aligned(out) ? cuda::backward_kernel<scalar_t, true>
                                                       : cuda::backward_kernel<scalar_t, false>;
      launch(
          kernel, grad_output.numel(), in, mask.const_data_ptr<uint8_t>(), out, grad_output.numel(),
          slope_as<scalar_t>(negative_slope));
    });
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CUDA, m) {
  DeviceOps<CudaBackend>::register_kernels(m);
}

} // namespace leakyrelu_ext
