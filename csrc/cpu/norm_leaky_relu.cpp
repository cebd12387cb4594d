// norm_leaky_relu on the CPU. Schemas: ../ops.cpp. How the work is cut up: norm_walk.h; in which order it goes: norm_steps.h.
// Inner loops: loops/<tier>.cpp.

#include <ATen/Dispatch.h>

#include <cmath>
#include <memory>
#include <optional>

#include "../device/norm_leaky_relu.h"
#include "active_tier.h"
#include "large_memory.h"
#include "norm_steps.h"
#include "norm_walk.h"

namespace leakyrelu_ext {
namespace {

using cpu::NormLot;
using cpu::Stores;

std::unique_ptr<double[]> doubles(int64_t n) {
  return std::unique_ptr<double[]>(new double[n]);
}

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

template <typename Each>
void for_each_entry(const NormShape& shape, int64_t group, const Each& each) {
  const int64_t entries = shape.channels_per_group();
  for (const auto entry : c10::irange(group * entries, (group + 1) * entries)) {
    each(entry);
  }
}

/// Mean, scale and shift where loops read them: where they are, or in copies.
template <typename opmath>
struct PlacedStatistics {
  std::unique_ptr<opmath[]> copies;
  const opmath *mean, *scale, *shift;

  template <class Walk, typename Value>
  PlacedStatistics(const Walk& walk, const NormStatistics<Value>& statistics)
      : copies(walk.has_copies() ? new opmath[3 * walk.places()] : nullptr),
        mean(copies != nullptr ? copies.get() : statistics.mean),
        scale(copies != nullptr ? mean + walk.places() : statistics.scale),
        shift(copies != nullptr ? scale + walk.places() : statistics.shift) {}

  template <class Walk, typename Value>
  void copy(const Walk& walk, const NormStatistics<Value>& statistics, int64_t entry) {
    if (copies != nullptr) {
      const int64_t places = walk.places();
      walk.for_each_place(entry, [&](int64_t place) {
        copies[place] = statistics.mean[entry];
        copies[places + place] = statistics.scale[entry];
        copies[2 * places + place] = statistics.shift[entry];
      });
    }
  }
};

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
const cpu::NormLoops<T>& loops_for(const NormShape& shape, cpu::PerChannel kind) {
  const auto& loops = cpu::active_loops<T>(shape.numel());
  return kind == cpu::PerChannel::kConstant ? loops.norm_of_rows : loops.norm_of_columns;
}

template <typename T, class Walk>
class Forward {
 public:
  using opmath = opmath_t<T>;

  explicit Forward(const NormForward& call)
      : call_(call),
        walk_(call.shape, call.mask != nullptr),
        loops_(loops_for<T>(call.shape, Walk::kind)),
        slope_(slope_as<T>(call.negative_slope)),
        output_(call.output.mutable_data_ptr<T>()),
        input_(call.input.const_data_ptr<T>()),
        residual_(call.residual == nullptr ? nullptr : call.residual->const_data_ptr<T>()),
        mask_(call.mask == nullptr ? nullptr : call.mask->mutable_data_ptr<uint8_t>()),
        statistics_(call.statistics.mutable_data_ptr<opmath>(), call.shape.sizes()),
        placed_(walk_, statistics_),
        weight_(call.weight, 1),
        bias_(call.bias, 0),
        stores_(stores_for(output_, call.shape, residual_ == nullptr ? 2 : 3)) {}

