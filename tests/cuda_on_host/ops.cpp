// The CUDA backend's own source, executed on the host by emulator.cpp, as the implementation of the ops for CPU tensors.

#include <ATen/Parallel.h>

#include <mutex>

#include "csrc/cuda/bias_leaky_relu.cu"
#include "csrc/cuda/leaky_relu.cu"

namespace leakyrelu_ext {
namespace {

std::mutex one_call_at_a_time;
cuda_on_host::Report last_report;

constexpr int64_t kLargestDetailed = int64_t{1} << 22; // elements, with gaps; beyond, the gaps are not watched

/// The tensor's elements.
cuda_on_host::Region region(const char* name, const at::Tensor& tensor, bool readable, bool writable) {
  const auto itemsize = static_cast<int64_t>(tensor.itemsize());
  int64_t extent = 1;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    extent += tensor.stride(d) * (tensor.size(d) - 1);
  }
  cuda_on_host::Region result{
      name,     reinterpret_cast<uintptr_t>(tensor.const_data_ptr()), static_cast<size_t>(extent * itemsize), readable,
      writable, static_cast<size_t>(tensor.numel() * itemsize)};
  if (!tensor.is_non_overlapping_and_dense() && std::max(extent, tensor.numel()) <= kLargestDetailed) {
    result.is_element.resize(result.bytes);
    std::vector<int64_t> offsets{0};
    for (int64_t d = 0; d < tensor.dim(); ++d) {
      const size_t known = offsets.size();
      for (int64_t i = 1; i < tensor.size(d) && tensor.stride(d) != 0; ++i) {
        for (size_t j = 0; j < known; ++j) {
          offsets.push_back(offsets[j] + i * tensor.stride(d));
        }
      }
    }
    for (const int64_t offset : offsets) {
      std::fill_n(result.is_element.begin() + offset * itemsize, itemsize, true);
    }
    result.elements_bytes = std::count(result.is_element.begin(), result.is_element.end(), true);
  }
  return result;
}

using Regions = std::vector<cuda_on_host::Region>;

template <typename Run>
void checked(std::function<Regions()> regions, const Run& run) {
  const std::lock_guard lock(one_call_at_a_time);
  cuda_on_host::begin_call(std::move(regions));
  try {
    run();
    last_report = cuda_on_host::end_call();
  } catch (...) {
    cuda_on_host::abandon_call();
    throw;
  }
}

void add_input_and_output(Regions& regions, const at::Tensor& input, const at::Tensor& output) {
  if (input.is_same(output)) {
    regions.push_back(region("input and output", input, true, true));
  } else {
    regions.push_back(region("input", input, true, false));
    regions.push_back(region("output", output, false, true));
  }
}

template <typename Run>
void checked(
    const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, bool mask_is_input, const Run& run) {
  const auto regions = [&] { // at the launch: until then copy-on-write tensors may move
    Regions result;
    add_input_and_output(result, input, output);
    if (mask != nullptr) {
      result.push_back(region("mask", *mask, mask_is_input, !mask_is_input));
    }
    return result;
  };
  checked(regions, run);
}

struct HostBackend {
  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return CudaBackend::empty_strided(sizes, strides, dtype, device);
  }

  static void forward(const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double slope) {
    checked(input, output, mask, false, [&] { CudaBackend::forward(input, output, mask, slope); });
  }

  static void forward_strided(const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, double slope) {
    checked(input, output, mask, false, [&] { CudaBackend::forward_strided(input, output, mask, slope); });
  }

  static void backward(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double slope) {
    checked(grad_output, grad_input, &mask, true, [&] { CudaBackend::backward(grad_output, mask, grad_input, slope); });
  }

  static void backward_strided(
      const at::Tensor& grad_output, const at::Tensor& mask, const at::Tensor& grad_input, double slope) {
    checked(grad_output, grad_input, &mask, true, [&] {
      CudaBackend::backward_strided(grad_output, mask, grad_input, slope);
    });
  }
};

struct FamilyHostBackend {
  static at::Tensor empty_strided(
      at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype, at::Device device) {
    return FamilyCudaBackend::empty_strided(sizes, strides, dtype, device);
  }

  // What is not in the results' order is copied, by PyTorch: kernels have no business there.
  static bool in_order(const at::Tensor& tensor, at::IntArrayRef strides) {
    return same_order(tensor.sizes(), tensor.strides(), strides);
  }

  static void family_forward(const FamilyForward& call) {
    const auto regions = [&] {
      Regions result;
      const auto strides = call.output.strides();
      add_input_and_output(result, in_order(call.input, strides) ? call.input : call.output, call.output);
      if (call.bias != nullptr) {
        result.push_back(region("bias", *call.bias, true, false));
      }
      if (call.residual != nullptr && in_order(*call.residual, strides)) {
        result.push_back(region("residual", *call.residual, true, false));
      }
      if (call.mask != nullptr) {
        result.push_back(region("mask", *call.mask, false, true));
      }
      return result;
    };
    checked(regions, [&] { FamilyCudaBackend::family_forward(call); });
  }

  static void family_backward(const FamilyBackward& call) {
    const auto regions = [&] {
      Regions result;
      const bool ordered = in_order(call.grad_output, call.strides);
      if (call.grad_input != nullptr) {
        add_input_and_output(result, ordered ? call.grad_output : *call.grad_input, *call.grad_input);
      } else if (ordered) {
        result.push_back(region("input", call.grad_output, true, false));
      }
      result.push_back(region("mask", call.mask, true, false));
      if (call.grad_bias != nullptr) {
        result.push_back(region("grad_bias", *call.grad_bias, false, true));
      }
      return result;
    };
    checked(regions, [&] { FamilyCudaBackend::family_backward(call); });
  }
};

std::vector<int64_t> report() {
  std::vector<int64_t> result{last_report.blocks, last_report.threads};
  for (const auto& traffic : {last_report.loads, last_report.stores}) {
    result.insert(
        result.end(),
        {traffic.bytes, traffic.sectors, traffic.requests, traffic.request_sectors, traffic.widest_requests});
  }
  return result;
}

} // namespace

TORCH_LIBRARY_IMPL(leakyrelu_ext, CPU, m) {
  DeviceOps<HostBackend>::register_kernels(m);
  FamilyOps<FamilyHostBackend>::register_kernels(m);
}

// How tests steer and question the emulator.
TORCH_LIBRARY(cuda_on_host, m) {
  m.def("only_blocks(int[] blocks) -> ()", [](std::vector<int64_t> blocks) {
    cuda_on_host::set_only_blocks(std::move(blocks));
  });
  m.def(
      "warp_size(int threads) -> ()", [](int64_t threads) { cuda_on_host::set_warp_size(static_cast<int>(threads)); });
  m.def("fail_next_launch() -> ()", [] { cuda_on_host::fail_next_launch(); });
  m.def("report() -> int[]", report);
  // Of the generator: hands its state out as in a CUDA graph; what it has handed out last.
  m.def("capture(bool captured) -> ()", [](bool captured) {
    const c10::cuda::CUDAGuard guard(at::kCPU);
    at::cuda::detail::getDefaultCUDAGenerator().captured = captured;
  });
  m.def("random_state() -> int[]", [] {
    const c10::cuda::CUDAGuard guard(at::kCPU);
    const auto& last = at::cuda::detail::getDefaultCUDAGenerator().last;
    return std::vector<int64_t>(last.begin(), last.end());
  });
}

} // namespace leakyrelu_ext
