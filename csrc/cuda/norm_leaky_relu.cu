// norm_leaky_relu on CUDA. Schemas: ../ops.cpp. Arithmetic: ../element/norm_leaky_relu.h. Kernels: norm_forward.cuh,
// norm_backward.cuh, norm_folded.cuh, norm_held.cuh.

#include <ATen/Dispatch.h>
#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include "../device/norm_leaky_relu.h"
#include "norm_held.cuh"

namespace leakyrelu_ext {
namespace {

struct NormCuda {
  static inline int64_t folded_bytes = cuda::kNormFoldedBytes; // the emulated tests change it

  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return at::detail::empty_strided_cuda(sizes, strides, dtype, device);
  }

  static void forward(const NormForward& call) {
    const c10::cuda::CUDAGuard guard(call.input.device());
    const auto stream = c10::cuda::getCurrentCUDAStream();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.input.scalar_type(), "norm_leaky_relu", [&] {
      using opmath = opmath_t<scalar_t>;
      const auto* input = call.input.const_data_ptr<scalar_t>();
      auto* output = call.output.mutable_data_ptr<scalar_t>();
      const auto* residual = call.residual == nullptr ? nullptr : call.residual->const_data_ptr<scalar_t>();
      const auto walk = walk_of<scalar_t>(call.shape, {input, output, residual});
      cuda::NormFinish<scalar_t> finish{
          nullptr,
          {call.statistics.mutable_data_ptr<opmath>(), call.shape.sizes()},
          read_only<scalar_t>(call.weight),
          read_only<scalar_t>(call.bias),
          call.use_input_stats ? written<scalar_t>(call.running_mean) : read_only<scalar_t>(call.running_mean),
          call.use_input_stats ? written<scalar_t>(call.running_var) : read_only<scalar_t>(call.running_var),
          call.momentum,
          call.eps,
          nullptr};
      const cuda::NormOutputs<scalar_t> outputs{
          input,
          residual,
          output,
          call.mask == nullptr ? nullptr : call.mask->mutable_data_ptr<uint8_t>(),
          statistics_of<scalar_t>(call.statistics, call.shape),
          slope_as<scalar_t>(call.negative_slope)};
      at::Tensor of_groups;
      if (call.use_input_stats && finish.running_mean.data != nullptr && walk.stretches > 1) {
        of_groups = doubles(2 * walk.groups_of_all(), call.input);
        finish.of_groups = of_groups.mutable_data_ptr<double>();
      }
      const auto held = cuda::held_walk<scalar_t>(walk);
      if (call.use_input_stats && held.splits == 1) {
        C10_CUDA_CHECK(cuda::run_norm_held_forward(outputs, finish, held, stream));
      } else {
        Pairs pairs;
        if (call.use_input_stats) {
          pairs = Pairs(walk, call.input);
          C10_CUDA_CHECK(cuda::run_norm_moments(input, walk, pairs.data(), stream));
          pairs.join<true>(call.input, stream);
          finish.pairs = pairs.data();
        }
        if (!walk.folded) {
          C10_CUDA_CHECK(cuda::run_norm_finish(pairs.walk_or(walk), finish, stream));
        }
        C10_CUDA_CHECK(cuda::run_norm_forward(outputs, finish, walk, stream));
      }
      if (finish.of_groups != nullptr) {
        C10_CUDA_CHECK(cuda::run_norm_update(walk, finish, stream));
      }
    });
  }

