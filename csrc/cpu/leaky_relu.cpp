// Leaky ReLU on the CPU. Schemas: ../ops.cpp. Arithmetic of one element: ../activation.h. Inner loops: loops_<tier>.cpp.

#include <ATen/Dispatch.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/TensorIterator.h>
#include <ATen/Version.h>

#include <string>

#include "../device_ops.h"
#include "loops.h"

namespace leakyrelu_ext {

namespace cpu {

const Tier& active_tier() {
  static const Tier& tier = []() -> const Tier& {
#ifdef LEAKYRELU_EXT_X86_TIERS
    const std::string capability = at::get_cpu_capability();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    if (capability == "AVX512" && avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      return avx512_tier();
    }
    if ((capability == "AVX512" || capability == "AVX2") && avx2) {
      return avx2_tier();
    }
#endif
    return generic_tier();
  }();
  return tier;
}

} // namespace cpu

namespace {

// Threads share work in blocks of whole mask cache lines, so that none writes into another's.
constexpr int64_t kBlock = 64 * kMaskBits;
// ATen's own grain: below it a second thread costs more than it saves.
constexpr int64_t kGrainBlocks = at::internal::GRAIN_SIZE / kBlock;

/// Calls work(begin, n) over [0, numel) in pieces that begin at a multiple of kBlock.
template <typename Work>
void parallel_over(int64_t numel, const Work& work) {
  at::parallel_for(0, at::divup(numel, kBlock), kGrainBlocks, [&](int64_t first, int64_t last) {
    const int64_t begin = first * kBlock;
    work(begin, std::min(last * kBlock, numel) - begin);
  });
}

struct CpuBackend {
  static at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device) {
    return at::detail::empty_strided_cpu(sizes, strides, dtype);
  }

  static void forward(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "leaky_relu", [&] {
      const auto& loops = std::get<cpu::Loops<scalar_t>>(cpu::active_tier().loops);
      const auto slope = slope_as<scalar_t>(negative_slope);
      // The output first: in place on a copy-on-write tensor this moves the data.
      auto* out = output.mutable_data_ptr<scalar_t>();
      const auto* in = input.const_data_ptr<scalar_t>();
      if (mask == nullptr) {
        parallel_over(
            input.numel(), [&](int64_t begin, int64_t n) { loops.forward(in + begin, out + begin, n, slope); });
      } else {
        auto* bits = mask->mutable_data_ptr<uint8_t>();
        parallel_over(input.numel(), [&](int64_t begin, int64_t n) {
          loops.forward_with_mask(in + begin, out + begin, bits + begin / kMaskBits, n, slope);
        });
      }
    });
  }

  static void backward(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double negative_slope) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad_output.scalar_type(), "leaky_relu_backward", [&] {
      const auto& loops = std::get<cpu::Loops<scalar_t>>(cpu::active_tier().loops);
      const auto slope = slope_as<scalar_t>(negative_slope);
      auto* out = grad_input.mutable_data_ptr<scalar_t>();
      const auto* in = grad_output.const_data_ptr<scalar_t>();
      const auto* bits = mask.const_data_ptr<uint8_t>();
      parallel_over(grad_output.numel(), [&](int64_t begin, int64_t n) {
        loops.backward(in + begin, bits + begin / kMaskBits, out + begin, n, slope);
      });
    });
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  DeviceOps<CpuBackend>::register_kernels(m);
}

} // namespace leakyrelu_ext
