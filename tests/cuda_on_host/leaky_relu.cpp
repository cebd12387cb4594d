// The CUDA backend's own source, executed on the host by emulator.cpp, as the implementation of the ops for CPU tensors.

#include "csrc/cuda/leaky_relu.cu"

#include "checked.h"

namespace leakyrelu_ext {
namespace {

using namespace cuda_on_host;

template <typename Run>
void checked(
    const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, bool mask_is_input, const Run& run) {
  const auto regions = [&] {
    Regions result;
    add_input_and_output(result, input, output);
    if (mask != nullptr) {
      result.push_back(region("mask", *mask, mask_is_input, !mask_is_input));
    }
    return result;
  };
  cuda_on_host::checked(regions, run);
}

struct HostBackend {
  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return CudaBackend::empty_strided(sizes, strides, dtype, device);
  }

  static void forward(const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double slope) {
    checked(input, output, mask, false, [&] { CudaBackend::forward(input, output, mask, slope); });
  }

  static void forward_strided(const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double slope) {
    checked(input, output, mask, false, [&] { CudaBackend::forward_strided(input, output, mask, slope); });
  }

  static void backward(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double slope) {
    checked(grad_output, grad_input, &mask, true, [&] { CudaBackend::backward(grad_output, mask, grad_input, slope); });
  }

  static void backward_strided(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double slope) {
    checked(grad_output, grad_input, &mask, true, [&] {
      CudaBackend::backward_strided(grad_output, mask, grad_input, slope);
    });
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  DeviceOps<HostBackend>::register_kernels(m);
}

} // namespace leakyrelu_ext
