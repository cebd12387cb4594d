// norm_leaky_relu composed of ATen ops, and the dispatch keys that use it; see leaky_relu.cpp.

#include "norm_leaky_relu.h"

#include <ATen/Context.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/instance_norm.h>
#include <ATen/ops/leaky_relu.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <vector>

#include "../autograd/interception.h"
#include "../ops.h"
#include "leaky_relu.h"

namespace leakyrelu_ext {
namespace composite {
namespace {

at::ScalarType opmath_type(const at::Tensor& tensor) {
  return tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

/// Views of tensors as [samples, groups, channels of a group, pixels], whose sums over dims() are a group's. Over the
/// batch a group is a channel.
class Grouped {
 public:
  Grouped(const at::Tensor& input, int64_t num_groups, bool use_input_stats)
      : sizes_(input.sym_sizes().begin(), input.sym_sizes().end()),
        over_batch_(num_groups == 0 || !use_input_stats),
        samples_(input.sym_size(0)),
        channels_(input.sym_size(1)),
        groups_(over_batch_ ? channels_ : c10::SymInt(num_groups)),
        channels_per_group_(over_batch_ ? c10::SymInt(1) : channels_ / num_groups),
        channels_innermost_(norm_memory_format(input) != at::MemoryFormat::Contiguous) {
    for (const auto d : c10::irange(size_t{2}, sizes_.size())) {
      pixels_ *= sizes_[d];
    }
    channels_innermost_ = channels_ > 1 && (channels_innermost_ || pixels_ == 1);
  }

  at::Tensor view(const at::Tensor& like_input) const {
    return like_input.reshape_symint({samples_, groups_, channels_per_group_, pixels_});
  }
  at::Tensor unview(const at::Tensor& grouped) const {
    return grouped.reshape_symint(sizes_);
  }
  at::IntArrayRef dims() const {
    static constexpr int64_t over_batch[] = {0, 2, 3}, of_sample[] = {2, 3};
    return over_batch_ ? at::IntArrayRef(over_batch) : at::IntArrayRef(of_sample);
  }
  /// Per-channel values to be multiplied with a view.
  at::Tensor channels(const at::Tensor& values) const {
    return values.view_symint({1, groups_, channels_per_group_, 1});
  }
  /// The sum of a view's elements for each channel.
  at::Tensor sum_per_channel(const at::Tensor& grouped) const {
    return grouped.sum(at::IntArrayRef({0, 3})).reshape_symint({channels_});
  }
  /// Values of entries to be combined with a view.
  at::Tensor entries(const at::Tensor& values) const {
    return values.view_symint({over_batch_ ? c10::SymInt(1) : samples_, groups_, channels_per_group_, 1});
  }
  /// The other way: one value per entry of something that a view can be combined with.
  at::Tensor per_entry(const at::Tensor& values) const {
    const c10::SymInt samples = over_batch_ ? c10::SymInt(1) : samples_;
    return values.expand_symint({samples, groups_, channels_per_group_, 1}).reshape_symint({samples * channels_});
  }
  c10::SymInt entry_count() const {
    return over_batch_ ? channels_ : samples_ * channels_;
  }
  c10::SymInt per_group() const {
    return over_batch_ ? samples_ * pixels_ : channels_per_group_ * pixels_;
  }
  const c10::SymInt& channel_count() const {
    return channels_;
  }

  /// A bit per element, in memory order; rows of pixels or of channels begin bytes.
  at::Tensor pack(const at::Tensor& positive) const {
    const at::Tensor flat = positive.reshape_symint({samples_, channels_, pixels_});
    const c10::SymInt& row = channels_innermost_ ? channels_ : pixels_;
    const c10::SymInt rest = mask_bytes(row) * kMaskBits - row;
    const at::Tensor rows =
        at::constant_pad_nd_symint((channels_innermost_ ? flat.transpose(1, 2) : flat).to(at::kByte), {0, rest}, 0);
    const at::Tensor bits = rows.reshape_symint({rows.sym_numel()});
    const c10::SymInt one = 1;
    return pack_mask(bits, c10::SymIntArrayRef(&one, 1));
  }
  at::Tensor unpack(const at::Tensor& mask) const {
    const c10::SymInt& row = channels_innermost_ ? channels_ : pixels_;
    const c10::SymInt bits = mask_bytes(row) * kMaskBits;
    const c10::SymInt rows = channels_innermost_ ? pixels_ : channels_;
    const std::vector<c10::SymInt> padded{samples_, rows, bits};
    const at::Tensor all = unpack_mask(mask, padded, std::nullopt).slice_symint(2, 0, row);
    return view(channels_innermost_ ? all.transpose(1, 2) : all);
  }

 private:
  std::vector<c10::SymInt> sizes_;
  bool over_batch_;
  c10::SymInt samples_, channels_, groups_, channels_per_group_, pixels_ = 1;
  bool channels_innermost_;
};

at::Tensor norm(const at::Tensor& input, const NormArguments& arguments) {
  const auto& [weight, bias, running_mean, running_var, residual, num_groups, use_input_stats, momentum, eps, slope] =
      arguments;
  const bool cudnn = at::globalContext().userEnabledCuDNN();
  if (num_groups == 0) {
    return at::batch_norm(input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, cudnn);
  }
  if (running_mean.has_value() || running_var.has_value() || !use_input_stats ||
      (input.dim() > 1 && input.sym_size(1) == num_groups)) {
    return at::instance_norm(input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, cudnn);
  }
  // Contiguous: the forward mode of PyTorch's takes nothing else.
  return at::group_norm(input.contiguous(), num_groups, weight, bias, eps, cudnn);
}

/// Which of the norm's results were positive, as a view. A kernel says it with the bits of its forward.
at::Tensor positives(
    const at::Tensor& input,
    const at::Tensor& statistics,
    const std::optional<at::Tensor>& weight,
    const at::Tensor& mask,
    int64_t num_groups,
    bool use_input_stats,
    double eps,
    const Grouped& grouped) {
  if (mask.sym_numel() != 0) {
    return grouped.unpack(mask);
  }
  const auto keys =
      input.key_set() - c10::autograd_dispatch_keyset_with_ADInplaceOrView - c10::autocast_dispatch_keyset;
  const bool plain =
      keys == c10::DispatchKeySet(c10::DispatchKey::CPU) || keys == c10::DispatchKeySet(c10::DispatchKey::CUDA);
  if (plain && has_native_kernel(input) && !functorch_active() && !mode_active() && input.numel() != 0) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const auto slopes = ops::norm_leaky_relu_backward().call(
        at::ones_like(input), input, statistics, weight, mask, num_groups, use_input_stats, eps, 0.0,
        {false, false, false, true});
    return grouped.view(std::get<3>(slopes).ne(0));
  }
  const c10::SymInt n = grouped.entry_count();
  const auto of_entries = [&](int64_t i) { return grouped.entries(statistics.slice_symint(0, n * i, n * (i + 1))); };
  const at::Tensor value =
      grouped.view(input.to(statistics.scalar_type())).sub(of_entries(0)).mul(of_entries(1)).add(of_entries(2));
  return value.to(input.scalar_type()).gt(0);
}

void update(const at::Tensor& running, const at::Tensor& value, double momentum) {
  running.copy_(running.to(value.scalar_type()).mul(1 - momentum).add(value.mul(momentum)));
}

} // namespace

at::Tensor norm_leaky_relu(const at::Tensor& input, const NormArguments& arguments) {
  at::Tensor result = norm(input, arguments);
  if (arguments.residual.has_value()) {
    result = result.add(*arguments.residual);
  }
  result = at::leaky_relu(result, arguments.negative_slope);
  return result.dim() == input.dim() ? in_memory_format(result, norm_memory_format(input)) : result;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> norm_leaky_relu_forward(
    const at::Tensor& input, const NormArguments& arguments, bool with_mask) {
  check_floating(input, "norm_leaky_relu_forward", "input");
  check_slope(input.scalar_type(), arguments.negative_slope);
  check_num_groups(input, arguments.num_groups, "norm_leaky_relu_forward");
  TORCH_CHECK(
      arguments.use_input_stats || (arguments.running_mean.has_value() && arguments.running_var.has_value()),
      "norm_leaky_relu_forward(): arguments 'running_mean' and 'running_var' are required unless 'use_input_stats'");
  const Grouped grouped(input, arguments.num_groups, arguments.use_input_stats);
  const auto opmath = opmath_type(input);
  const at::Tensor x = grouped.view(input.to(opmath));
  at::Tensor mean, rstd;
  if (arguments.use_input_stats) {
    mean = x.mean(grouped.dims(), /*keepdim=*/true);
    const at::Tensor variance = x.sub(mean).square().mean(grouped.dims(), /*keepdim=*/true);
    rstd = variance.add(arguments.eps).rsqrt();
    if (arguments.running_mean.has_value()) {
      const auto of_channels = [&](const at::Tensor& values) {
        return values.mean(at::IntArrayRef{0}).reshape_symint({grouped.channel_count()});
      };
      const c10::SymFloat n(grouped.per_group());
      update(*arguments.running_mean, of_channels(mean), arguments.momentum);
      update(
          *arguments.running_var, of_channels(variance.mul(c10::Scalar(n / (n - c10::SymFloat(1.0))))),
          arguments.momentum);
    }
  } else {
    mean = grouped.entries(arguments.running_mean->to(opmath));
    rstd = grouped.entries(arguments.running_var->to(opmath)).add(arguments.eps).rsqrt();
  }
  const at::Tensor scale =
      arguments.weight.has_value() ? rstd.mul(grouped.channels(arguments.weight->to(opmath))) : rstd;
  const at::Tensor shift =
      arguments.bias.has_value() ? grouped.channels(arguments.bias->to(opmath)) : at::zeros_like(rstd);
  at::Tensor value = grouped.unview(x.sub(mean).mul(scale).add(shift));
  if (arguments.residual.has_value()) {
    value = value.add(*arguments.residual);
  }
  const at::Tensor mask =
      with_mask ? grouped.pack(value.to(input.scalar_type()).gt(0)) : at::empty({0}, input.options().dtype(at::kByte));
  return {
      in_memory_format(
          at::leaky_relu(value, arguments.negative_slope).to(input.scalar_type()), norm_memory_format(input)),
      at::cat({grouped.per_entry(mean), grouped.per_entry(scale), grouped.per_entry(shift), rstd.flatten()}), mask};
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
  check_num_groups(input, num_groups, "norm_leaky_relu_backward");
  const Grouped grouped(input, num_groups, use_input_stats);
  const auto opmath = opmath_type(input);
  const at::Tensor positive = positives(input, statistics, weight, mask, num_groups, use_input_stats, eps, grouped);
  const at::Tensor given = grouped.view(grad_output.to(opmath));
  const at::Tensor grad = at::where(positive, given, given.mul(negative_slope));
  const at::Tensor x = grouped.view(input.to(opmath));
  at::Tensor distance, rstd;
  if (use_input_stats) { // from the input, for the derivatives of the statistics
    distance = x.sub(x.mean(grouped.dims(), /*keepdim=*/true));
    rstd = distance.square().mean(grouped.dims(), /*keepdim=*/true).add(eps).rsqrt();
  } else {
    const c10::SymInt n = grouped.entry_count();
    distance = x.sub(grouped.entries(statistics.slice_symint(0, 0, n)));
    rstd = grouped.entries(statistics.slice_symint(0, 3 * n, 4 * n));
  }
  const at::Tensor normalized = distance.mul(rstd);
  const auto format = norm_memory_format(input);
  const auto like_input = [&](const at::Tensor& value) {
    return in_memory_format(grouped.unview(value).to(input.scalar_type()), format);
  };
  const auto unwanted = [&](at::ScalarType dtype) { return at::empty({0}, input.options().dtype(dtype)); };
  const auto of_weight = weight.has_value() ? weight->scalar_type() : opmath;
  at::Tensor grad_input;
  if (output_mask[0]) {
    const at::Tensor of_normalized = weight.has_value() ? grad.mul(grouped.channels(weight->to(opmath))) : grad;
    at::Tensor rest = of_normalized;
    if (use_input_stats) {
      rest = rest.sub(of_normalized.mean(grouped.dims(), /*keepdim=*/true))
                 .sub(normalized.mul(of_normalized.mul(normalized).mean(grouped.dims(), /*keepdim=*/true)));
    }
    grad_input = like_input(rest.mul(rstd));
  } else {
    grad_input = unwanted(input.scalar_type());
  }
  return {
      grad_input, output_mask[1] ? grouped.sum_per_channel(grad.mul(normalized)).to(of_weight) : unwanted(of_weight),
      output_mask[2] ? grouped.sum_per_channel(grad).to(of_weight) : unwanted(of_weight),
      output_mask[3] ? like_input(grad) : unwanted(input.scalar_type())};
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
  auto [grad_input, grad_weight, grad_bias, grad_residual] = ops::norm_leaky_relu_backward().call(
      grad_output, input, statistics, weight, mask, num_groups, use_input_stats, eps, negative_slope,
      {true, output_mask[0], output_mask[1], output_mask[2]});
  grad_output.copy_(grad_input);
  return {grad_weight, grad_bias, grad_residual};
}

} // namespace composite

namespace {

void register_composites(torch::Library& m) {
  m.impl("norm_leaky_relu", TORCH_FN(NormUnpacked<composite::norm_leaky_relu>::call));
  m.impl("norm_leaky_relu_forward", TORCH_FN(NormUnpacked<composite::norm_leaky_relu_forward>::call));
  m.impl("norm_leaky_relu_backward_", TORCH_FN(composite::norm_leaky_relu_backward_));
}

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CompositeExplicitAutograd, m) {
  register_composites(m);
  m.impl("norm_leaky_relu_backward", TORCH_FN(composite::norm_leaky_relu_backward));
}

TORCH_LIBRARY_IMPL(leakyrelu_ext, FuncTorchBatched, m) {
  register_composites(m);
  m.impl("norm_leaky_relu_backward", TORCH_FN(composite::norm_leaky_relu_backward));
}

// PyTorch's fallback for tensors with the negative bit expects a writing op to return the written tensor.
TORCH_LIBRARY_IMPL(leakyrelu_ext, Negative, m) {
  m.impl("norm_leaky_relu_backward_", TORCH_FN(composite::norm_leaky_relu_backward_));
}

// ATen's ops know how to give a written tensor a new value.
TORCH_LIBRARY_IMPL(leakyrelu_ext, Functionalize, m) {
  register_composites(m);
}

} // namespace leakyrelu_ext
