// Leaky ReLU on the CPU. Schemas: ../ops.cpp. Arithmetic of one element: ../element/activation.h.
// Inner loops: loops/<tier>.cpp.

#include <ATen/Dispatch.h>

#include "../device/leaky_relu.h"
#include "active_tier.h"
#include "large_memory.h"
#include "parallel.h"
#include "strided.h"

namespace leakyrelu_ext {
namespace {

using cpu::Stores;

uint8_t* mask_at(uint8_t* mask, int64_t begin) {
  return mask == nullptr ? nullptr : mask + begin / kMaskBits;
}

struct CpuBackend {
  static at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device) {
    return cpu::empty_strided(sizes, strides, dtype);
  }

  static void forward(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "leaky_relu", [&] {
      const auto& loops = cpu::active_loops<scalar_t>(input.numel());
      const auto slope = slope_as<scalar_t>(negative_slope);
      // The output's pointer first: in place, this moves copy-on-write data.
      auto* out = output.mutable_data_ptr<scalar_t>();
      const auto* in = input.const_data_ptr<scalar_t>();
      auto* bits = mask == nullptr ? nullptr : mask->mutable_data_ptr<uint8_t>();
      const auto stores = in == out ? Stores::kCached : cpu::stores_for(out, input.numel() * sizeof(scalar_t));
      cpu::parallel_over<scalar_t>(input.numel(), [&](int64_t begin, int64_t n) {
        loops.forward(in + begin, out + begin, mask_at(bits, begin), {n}, slope, stores);
      });
    });
  }

  static void forward_strided(
      const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double negative_slope) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, input.scalar_type(), "leaky_relu", [&] {
      const auto& loops = cpu::active_loops<scalar_t>(input.numel());
      const auto slope = slope_as<scalar_t>(negative_slope);
      const StridedOrder order(input.sizes(), input.strides(), dense_strides(output));
      auto* out = output.mutable_data_ptr<scalar_t>();
      const auto* in = input.const_data_ptr<scalar_t>();
      auto* bits = mask == nullptr ? nullptr : mask->mutable_data_ptr<uint8_t>();
      if (output.is_same(input)) {
        cpu::parallel_over_strided_in_place(loops, out, order, [&](scalar_t* values, int64_t begin, cpu::Rows rows) {
          loops.forward(values, values, mask_at(bits, begin), rows, slope, Stores::kCached);
        });
      } else {
        cpu::parallel_over_strided(loops, in, order, [&](const scalar_t* values, int64_t begin, cpu::Rows rows) {
          loops.forward(values, out + begin, mask_at(bits, begin), rows, slope, Stores::kCached);
        });
      }
    });
  }

  static void backward(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double negative_slope) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad_output.scalar_type(), "leaky_relu_backward", [&] {
      const auto& loops = cpu::active_loops<scalar_t>(grad_output.numel());
      const auto slope = slope_as<scalar_t>(negative_slope);
      auto* out = grad_input.mutable_data_ptr<scalar_t>();
      const auto* in = grad_output.const_data_ptr<scalar_t>();
      const auto* bits = mask.const_data_ptr<uint8_t>();
      const auto stores = in == out ? Stores::kCached : cpu::stores_for(out, grad_output.numel() * sizeof(scalar_t));
      cpu::parallel_over<scalar_t>(grad_output.numel(), [&](int64_t begin, int64_t n) {
        loops.backward(in + begin, bits + begin / kMaskBits, out + begin, {n}, slope, stores);
      });
    });
  }

  static void backward_strided(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double negative_slope) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad_output.scalar_type(), "leaky_relu_backward", [&] {
      const auto& loops = cpu::active_loops<scalar_t>(grad_output.numel());
      const auto slope = slope_as<scalar_t>(negative_slope);
      const StridedOrder order(grad_output.sizes(), grad_output.strides(), grad_input.strides());
      auto* out = grad_input.mutable_data_ptr<scalar_t>();
      const auto* in = grad_output.const_data_ptr<scalar_t>();
      const auto* bits = mask.const_data_ptr<uint8_t>();
      cpu::parallel_over_strided(loops, in, order, [&](const scalar_t* values, int64_t begin, cpu::Rows rows) {
        loops.backward(values, bits + begin / kMaskBits, out + begin, rows, slope, Stores::kCached);
      });
    });
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  DeviceOps<CpuBackend>::register_kernels(m);
}

} // namespace leakyrelu_ext