  void run() {
    if (!call_.use_input_stats) {
      const PerChannel mean(call_.running_mean, 0), variance(call_.running_var, 1);
      for (const auto channel : c10::irange(call_.shape.channels)) {
        set(channel, mean[channel], 1 / std::sqrt(variance[channel] + call_.eps));
      }
      const Walk in_order(call_.shape, mask_ != nullptr, /*in_order=*/true);
      cpu::NormSteps(in_order, call_.shape).over_lots([&](const NormLot& lot) { activate(lot); });
      return;
    }
    pairs_ = doubles(2 * walk_.moments());
    if (call_.running_mean.has_value()) {
      means_ = doubles(call_.shape.sizes().groups);
      variances_ = doubles(call_.shape.sizes().groups);
    }
    const auto moments = loops_for<T>(call_.shape, walk_.kind_of_moments()).moments;
    steps_.over_units(
        [&](const NormLot& lot) {
          moments(
              input_ + lot.begin, walk_.rows_of_moments(lot), walk_.rows_per_moments(), pairs_.get() + 2 * lot.moments);
        },
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
    int64_t channel = group * call_.shape.channels_per_group() % call_.shape.channels;
    for_each_entry(call_.shape, group, [&](int64_t entry) {
      const double scale = weight_[channel] * rstd;
      statistics_.mean[entry] = rounded;
      statistics_.scale[entry] = static_cast<opmath>(scale);
      statistics_.shift[entry] = static_cast<opmath>(bias_[channel] - rest * scale);
      placed_.copy(walk_, statistics_, entry);
      ++channel;
    });
  }

  /// The mean of a group from those of its parts. As a distance from one of them: equal means stay to the bit.
  double mean_of(int64_t group) const {
    const auto n = static_cast<double>(call_.shape.elements_per_group());
    double origin = 0, apart = 0, sum = 0;
    bool first = true;
    walk_.for_each_moments(group, [&](int64_t pair, int64_t of_pair) {
      const double mean = pairs_[2 * pair];
      origin = first ? mean : origin;
      first = false;
      apart += (mean - origin) * static_cast<double>(of_pair);
      sum += mean * static_cast<double>(of_pair);
    });
    return std::isfinite(apart) ? origin + apart / n : sum / n; // infinite means have no distance
  }

  void finish(int64_t group) {
    const auto n = static_cast<double>(call_.shape.elements_per_group());
    const double mean = mean_of(group);
    double distances = 0;
    walk_.for_each_moments(group, [&](int64_t pair, int64_t of_pair) {
      const double apart = pairs_[2 * pair] - mean;
      distances += pairs_[2 * pair + 1] + apart * apart * static_cast<double>(of_pair);
    });
    set(group, mean, 1 / std::sqrt(distances / n + call_.eps));
    if (means_ != nullptr) {
      means_[group] = mean;
      variances_[group] = distances / (n - 1);
    }
  }

  void activate(const NormLot& lot) const {
    loops_.forward(
        {input_ + lot.begin, residual_ == nullptr ? nullptr : residual_ + lot.begin, placed_.mean + lot.place,
         placed_.scale + lot.place, placed_.shift + lot.place, output_ + lot.begin,
         mask_ == nullptr ? nullptr : mask_ + lot.mask_begin, lot.rows},
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
  Walk walk_;
  cpu::NormSteps<Walk> steps_{walk_, call_.shape};
  const cpu::NormLoops<T>& loops_;
  opmath slope_;
  T* output_;
  const T* input_;
  const T* residual_;
  uint8_t* mask_;
  NormStatistics<opmath> statistics_;
  PlacedStatistics<opmath> placed_;
  PerChannel weight_, bias_;
  Stores stores_;
  std::unique_ptr<double[]> pairs_, means_, variances_;
};

template <typename T, class Walk>
class Backward {
 public:
  using opmath = opmath_t<T>;

  explicit Backward(const NormBackward& call)
      : call_(call),
        walk_(call.shape, call.mask != nullptr),
        loops_(loops_for<T>(call.shape, Walk::kind)),
        slope_(slope_as<T>(call.negative_slope)),
        grad_input_(call.grad_input == nullptr ? nullptr : call.grad_input->mutable_data_ptr<T>()),
        grad_residual_(call.grad_residual == nullptr ? nullptr : call.grad_residual->mutable_data_ptr<T>()),
        grad_output_(call.grad_output.const_data_ptr<T>()),
        input_(call.input.const_data_ptr<T>()),
        mask_(call.mask == nullptr ? nullptr : call.mask->const_data_ptr<uint8_t>()),
        statistics_(call.statistics.const_data_ptr<opmath>(), call.shape.sizes()),
        placed_(walk_, statistics_),
        stores_(grad_input_ == nullptr ? Stores::kCached : stores_for(grad_input_, call.shape, 3)) {
    if (walk_.has_copies()) {
      for (const auto entry : c10::irange(call.shape.sizes().entries)) {
        placed_.copy(walk_, statistics_, entry);
      }
    }
  }

  void run() {
    const bool elementwise = grad_input_ != nullptr || grad_residual_ != nullptr;
    const bool with_statistics = call_.use_input_stats && grad_input_ != nullptr;
    if (!with_statistics && call_.grad_weight == nullptr && call_.grad_bias == nullptr) {
      const Walk in_order(call_.shape, mask_ != nullptr, /*in_order=*/true);
      cpu::NormSteps(in_order, call_.shape).over_lots([&](const NormLot& lot) { write_grads(lot); });
      return;
    }
    const int64_t entries = call_.shape.sizes().entries;
    pairs_ = doubles(2 * walk_.sums());
    sums_ = doubles(2 * entries);
    if (with_statistics) {
      coefficients_.reset(new opmath[3 * walk_.places()]);
    }
    steps_.over_units(
        [&](const NormLot& lot) {
          loops_.sums(run_of(lot), slope_, walk_.rows_per_sums(), pairs_.get() + 2 * lot.sums);
        },
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
    const int64_t places = walk_.places();
    const opmath* along = coefficients_ == nullptr ? nullptr : coefficients_.get() + lot.place;
    return {
        grad_output_ + lot.begin,
        input_ + lot.begin,
        mask_ == nullptr ? nullptr : mask_ + lot.mask_begin,
        placed_.mean + lot.place,
        placed_.scale + lot.place,
        placed_.shift + lot.place,
        along,
        along == nullptr ? nullptr : along + places,
        along == nullptr ? nullptr : along + 2 * places,
        at(grad_input_),
        at(grad_residual_),
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
    for_each_entry(call_.shape, group, [&](int64_t entry) {
      double grads = 0, products = 0;
      walk_.for_each_sums(entry, [&](int64_t pair) {
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
      const int64_t places = walk_.places();
      for_each_entry(call_.shape, group, [&](int64_t entry) {
        walk_.for_each_place(entry, [&](int64_t place) {
          coefficients_[place] = along;
          coefficients_[places + place] = offset;
          coefficients_[2 * places + place] = rstd;
        });
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
  Walk walk_;
  cpu::NormSteps<Walk> steps_{walk_, call_.shape};
  const cpu::NormLoops<T>& loops_;
  opmath slope_;
  T* grad_input_;
  T* grad_residual_;
  const T* grad_output_;
  const T* input_;
  const uint8_t* mask_;
  NormStatistics<const opmath> statistics_;
  PlacedStatistics<opmath> placed_;
  Stores stores_;
  std::unique_ptr<double[]> pairs_, sums_;
  std::unique_ptr<opmath[]> coefficients_;
};

struct NormCpu {
  static at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device) {
    return cpu::empty_strided(sizes, strides, dtype);
  }

  static void forward(const NormForward& call) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.input.scalar_type(), "norm_leaky_relu", [&] {
      call.shape.channels_innermost ? Forward<scalar_t, cpu::NormColumns>(call).run()
                                    : Forward<scalar_t, cpu::NormPlanes>(call).run();
    });
  }

  static void backward(const NormBackward& call) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.input.scalar_type(), "norm_leaky_relu", [&] {
      call.shape.channels_innermost ? Backward<scalar_t, cpu::NormColumns>(call).run()
                                    : Backward<scalar_t, cpu::NormPlanes>(call).run();
    });
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  NormOps<NormCpu>::register_kernels(m);
}

} // namespace leakyrelu_ext
