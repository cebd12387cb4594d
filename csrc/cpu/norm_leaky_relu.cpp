// norm_leaky_relu on the CPU. Schemas: ../ops.cpp. How the work is cut up: norm_walk.h. Inner loops: loops/<tier>.cpp.

#include <ATen/Dispatch.h>

#include <cmath>
#include <memory>
#include <optional>

#include "../device/norm_leaky_relu.h"
#include "active_tier.h"
#include "large_memory.h"
#include "norm_walk.h"

namespace leakyrelu_ext {
namespace {

using cpu::NormLot;
using cpu::NormWalk;
using cpu::Stores;

std::unique_ptr<double[]> doubles(int64_t n) {
  return std::unique_ptr<double[]>(new double[n]);
}

/// The mean of n values, and the sum of their squared distances from it. Merged as in Chan, Golub, LeVeque: Updating
/// Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
struct Moments {
  double n = 0, mean = 0, distances = 0;

  void merge(double other_n, double other_mean, double other_distances) {
    if (n == 0) {
      *this = {other_n, other_mean, other_distances};
      return;
    }
    const double total = n + other_n, apart = other_mean - mean;
    // Infinite means have no distance.
    mean = std::isfinite(apart) ? mean + apart * (other_n / total) : (mean * n + other_mean * other_n) / total;
    distances += other_distances + apart * apart * (n * other_n / total);
    n = total;
  }
};

/// A parameter's or a running statistic's values in double.
class PerChannel {
 public:
  PerChannel(const std::optional<at::Tensor>& tensor, double otherwise) : otherwise_(otherwise) {
    if (tensor.has_value()) {
      values_ = tensor->contiguous();
      data_ = values_.const_data_ptr();
      dtype_ = values_.scalar_type();
    }
  }

  double operator[](int64_t channel) const {
    if (data_ == nullptr) {
      return otherwise_;
    }
    switch (dtype_) {
      case at::kFloat:
        return static_cast<const float*>(data_)[channel];
      case at::kDouble:
        return static_cast<const double*>(data_)[channel];
      case at::kHalf:
        return static_cast<const c10::Half*>(data_)[channel];
      default:
        return static_cast<const c10::BFloat16*>(data_)[channel];
    }
  }

 private:
  at::Tensor values_;
  const void* data_ = nullptr;
  at::ScalarType dtype_ = at::kFloat;
  double otherwise_;
};

/// Writes per-channel results of any floating dtype.
template <typename Value>
void write_per_channel(const at::Tensor& to, const Value& value) {
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, to.scalar_type(), "norm_leaky_relu", [&] {
    auto* data = to.mutable_data_ptr<scalar_t>();
    const int64_t stride = to.stride(0);
    for (const auto channel : c10::irange(to.size(0))) {
      data[channel * stride] = static_cast<scalar_t>(value(channel));
    }
  });
}

/// Streaming stores need every row to begin at a multiple of their alignment. All that a call touches counts: what a norm
/// reads a second time should be in the caches still. (Two tensors of 16 MiB with 32 MiB of cache: a step takes a third
/// less time.)
template <typename T>
Stores stores_for(const T* out, const NormShape& shape, size_t tensors) {
  const int64_t row = (shape.channels_innermost ? shape.channels : shape.pixels) * static_cast<int64_t>(sizeof(T));
  const size_t nbytes = shape.numel() * sizeof(T);
  return row % cpu::kStreamingAlignment == 0 ? cpu::stores_for(out, nbytes, tensors * nbytes) : Stores::kCached;
}

template <typename T>
const cpu::NormLoops<T>& loops_for(const NormWalk& walk) {
  const auto& loops = cpu::active_loops<T>(walk.shape().numel());
  return walk.kind() == cpu::PerChannel::kConstant ? loops.norm_of_row : loops.norm_of_columns;
}

template <typename T>
class Forward {
 public:
  using opmath = opmath_t<T>;

  explicit Forward(const NormForward& call)
      : call_(call),
        walk_(call.shape),
        loops_(loops_for<T>(walk_)),
        slope_(slope_as<T>(call.negative_slope)),
        output_(call.output.mutable_data_ptr<T>()),
        input_(call.input.const_data_ptr<T>()),
        residual_(call.residual == nullptr ? nullptr : call.residual->const_data_ptr<T>()),
        mask_(call.mask == nullptr ? nullptr : call.mask->mutable_data_ptr<uint8_t>()),
        statistics_(call.statistics.mutable_data_ptr<opmath>(), call.shape.sizes()),
        weight_(call.weight, 1),
        bias_(call.bias, 0),
        stores_(stores_for(output_, call.shape, residual_ == nullptr ? 2 : 3)) {}

