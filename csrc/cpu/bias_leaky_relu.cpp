// bias_leaky_relu on the CPU. Schemas: ../ops.cpp. Arithmetic of one element: ../element/activation.h.
// Inner loops: loops/<tier>.cpp.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Dispatch.h>

#include <algorithm>
#include <vector>

#include "../device/bias_leaky_relu.h"
#include "active_tier.h"
#include "channels.h"
#include "large_memory.h"
#include "parallel.h"
#include "strided.h"

namespace leakyrelu_ext {
namespace {

using cpu::kPiece;
using cpu::PerChannel;
using cpu::Stores;

/// Reads a tensor's elements in a dense memory order.
template <typename T>
class Operand {
 public:
  Operand(const at::Tensor& tensor, at::IntArrayRef dense_strides) : data_(tensor.const_data_ptr<T>()) {
    if (!same_order(tensor.sizes(), tensor.strides(), dense_strides)) {
      order_.emplace(tensor.sizes(), tensor.strides(), dense_strides);
    }
  }

  bool direct() const {
    return !order_.has_value();
  }

  /// Elements [begin, begin + n). `scratch` has room for kPiece elements; it is used unless direct().
  const T* piece(const cpu::Loops<T>& loops, int64_t begin, int64_t n, T* scratch) const {
    if (direct()) {
      return data_ + begin;
    }
    cpu::gather(loops, data_, *order_, begin, n, scratch);
    return scratch;
  }

 private:
  const T* data_;
  std::optional<StridedOrder> order_; // set if it is not the dense order
};

/// Draws which elements dropout keeps, as bits.
class Dropout {
 public:
  explicit Dropout(double p) : wanted_(p > 0), threshold_(keep_threshold(p)) {
    if (wanted_) {
      auto* generator =
          at::get_generator_or_default<at::CPUGeneratorImpl>(std::nullopt, at::detail::getDefaultCPUGenerator());
      const std::lock_guard lock(generator->mutex_);
      seed_ = generator->random64();
    }
  }

  bool wanted() const {
    return wanted_;
  }

  /// Fills `bits` (room for kPiece elements) from element `begin` on, a multiple of kDropoutSpan. nullptr: no dropout.
  template <typename T>
  const uint8_t* bits(const cpu::Loops<T>& loops, int64_t begin, int64_t n, uint8_t* bits) const {
    if (!wanted_) {
      return nullptr;
    }
    if (threshold_ == 0) {
      std::fill_n(bits, kPiece / kMaskBits, uint8_t{0});
    } else {
      const auto largest_kept = static_cast<uint32_t>(threshold_ - 1);
      loops.keep(seed_, begin / cpu::kDropoutSpan, at::divup(n, cpu::kDropoutSpan), largest_kept, bits);
    }
    return bits;
  }

 private:
  bool wanted_;
  uint64_t threshold_;
  uint64_t seed_ = 0;
};

/// Streaming stores need the results of every run to be aligned.
template <typename T>
Stores stores_for(const T* out, int64_t numel, const cpu::ChannelLayout* layout, const Channels& channels) {
  const bool aligned = layout == nullptr || layout->way() != cpu::ChannelLayout::Way::kRows || channels.count == 1 ||
      channels.inner * sizeof(T) % cpu::kStreamingAlignment == 0;
  return aligned ? cpu::stores_for(out, numel * sizeof(T)) : Stores::kCached;
}

struct BiasLeakyReLUCpu {
  static at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device) {
    return cpu::empty_strided(sizes, strides, dtype);
  }

