// The CUDA backend's own source, executed on the host by emulator.cpp, as the implementation of the ops for CPU tensors.

#include <ATen/Parallel.h>

#include <mutex>

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

template <typename Run>
void checked(
    const at::Tensor& input, const at::Tensor& output, const at::Tensor* mask, bool mask_is_input, const Run& run) {
  const std::lock_guard lock(one_call_at_a_time);
  cuda_on_host::begin_call([&] { // at the launch: until then copy-on-write tensors may move
    std::vector<cuda_on_host::Region> regions;
    if (input.is_same(output)) {
      regions.push_back(region("input and output", input, true, true));
    } else {
      regions.push_back(region("input", input, true, false));
      regions.push_back(region("output", output, false, true));
    }
    if (mask != nullptr) {
      regions.push_back(region("mask", *mask, mask_is_input, !mask_is_input));
    }
    return regions;
  });
  try {
    run();
    last_report = cuda_on_host::end_call();
  } catch (...) {
    cuda_on_host::abandon_call();
    throw;
  }
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
}

} // namespace leakyrelu_ext