  void run() {
    if (!call_.use_input_stats) {
      const PerChannel mean(call_.running_mean, 0), variance(call_.running_var, 1);
      for (const auto channel : c10::irange(call_.shape.channels)) {
        set(channel, mean[channel], 1 / std::sqrt(variance[channel] + call_.eps));
      }
      walk_.parallel_over_lots([&](const NormLot& lot) { activate(lot); });
      return;
    }
    pairs_ = doubles(2 * walk_.pairs());
    if (call_.running_mean.has_value()) {
      means_ = doubles(call_.shape.sizes().groups);
      variances_ = doubles(call_.shape.sizes().groups);
    }
    walk_.parallel_over_units(
        [&](const NormLot& lot) { loops_.moments(input_ + lot.begin, lot.n, lot.rows, pairs_.get() + 2 * lot.pair); },
        [&](int64_t group) { finish(group); }, [&](const NormLot& lot) { activate(lot); });
    if (call_.running_mean.has_value()) {
      update(*call_.running_mean, means_.get());
      update(*call_.running_var, variances_.get());
    }
  }

 private:
  /// Sets a group's statistics.
  void set(int64_t group, double mean, double rstd) {
    statistics_.rstd[group] = static_cast<opmath>(rstd);
    const auto rounded = static_cast<opmath>(mean);
    const double rest = std::isfinite(mean) ? mean - static_cast<double>(rounded) : 0;
    walk_.for_each_entry(group, [&](int64_t entry) {
      const int64_t channel = entry % call_.shape.channels;
      const double scale = weight_[channel] * rstd;
      statistics_.mean[entry] = rounded;
      statistics_.scale[entry] = static_cast<opmath>(scale);
      statistics_.shift[entry] = static_cast<opmath>(bias_[channel] - rest * scale);
    });
  }

  void finish(int64_t group) {
    Moments all;
    walk_.for_each_entry(group, [&](int64_t entry) {
      walk_.for_each_pair(entry, [&](int64_t pair, int64_t n) {
        all.merge(static_cast<double>(n), pairs_[2 * pair], pairs_[2 * pair + 1]);
      });
    });
    set(group, all.mean, 1 / std::sqrt(all.distances / all.n + call_.eps));
    if (means_ != nullptr) {
      means_[group] = all.mean;
      variances_[group] = all.distances / (all.n - 1);
    }
  }

  void activate(const NormLot& lot) const {
    loops_.forward(
        {input_ + lot.begin, residual_ == nullptr ? nullptr : residual_ + lot.begin, statistics_.mean + lot.entry,
         statistics_.scale + lot.entry, statistics_.shift + lot.entry, output_ + lot.begin,
         mask_ == nullptr ? nullptr : mask_ + lot.mask_begin, lot.n, lot.rows},
        slope_, stores_);
  }

  /// With groups of one sample (instance norm), the samples' mean counts.
  void update(const at::Tensor& running, const double* values) const {
    const PerChannel old(running, 0);
    const int64_t channels = call_.shape.channels, samples = call_.shape.over_batch() ? 1 : call_.shape.samples;
    write_per_channel(running, [&](int64_t channel) {
      double sum = 0;
      for (const auto sample : c10::irange(samples)) {
        sum += values[sample * channels + channel];
      }
      return call_.momentum * (sum / static_cast<double>(samples)) + (1 - call_.momentum) * old[channel];
    });
  }

  const NormForward& call_;
  NormWalk walk_;
  const cpu::NormLoops<T>& loops_;
  opmath slope_;
  T* output_;
  const T* input_;
  const T* residual_;
  uint8_t* mask_;
  NormStatistics<opmath> statistics_;
  PerChannel weight_, bias_;
  Stores stores_;
  std::unique_ptr<double[]> pairs_, means_, variances_;
};

template <typename T>
class Backward {
 public:
  using opmath = opmath_t<T>;

  explicit Backward(const NormBackward& call)
      : call_(call),
        walk_(call.shape),
        loops_(loops_for<T>(walk_)),
        slope_(slope_as<T>(call.negative_slope)),
        grad_input_(call.grad_input == nullptr ? nullptr : call.grad_input->mutable_data_ptr<T>()),
        grad_residual_(call.grad_residual == nullptr ? nullptr : call.grad_residual->mutable_data_ptr<T>()),
        grad_output_(call.grad_output.const_data_ptr<T>()),
        input_(call.input.const_data_ptr<T>()),
        mask_(call.mask == nullptr ? nullptr : call.mask->const_data_ptr<uint8_t>()),
        statistics_(call.statistics.const_data_ptr<opmath>(), call.shape.sizes()),
        stores_(grad_input_ == nullptr ? Stores::kCached : stores_for(grad_input_, call.shape, 3)) {}