  static void forward(const BiasLeakyReLUForward& call) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.output.scalar_type(), "bias_leaky_relu", [&] {
      using opmath = opmath_t<scalar_t>;
      const auto& loops = cpu::active_loops<scalar_t>(call.output.numel());
      const auto constants = constants_as<scalar_t>(call.settings);
      const int64_t numel = call.output.numel();
      const auto strides = dense_strides(call.output);
      // The output's pointer first: in place, this moves copy-on-write data.
      auto* out = call.output.mutable_data_ptr<scalar_t>();
      const Operand<scalar_t> input(call.input, strides);
      const bool with_residual = call.residual != nullptr, with_bias = call.bias != nullptr;
      const Operand<scalar_t> residual(with_residual ? *call.residual : call.input, strides);
      const cpu::ChannelLayout layout(call.channels, numel);
      const cpu::BiasRuns<opmath> bias(layout, with_bias ? call.bias->const_data_ptr<opmath>() : nullptr);
      auto* mask = call.mask == nullptr ? nullptr : call.mask->mutable_data_ptr<uint8_t>();
      auto* passed = mask == nullptr || !call.settings.has_passed() ? nullptr : mask + mask_bytes(numel);
      const Dropout dropout(call.settings.dropout_p);
      const bool whole = input.direct() && residual.direct() && !dropout.wanted();
      const auto stores = call.input.is_same(call.output)
          ? Stores::kCached
          : stores_for(out, numel, with_bias ? &layout : nullptr, call.channels);
      const auto loop = loops.bias_leaky_relu_forward[static_cast<int>(with_bias ? layout.kind() : PerChannel::kNone)]
                                                     [with_residual][call.settings.has_passed()];
      cpu::parallel_over<scalar_t>(numel, [&](int64_t begin, int64_t n) {
        alignas(64) scalar_t input_scratch[kPiece], residual_scratch[kPiece];
        alignas(64) opmath bias_scratch[kPiece];
        alignas(64) uint8_t kept_scratch[kPiece / kMaskBits];
        const int64_t end = begin + n;
        while (begin < end) { // one piece: gather values and draw random bits
          const int64_t piece = whole ? end - begin : std::min(kPiece, end - begin);
          const scalar_t* from = input.piece(loops, begin, piece, input_scratch);
          const scalar_t* other = with_residual ? residual.piece(loops, begin, piece, residual_scratch) : nullptr;
          const uint8_t* kept = dropout.bits(loops, begin, piece, kept_scratch);
          for (int64_t at = 0; at < piece;) { // one run: call the loop
            const int64_t first = begin + at;
            const auto run = with_bias ? layout.run(first, piece - at) : cpu::ChannelLayout::Run{piece, 0};
            const opmath* values = with_bias ? bias.values(first, run, bias_scratch) : nullptr;
            loop(
                {from + at, values, other == nullptr ? nullptr : other + at,
                 kept == nullptr ? nullptr : kept + at / kMaskBits, out + first,
                 mask == nullptr ? nullptr : mask + first / kMaskBits,
                 passed == nullptr ? nullptr : passed + first / kMaskBits, run.n},
                constants, stores);
            at += run.n;
          }
          begin += piece;
        }
      });
    });
  }

  static void backward(const BiasLeakyReLUBackward& call) {
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.grad_output.scalar_type(), "bias_leaky_relu", [&] {
      using opmath = opmath_t<scalar_t>;
      const auto& loops = cpu::active_loops<scalar_t>(call.grad_output.numel());
      const auto slope = slope_as<scalar_t>(call.settings.negative_slope);
      const auto gain = static_cast<opmath>(call.settings.gain * call.settings.dropout_scale());
      const int64_t numel = call.grad_output.numel();
      auto* out = call.grad_input == nullptr ? nullptr : call.grad_input->mutable_data_ptr<scalar_t>();
      const Operand<scalar_t> grad_output(call.grad_output, call.strides);
      const auto* mask = call.mask.const_data_ptr<uint8_t>();
      const bool with_passed = call.has_passed(), with_bias = call.grad_bias != nullptr;
      const auto* passed = mask + mask_bytes(numel);
      const cpu::ChannelLayout layout(call.channels, numel);
      const bool in_place = call.grad_input != nullptr && call.grad_input->is_same(call.grad_output);
      const auto stores = in_place || out == nullptr
          ? Stores::kCached
          : stores_for(out, numel, with_bias ? &layout : nullptr, call.channels);
      const auto loop =
          loops.bias_leaky_relu_backward[static_cast<int>(with_bias ? layout.kind() : PerChannel::kNone)][with_passed];
      // With a bias, sums are cut at every piece, so their order does not depend on the gradient's layout.
      const bool whole = grad_output.direct() && out != nullptr && !with_bias;
      // Each thread has its own sums, added up in thread order: the result is the same for the same shape and number of
      // threads. There are no more sums than elements.
      const int64_t count = with_bias ? layout.count() : 0;
      const int64_t most_threads = at::get_num_threads();
      const int64_t threads = with_bias ? std::clamp<int64_t>(numel / count, 1, most_threads) : most_threads;
      std::vector<double> sums(count * threads);
      cpu::parallel_over<scalar_t>(
          numel,
          [&](int64_t begin, int64_t n) {
            alignas(64) scalar_t grad_scratch[kPiece], unwanted[kPiece];
            std::optional<cpu::ChannelSums<scalar_t>> channel_sums;
            if (with_bias) {
              channel_sums.emplace(loops, layout, sums.data() + at::get_thread_num() * count);
            }
            const int64_t end = begin + n;
            while (begin < end) {
              const int64_t piece = whole ? end - begin : std::min(kPiece, end - begin);
              const scalar_t* from = grad_output.piece(loops, begin, piece, grad_scratch);
              for (int64_t at = 0; at < piece;) {
                const int64_t first = begin + at;
                const auto run = with_bias ? layout.run(first, piece - at) : cpu::ChannelLayout::Run{piece, 0};
                loop(
                    {from + at, mask + first / kMaskBits, passed + first / kMaskBits,
                     out == nullptr ? unwanted : out + first, with_bias ? channel_sums->values(run) : nullptr, run.n},
                    slope, gain, stores);
                if (with_bias) {
                  channel_sums->take(first, run);
                }
                at += run.n;
              }
              begin += piece;
            }
            if (with_bias) {
              channel_sums->finish();
            }
          },
          threads);
      if (with_bias) {
        write_sums(sums, *call.grad_bias);
      }
    });
  }

 private:
  static void write_sums(const std::vector<double>& sums, const at::Tensor& grad_bias) {
    const int64_t count = grad_bias.numel();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, grad_bias.scalar_type(), "bias_leaky_relu", [&] {
      auto* to = grad_bias.mutable_data_ptr<scalar_t>();
      for (int64_t c = 0; c < count; ++c) {
        double total = 0;
        for (int64_t of_thread = c; of_thread < static_cast<int64_t>(sums.size()); of_thread += count) {
          total += sums[of_thread];
        }
        to[c] = static_cast<scalar_t>(total);
      }
    });
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  BiasLeakyReLUOps<BiasLeakyReLUCpu>::register_kernels(m);
}

} // namespace leakyrelu_ext
