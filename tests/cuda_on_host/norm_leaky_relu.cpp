// As leaky_relu.cpp.

#include "csrc/cuda/norm_leaky_relu.cu"

#include "csrc/ops.h"

#include <utility>

#include "checked.h"

namespace leakyrelu_ext {

// The extension's own, which no other library can link to: the kernels of a key that has nothing else.
namespace composite {

constexpr c10::DispatchKeySet kComposites(c10::DispatchKey::FuncTorchBatched);

at::Tensor norm_leaky_relu(const at::Tensor& input, const NormArguments& arguments) {
  return arguments.redispatch(ops::norm_leaky_relu(), kComposites, input);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_forward(
    const at::Tensor& input, const NormArguments& arguments, bool with_mask) {
  return arguments.redispatch(ops::norm_leaky_relu_forward(), kComposites, input, with_mask);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_backward(
    const at::Tensor& grad_output,
    const at::Tensor& input,
    const at::Tensor& statistics,
    const std::optional<at::Tensor>& weight,
    const at::Tensor& mask,
    int64_t num_groups,
    bool use_input_stats,
    double eps,
    double negative_slope,
    std::array<bool, 4> output_mask) {
  return ops::norm_leaky_relu_backward().redispatch(
      kComposites, grad_output, input, statistics, weight, mask, num_groups, use_input_stats, eps, negative_slope,
      output_mask);
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_backward_(
    at::Tensor& grad_output,
    const at::Tensor& input,
    const at::Tensor& statistics,
    const std::optional<at::Tensor>& weight,
    const at::Tensor& mask,
    int64_t num_groups,
    bool use_input_stats,
    double eps,
    double negative_slope,
    std::array<bool, 3> output_mask) {
  return ops::norm_leaky_relu_backward_().redispatch(
      kComposites, grad_output, input, statistics, weight, mask, num_groups, use_input_stats, eps, negative_slope,
      output_mask);
}

} // namespace composite

namespace {

using namespace cuda_on_host;

struct HostBackend {
  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return NormCuda::empty_strided(sizes, strides, dtype, device);
  }

  static void forward(const NormForward& call) {
    const auto regions = [&] {
      Regions result{region("input", call.input, true, false), region("output", call.output, false, true)};
      const auto add = [&](const char* name, const std::optional<at::Tensor>& tensor, bool writable) {
        if (tensor.has_value()) {
          result.push_back(region(name, *tensor, true, writable));
        }
      };
      add("weight", call.weight, false);
      add("bias", call.bias, false);
      add("running_mean", call.running_mean, call.use_input_stats);
      add("running_var", call.running_var, call.use_input_stats);
      if (call.residual != nullptr) {
        result.push_back(region("residual", *call.residual, true, false));
      }
      if (call.mask != nullptr) {
        result.push_back(region("mask", *call.mask, false, true));
      }
      const auto [entries, groups] = call.shape.sizes();
      result.push_back(region("mean, scale, shift", call.statistics.narrow(0, 0, 3 * entries), true, true));
      result.back().is_optional = true; // a block that knows them does not read them
      result.push_back(region("rstd", call.statistics.narrow(0, 3 * entries, groups), false, true));
      return result;
    };
    checked(regions, [&] { NormCuda::forward(call); });
  }

  static void backward(const NormBackward& call) {
    const bool in_place = call.grad_input == &call.grad_output;
    const auto regions = [&] {
      Regions result{
          region("grad_output", call.grad_output, true, in_place), region("input", call.input, true, false),
          region("statistics", call.statistics, true, false)};
      result.back().is_optional = true; // some are for other results than those wanted
      if (call.mask != nullptr) {
        result.push_back(region("mask", *call.mask, true, false));
      }
      const auto add = [&](const char* name, const at::Tensor* tensor) {
        if (tensor != nullptr) {
          result.push_back(region(name, *tensor, false, true));
        }
      };
      add("grad_input", in_place ? nullptr : call.grad_input);
      add("grad_residual", call.grad_residual);
      add("grad_weight", call.grad_weight);
      add("grad_bias", call.grad_bias);
      return result;
    };
    checked(regions, [&] { NormCuda::backward(call); });
  }
};

} // namespace

TORCH_LIBRARY_FRAGMENT(cuda_on_host, m) {
  m.def(
      "fold_norms_up_to(int bytes) -> int", [](int64_t bytes) { return std::exchange(NormCuda::folded_bytes, bytes); });
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  NormOps<HostBackend>::register_kernels(m);
}

} // namespace leakyrelu_ext
