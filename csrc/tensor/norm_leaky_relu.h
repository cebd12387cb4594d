#pragma once
// The arguments of the norm_leaky_relu ops as one object, and the shapes that kernels work on.

#include <ATen/core/Tensor.h>
#include <c10/core/DispatchKeySet.h>

#include <optional>

#include "../element/norm_leaky_relu.h"
#include "checks.h"

namespace leakyrelu_ext {

/// All arguments but input.
struct NormArguments {
  const std::optional<at::Tensor>& weight;
  const std::optional<at::Tensor>& bias;
  const std::optional<at::Tensor>& running_mean;
  const std::optional<at::Tensor>& running_var;
  const std::optional<at::Tensor>& residual;
  int64_t num_groups;
  bool use_input_stats;
  double momentum;
  double eps;
  double negative_slope;

  template <typename Op, typename... Last>
  decltype(auto) call(const Op& op, const at::Tensor& input, Last... last) const {
    return op.call(
        input, weight, bias, running_mean, running_var, residual, num_groups, use_input_stats, momentum, eps,
        negative_slope, last...);
  }

  template <typename Op, typename... Last>
  decltype(auto) redispatch(const Op& op, c10::DispatchKeySet keys, const at::Tensor& input, Last... last) const {
    return op.redispatch(
        keys, input, weight, bias, running_mean, running_var, residual, num_groups, use_input_stats, momentum, eps,
        negative_slope, last...);
  }
};

inline void check_num_groups(const at::Tensor& input, int64_t num_groups, const char* op) {
  TORCH_CHECK(
      input.dim() >= 2, op, "(): argument 'input' must have at least 2 dimensions, got shape ", input.sym_sizes());
  TORCH_CHECK_VALUE(
      num_groups >= 0 && (num_groups == 0 || input.sym_size(1) % num_groups == 0), op,
      "(): argument 'num_groups' must be 0 or divide the number of channels, ", input.sym_size(1), ", got ",
      num_groups);
}

/// Adapts function(input, arguments, last...) or function(keys, input, arguments, last...) to the dispatcher.
template <auto function, typename Signature = decltype(function)>
struct NormUnpacked;

#define LEAKYRELU_EXT_NORM_PARAMETERS                                                                                  \
  const at::Tensor &input, const std::optional<at::Tensor>&weight, const std::optional<at::Tensor>&bias,               \
      const std::optional<at::Tensor>&running_mean, const std::optional<at::Tensor>&running_var,                       \
      const std::optional<at::Tensor>&residual, int64_t num_groups, bool use_input_stats, double momentum, double eps, \
      double negative_slope

template <auto function, typename Result, typename... Last>
struct NormUnpacked<function, Result (*)(const at::Tensor&, const NormArguments&, Last...)> {
  static Result call(LEAKYRELU_EXT_NORM_PARAMETERS, Last... last) {
    return function(
        input,
        {weight, bias, running_mean, running_var, residual, num_groups, use_input_stats, momentum, eps, negative_slope},
        last...);
  }
};

template <auto function, typename Result, typename... Last>
struct NormUnpacked<function, Result (*)(c10::DispatchKeySet, const at::Tensor&, const NormArguments&, Last...)> {
  static Result call(c10::DispatchKeySet keys, LEAKYRELU_EXT_NORM_PARAMETERS, Last... last) {
    return function(
        keys, input,
        {weight, bias, running_mean, running_var, residual, num_groups, use_input_stats, momentum, eps, negative_slope},
        last...);
  }
};

#undef LEAKYRELU_EXT_NORM_PARAMETERS

/// Whether a transform of torch.func wraps the tensor. Under vmap, tensors have no memory format.
inline bool is_wrapped(const at::Tensor& tensor) {
  return tensor.key_set().has_any(
      c10::DispatchKeySet({c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::FuncTorchGradWrapper}));
}

/// The result's: PyTorch's norms choose it so.
inline at::MemoryFormat norm_memory_format(const at::Tensor& input) {
  return is_wrapped(input) ? at::MemoryFormat::Contiguous : input.suggest_memory_format();
}

inline at::Tensor in_memory_format(const at::Tensor& tensor, at::MemoryFormat format) {
  return is_wrapped(tensor) ? tensor : tensor.contiguous(format);
}

/// An input of shape [samples, channels, pixels], and its groups: sets of elements with statistics of their own.
struct NormShape {
  int64_t samples;
  int64_t channels;
  int64_t pixels;
  int64_t groups_per_sample; // 0: a group per channel, over the whole batch
  bool channels_innermost;   // in memory: pixels of channels; else rows of pixels

  NormShape(const at::Tensor& input, int64_t num_groups, bool use_input_stats)
      : samples(input.size(0)),
        channels(input.size(1)),
        pixels(samples * channels == 0 ? 0 : input.numel() / (samples * channels)),
        groups_per_sample(use_input_stats ? num_groups : 0),
        channels_innermost(channels > 1 && (pixels == 1 || norm_memory_format(input) != at::MemoryFormat::Contiguous)) {
  }

  int64_t numel() const {
    return samples * channels * pixels;
  }
  bool over_batch() const {
    return groups_per_sample == 0;
  }
  NormStatisticsSizes sizes() const {
    return over_batch() ? NormStatisticsSizes{channels, channels}
                        : NormStatisticsSizes{samples * channels, samples * groups_per_sample};
  }
  int64_t channels_per_group() const {
    return over_batch() ? 1 : channels / groups_per_sample;
  }
  int64_t elements_per_group() const {
    return over_batch() ? samples * pixels : channels_per_group() * pixels;
  }
  /// A mask's rows (runs of pixels, or of channels) begin bytes.
  int64_t mask_bytes() const {
    return channels_innermost ? samples * pixels * leakyrelu_ext::mask_bytes(channels)
                              : samples * channels * leakyrelu_ext::mask_bytes(pixels);
  }
};

} // namespace leakyrelu_ext
