// As leaky_relu.cpp.

#include "csrc/cuda/bias_leaky_relu.cu"

#include "checked.h"

namespace leakyrelu_ext {
namespace {

using namespace cuda_on_host;

struct HostBackend {
  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return BiasLeakyReLUCuda::empty_strided(sizes, strides, dtype, device);
  }

  // What is not in the results' order is copied, by PyTorch: kernels have no business there.
  static bool in_order(const at::Tensor& tensor, at::IntArrayRef strides) {
    return same_order(tensor.sizes(), tensor.strides(), strides);
  }

  static void forward(const BiasLeakyReLUForward& call) {
    const auto regions = [&] {
      Regions result;
      const auto strides = call.output.strides();
      add_input_and_output(result, in_order(call.input, strides) ? call.input : call.output, call.output);
      if (call.bias != nullptr) {
        result.push_back(region("bias", *call.bias, true, false));
      }
      if (call.residual != nullptr && in_order(*call.residual, strides)) {
        result.push_back(region("residual", *call.residual, true, false));
      }
      if (call.mask != nullptr) {
        result.push_back(region("mask", *call.mask, false, true));
      }
      return result;
    };
    checked(regions, [&] { BiasLeakyReLUCuda::forward(call); });
  }

  static void backward(const BiasLeakyReLUBackward& call) {
    const auto regions = [&] {
      Regions result;
      const bool ordered = in_order(call.grad_output, call.strides);
      if (call.grad_input != nullptr) {
        add_input_and_output(result, ordered ? call.grad_output : *call.grad_input, *call.grad_input);
      } else if (ordered) {
        result.push_back(region("input", call.grad_output, true, false));
      }
      result.push_back(region("mask", call.mask, true, false));
      if (call.grad_bias != nullptr) {
        result.push_back(region("grad_bias", *call.grad_bias, false, true));
      }
      return result;
    };
    checked(regions, [&] { BiasLeakyReLUCuda::backward(call); });
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  BiasLeakyReLUOps<HostBackend>::register_kernels(m);
}

// Of the generator: hands its state out as in a CUDA graph; what it has handed out last.
TORCH_LIBRARY_FRAGMENT(cuda_on_host, m) {
  m.def("capture(bool captured) -> ()", [](bool captured) {
    const c10::cuda::CUDAGuard guard(at::kCPU);
    at::cuda::detail::getDefaultCUDAGenerator().captured = captured;
  });
  m.def("random_state() -> int[]", [] {
    const c10::cuda::CUDAGuard guard(at::kCPU);
    const auto& last = at::cuda::detail::getDefaultCUDAGenerator().last;
    return std::vector<int64_t>(last.begin(), last.end());
  });
}

} // namespace leakyrelu_ext