  void run() {
    const bool elementwise = grad_input_ != nullptr || grad_residual_ != nullptr;
    const bool with_statistics = call_.use_input_stats && grad_input_ != nullptr;
    if (!with_statistics && call_.grad_weight == nullptr && call_.grad_bias == nullptr) {
      walk_.parallel_over_lots([&](const NormLot& lot) { write_grads(lot); });
      return;
    }
    const int64_t entries = call_.shape.sizes().entries;
    pairs_ = doubles(2 * walk_.pairs());
    sums_ = doubles(2 * entries);
    if (with_statistics) {
      coefficients_.reset(new opmath[3 * entries]);
    }
    walk_.parallel_over_units(
        [&](const NormLot& lot) { loops_.sums(run_of(lot), slope_, pairs_.get() + 2 * lot.pair); },
        [&](int64_t group) { finish(group); },
        [&](const NormLot& lot) {
          if (elementwise) {
            write_grads(lot);
          }
        });
    if (call_.grad_weight != nullptr) {
      write_per_channel(*call_.grad_weight, [&](int64_t channel) {
        return sum_over_samples(channel, [&](int64_t entry) {
          return sums_[2 * entry + 1] * statistics_.rstd[entry / call_.shape.channels_per_group()];
        });
      });
    }
    if (call_.grad_bias != nullptr) {
      write_per_channel(*call_.grad_bias, [&](int64_t channel) {
        return sum_over_samples(channel, [&](int64_t entry) { return sums_[2 * entry]; });
      });
    }
  }

 private:
  cpu::NormBackwardRun<T> run_of(const NormLot& lot) const {
    const auto at = [&](auto* data) { return data == nullptr ? nullptr : data + lot.begin; };
    const int64_t entries = call_.shape.sizes().entries;
    const opmath* along = coefficients_ == nullptr ? nullptr : coefficients_.get() + lot.entry;
    return {
        grad_output_ + lot.begin,
        input_ + lot.begin,
        mask_ == nullptr ? nullptr : mask_ + lot.mask_begin,
        statistics_.mean + lot.entry,
        statistics_.scale + lot.entry,
        statistics_.shift + lot.entry,
        along,
        along == nullptr ? nullptr : along + entries,
        along == nullptr ? nullptr : along + 2 * entries,
        at(grad_input_),
        at(grad_residual_),
        lot.n,
        lot.rows};
  }

  void write_grads(const NormLot& lot) const {
    loops_.backward(run_of(lot), slope_, stores_);
  }

  /// Sums up each entry's pairs. With m = the sum of weight * grad and d = that of scale * grad * (input - mean), over the
  /// group's n elements, grad_input is scale * grad - rstd * (m + (input - mean) * rstd * d) / n. No factor is far from
  /// the others' magnitude: rstd may be 1e30.
  void finish(int64_t group) {
    double of_grads = 0, of_products = 0;
    walk_.for_each_entry(group, [&](int64_t entry) {
      double grads = 0, products = 0;
      walk_.for_each_pair(entry, [&](int64_t pair, int64_t /*n*/) {
        grads += pairs_[2 * pair];
        products += pairs_[2 * pair + 1];
      });
      sums_[2 * entry] = grads;
      sums_[2 * entry + 1] = products;
      of_grads += statistics_.scale[entry] * grads;
      of_products += statistics_.scale[entry] * products;
    });
    if (coefficients_ != nullptr) {
      const auto n = static_cast<double>(call_.shape.elements_per_group());
      const opmath rstd = statistics_.rstd[group];
      const auto along = static_cast<opmath>(-static_cast<double>(rstd) * of_products / n);
      const auto offset = static_cast<opmath>(-of_grads / static_cast<double>(rstd) / n);
      const int64_t entries = call_.shape.sizes().entries;
      walk_.for_each_entry(group, [&](int64_t entry) {
        coefficients_[entry] = along;
        coefficients_[entries + entry] = offset;
        coefficients_[2 * entries + entry] = rstd;
      });
    }
  }

  template <typename OfEntry>
  double sum_over_samples(int64_t channel, const OfEntry& of_entry) const {
    double sum = 0;
    for (int64_t entry = channel; entry < call_.shape.sizes().entries; entry += call_.shape.channels) {
      sum += of_entry(entry);
    }
    return sum;
  }

  const NormBackward& call_;
  NormWalk walk_;
  const cpu::NormLoops<T>& loops_;
  opmath slope_;
  T* grad_input_;
  T* grad_residual_;
  const T* grad_output_;
  const T* input_;
  const uint8_t* mask_;
  NormStatistics<const opmath> statistics_;
  Stores stores_;
  std::unique_ptr<double[]> pairs_, sums_;
  std::unique_ptr<opmath[]> coefficients_;
};

struct NormCpu {
  static at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device) {
    return cpu::empty_strided(sizes, strides, dtype);
  }

  static void forward(const NormForward& call) {
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, call.input.scalar_type(), "norm_leaky_relu", [&] { Forward<scalar_t>(call).run(); });
  }

  static void backward(const NormBackward& call) {
    AT_DISPATCH_FLOATING_TYPES_AND2(
        at::kHalf, at::kBFloat16, call.input.scalar_type(), "norm_leaky_relu", [&] { Backward<scalar_t>(call).run(); });
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  NormOps<NormCpu>::register_kernels(m);
}

} // namespace leakyrelu_ext
