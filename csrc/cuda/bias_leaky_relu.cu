// bias_leaky_relu on CUDA. Schemas: ../ops.cpp. Arithmetic of one element: ../element/activation.h.
// Kernels: kernels.cuh with the parts of bias_leaky_relu.cuh, and grad_bias.cuh.

#include <ATen/Dispatch.h>
#include <ATen/cuda/CUDAGeneratorImpl.h>
#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <mutex>

#include "../device/bias_leaky_relu.h"
#include "grad_bias.cuh"

namespace leakyrelu_ext {
namespace {

/// The state of the current device's generator for one call. Elements have their own counters, so for the generator one
/// call is one number of one thread, which it counts as four.
cuda::RandomState next_random_state() {
  auto* generator =
      at::get_generator_or_default<at::CUDAGeneratorImpl>(std::nullopt, at::cuda::detail::getDefaultCUDAGenerator());
  const std::lock_guard<std::mutex> lock(generator->mutex_);
  const at::PhiloxCudaState state = generator->philox_cuda_state(4);
  if (state.captured_) {
    return {0, state.offset_intragraph_, state.seed_.ptr, state.offset_.ptr};
  }
  return {state.seed_.val, state.offset_.val, nullptr, nullptr};
}

struct BiasLeakyReLUCuda {
  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return at::detail::empty_strided_cuda(sizes, strides, dtype, device);
  }

  static void forward(const BiasLeakyReLUForward& call) {
    const c10::cuda::CUDAGuard guard(call.output.device());
    const at::Tensor& output = call.output;
    const at::Tensor& input = in_order(call.input, output.strides()) ? call.input : output;
    if (!input.is_same(call.input)) {
      output.copy_(call.input);
    }
    at::Tensor residual = call.residual == nullptr ? at::Tensor() : *call.residual;
    if (residual.defined() && !in_order(residual, output.strides())) {
      residual = copy(residual, output.strides());
    }
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, output.scalar_type(), "bias_leaky_relu", [&] {
      using opmath = opmath_t<scalar_t>;
      // The output's pointer first: in place on a copy-on-write tensor, this call moves the data.
      scalar_t* const out = output.mutable_data_ptr<scalar_t>();
      const cuda::Memory<scalar_t> memory{
          input.const_data_ptr<scalar_t>(), out,
          call.mask == nullptr ? nullptr : call.mask->mutable_data_ptr<uint8_t>()};
      cuda::BiasLeakyReLUParts<scalar_t> parts = parts_of<scalar_t>(call.settings, call.mask, output.numel());
      if (residual.defined()) {
        parts.residual = residual.const_data_ptr<scalar_t>();
      }
      if (call.bias != nullptr) {
        parts.set_bias(call.bias->const_data_ptr<opmath>(), call.channels);
      }
      if (call.settings.dropout_p > 0) {
        parts.drops = true;
        parts.threshold = keep_threshold(call.settings.dropout_p);
        parts.random = next_random_state();
      }
      C10_CUDA_CHECK(
          cuda::run_bias_leaky_relu<cuda::Pass::kForward>(
              memory, output.numel(), parts, c10::cuda::getCurrentCUDAStream()));
    });
  }

  static void backward(const BiasLeakyReLUBackward& call) {
    const c10::cuda::CUDAGuard guard(call.grad_output.device());
    at::Tensor grad_output = call.grad_output;
    if (!in_order(grad_output, call.strides)) {
      grad_output = call.grad_input != nullptr ? call.grad_input->copy_(grad_output) : copy(grad_output, call.strides);
    }
    const int64_t n = grad_output.numel();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad_output.scalar_type(), "bias_leaky_relu", [&] {
      using opmath = opmath_t<scalar_t>;
      scalar_t* const out = call.grad_input == nullptr ? nullptr : call.grad_input->mutable_data_ptr<scalar_t>();
      const cuda::Memory<scalar_t> memory{
          grad_output.const_data_ptr<scalar_t>(), out,
          // The backward only reads it.
          const_cast<uint8_t*>(call.mask.const_data_ptr<uint8_t>())};
      cuda::BiasLeakyReLUParts<scalar_t> parts = parts_of<scalar_t>(call.settings, &call.mask, n);
      parts.constants.gain = static_cast<opmath>(call.settings.gain * call.settings.dropout_scale());
      const auto stream = c10::cuda::getCurrentCUDAStream();
      if (call.grad_bias == nullptr) {
        if (out != nullptr) {
          C10_CUDA_CHECK(cuda::run_bias_leaky_relu<cuda::Pass::kBackward>(memory, n, parts, stream));
        }
        return;
      }
      const bool aligned = cuda::is_aligned(memory.input) && cuda::is_aligned(memory.output);
      const cuda::Traversal traversal = cuda::traverse<scalar_t>(n, call.channels, aligned);
      const at::Tensor workspace =
          empty_strided({traversal.partials()}, {1}, c10::CppTypeToScalarType<opmath>::value, grad_output.device());
      opmath* const partials = workspace.mutable_data_ptr<opmath>();
      C10_CUDA_CHECK(cuda::run_with_grad_bias(memory, parts, traversal, partials, stream));
      AT_DISPATCH_FLOATING_TYPES_AND2(
          at::kHalf, at::kBFloat16, call.grad_bias->scalar_type(), "bias_leaky_relu's grad_bias", [&] {
            scalar_t* const grad_bias = call.grad_bias->mutable_data_ptr<scalar_t>();
            C10_CUDA_CHECK(cuda::sum_partials(partials, grad_bias, traversal, stream));
          });
    });
  }

 private:
  static bool in_order(const at::Tensor& tensor, at::IntArrayRef strides) {
    return same_order(tensor.sizes(), tensor.strides(), strides);
  }

  static at::Tensor copy(const at::Tensor& tensor, at::IntArrayRef strides) {
    return empty_strided(tensor.sizes(), strides, tensor.scalar_type(), tensor.device()).copy_(tensor);
  }

  template <typename T>
  static cuda::BiasLeakyReLUParts<T> parts_of(
      const BiasLeakyReLUSettings& settings, const at::Tensor* mask, int64_t numel) {
    cuda::BiasLeakyReLUParts<T> parts{};
    parts.constants = constants_as<T>(settings);
    // Depends on the mask's size, so that no kernel reads beyond its end.
    parts.passed_plane = mask != nullptr && mask->numel() > mask_bytes(numel) ? mask_bytes(numel) : 0;
    return parts;
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CUDA, m) {
  BiasLeakyReLUOps<BiasLeakyReLUCuda>::register_kernels(m);
}

} // namespace leakyrelu_ext
