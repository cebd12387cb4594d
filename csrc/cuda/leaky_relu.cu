// Leaky ReLU on CUDA. Schemas: ../ops.cpp. Arithmetic of one element: ../element/activation.h. Kernel: kernels.cuh.

#include <ATen/Dispatch.h>
#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "../device/leaky_relu.h"
#include "launch.cuh"

namespace leakyrelu_ext {
namespace {

using cuda::Pass;

/// Calls run(memory, slope, stream) with the tensors' device as the current one. mask: nullptr if a forward wants none.
template <typename T, typename Run>
void with_memory(
    const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope, const Run& run) {
  const c10::cuda::CUDAGuard guard(input.device());
  // The output's pointer first: in place on a copy-on-write tensor, this call moves the data.
  T* const out = output.mutable_data_ptr<T>();
  const cuda::Memory<T> memory{
      input.const_data_ptr<T>(), out, mask == nullptr ? nullptr : mask->mutable_data_ptr<uint8_t>()};
  C10_CUDA_CHECK(run(memory, slope_as<T>(negative_slope), c10::cuda::getCurrentCUDAStream()));
}

template <Pass pass>
void run_dense(const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "leaky_relu", [&] {
    with_memory<scalar_t>(input, output, mask, negative_slope, [&](auto memory, auto slope, auto stream) {
      return cuda::run<scalar_t, pass>(memory, input.numel(), slope, stream);
    });
  });
}

template <Pass pass>
void run_strided(const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
  const StridedOrder order(input.sizes(), input.strides(), dense_strides(output));
  constexpr size_t kMaxDims = cuda::Strided<uint32_t>::kMaxDims;
  TORCH_CHECK(
      order.dims().size() <= kMaxDims, "leaky_relu: a tensor may have at most ", kMaxDims,
      " dimensions on CUDA that do not run on into each other, got ", order.dims().size(),
      ". Call contiguous() first.");
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "leaky_relu", [&] {
    with_memory<scalar_t>(input, output, mask, negative_slope, [&](auto memory, auto slope, auto stream) {
      return cuda::run_strided<scalar_t, pass>(memory, slope, order, output.is_same(input), stream);
    });
  });
}

struct CudaBackend {
  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return at::detail::empty_strided_cuda(sizes, strides, dtype, device);
  }

  static void forward(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    run_dense<Pass::kForward>(input, output, mask, negative_slope);
  }

  static void forward_strided(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    run_strided<Pass::kForward>(input, output, mask, negative_slope);
  }

  static void backward(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double negative_slope) {
    run_dense<Pass::kBackward>(grad_output, grad_input, &mask, negative_slope);
  }

  static void backward_strided(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double negative_slope) {
    run_strided<Pass::kBackward>(grad_output, grad_input, &mask, negative_slope);
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CUDA, m) {
  DeviceOps<CudaBackend>::register_kernels(m);
}

} // namespace leakyrelu_ext