  static void backward(const NormBackward& call) {
    const c10::cuda::CUDAGuard guard(call.input.device());
    const auto stream = c10::cuda::getCurrentCUDAStream();
    AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, call.input.scalar_type(), "norm_leaky_relu", [&] {
      using opmath = opmath_t<scalar_t>;
      const auto out = [](const at::Tensor* tensor) {
        return tensor == nullptr ? nullptr : tensor->mutable_data_ptr<scalar_t>();
      };
      const cuda::NormGradOutputs<scalar_t> outputs{out(call.grad_input), out(call.grad_residual)};
      const cuda::NormGradients<scalar_t> gradients{
          call.grad_output.const_data_ptr<scalar_t>(), call.input.const_data_ptr<scalar_t>(),
          call.mask == nullptr ? nullptr : call.mask->const_data_ptr<uint8_t>(),
          statistics_of<scalar_t>(call.statistics, call.shape), slope_as<scalar_t>(call.negative_slope)};
      const auto walk = walk_of<scalar_t>(
          call.shape, {gradients.grad_output, gradients.input, outputs.grad_input, outputs.grad_residual});
      const bool of_statistics = call.use_input_stats && call.grad_input != nullptr;
      const bool of_parameters = call.grad_weight != nullptr || call.grad_bias != nullptr;
      const bool of_elements = call.grad_input != nullptr || call.grad_residual != nullptr;
      const auto written_if = [](const at::Tensor* tensor) {
        return tensor == nullptr ? cuda::NormValues<scalar_t>{} : written<scalar_t>(*tensor);
      };
      cuda::NormFinishBackward<scalar_t> finish{nullptr,
                                                gradients.statistics,
                                                of_statistics,
                                                {},
                                                0,
                                                written_if(call.grad_weight),
                                                written_if(call.grad_bias)};
      if (!of_statistics && !of_parameters) {
        C10_CUDA_CHECK(cuda::run_norm_backward(gradients, {}, finish, outputs, walk, stream));
        return;
      }
      const auto held = cuda::held_walk<scalar_t>(walk);
      if (held.splits == 1) {
        const bool over_samples = of_parameters && walk.stretches > 1;
        const at::Tensor pairs = over_samples ? doubles(2 * held.pairs(), call.input) : at::Tensor();
        double* const to = over_samples ? pairs.mutable_data_ptr<double>() : nullptr;
        C10_CUDA_CHECK(cuda::run_norm_held_backward(gradients, finish, outputs, to, held, stream));
        if (over_samples) {
          finish.pairs = to;
          C10_CUDA_CHECK(cuda::run_norm_finish_backward(held, finish, stream));
        }
        return;
      }
      Pairs pairs(walk, call.input);
      C10_CUDA_CHECK(cuda::run_norm_sums(gradients, walk, pairs.data(), stream));
      pairs.join<false>(call.input, stream);
      finish.pairs = pairs.data();
      if (walk.folded && of_elements) {
        C10_CUDA_CHECK(cuda::run_norm_backward(gradients, {}, finish, outputs, walk, stream));
        return;
      }
      at::Tensor coefficients;
      if (of_statistics) {
        const int64_t n = walk.entries();
        coefficients = empty_strided({3 * n}, {1}, call.statistics.scalar_type(), call.input.device());
        auto* const values = coefficients.mutable_data_ptr<opmath>();
        finish.coefficients = {values, values + n, values + 2 * n};
      }
      C10_CUDA_CHECK(cuda::run_norm_finish_backward(pairs.walk_or(walk), finish, stream));
      if (of_elements) {
        const auto& [along, offset, rstd] = finish.coefficients;
        C10_CUDA_CHECK(cuda::run_norm_backward(gradients, {along, offset, rstd}, finish, outputs, walk, stream));
      }
    });
  }

 private:
  template <typename T>
  static cuda::NormWalk walk_of(const NormShape& shape, std::initializer_list<const void*> memory) {
    const bool aligned = std::all_of(memory.begin(), memory.end(), cuda::is_aligned);
    return cuda::norm_walk<T>(
        {shape.samples, shape.channels, shape.pixels, shape.groups_per_sample, shape.channels_innermost}, aligned,
        folded_bytes);
  }

  template <typename T>
  static NormStatistics<const opmath_t<T>> statistics_of(const at::Tensor& statistics, const NormShape& shape) {
    return {statistics.const_data_ptr<opmath_t<T>>(), shape.sizes()};
  }

  static at::Tensor doubles(int64_t n, const at::Tensor& input) {
    return empty_strided({n}, {1}, at::kDouble, input.device());
  }

  /// What the blocks of a first pass write, joined by entry where a group would have many.
  class Pairs {
   public:
    Pairs() = default;
    Pairs(const cuda::NormWalk& walk, const at::Tensor& input)
        : walk_(walk), pairs_(doubles(2 * walk.pairs(), input)) {}

    double* data() const {
      return pairs_.mutable_data_ptr<double>();
    }
    /// The walk whose pairs these are.
    const cuda::NormWalk& walk_or(const cuda::NormWalk& otherwise) const {
      return walk_.has_value() ? *walk_ : otherwise;
    }
    template <bool moments>
    void join(const at::Tensor& input, cudaStream_t stream) {
      if (cuda::has_many_pairs(*walk_)) {
        const at::Tensor joined = doubles(2 * walk_->entries(), input);
        C10_CUDA_CHECK(cuda::run_norm_join<moments>(*walk_, data(), joined.mutable_data_ptr<double>(), stream));
        walk_ = cuda::walk_of_joined(*walk_);
        pairs_ = joined;
      }
    }

   private:
    std::optional<cuda::NormWalk> walk_;
    at::Tensor pairs_;
  };

  template <typename T>
  static cuda::NormValues<T> written(const at::Tensor& values) {
    return {values.mutable_data_ptr(), values.stride(0), values.scalar_type() != c10::CppTypeToScalarType<T>::value};
  }
  template <typename T>
  static cuda::NormValues<T> written(const std::optional<at::Tensor>& values) {
    return values.has_value() ? written<T>(*values) : cuda::NormValues<T>{};
  }
  template <typename T>
  static cuda::NormValues<T> read_only(const std::optional<at::Tensor>& values) {
    return !values.has_value() ? cuda::NormValues<T>{}
                               : cuda::NormValues<T>{
                                     const_cast<void*>(values->const_data_ptr()), values->stride(0),
                                     values->scalar_type() != c10::CppTypeToScalarType<T>::value};
  }
};

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CUDA, m) {
  NormOps<NormCuda>::register_kernels(m);
}

} // namespace leakyrelu_ext
