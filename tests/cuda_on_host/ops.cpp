// What the implementations of the ops share, and how tests steer and question the emulator.

#include <torch/library.h>

#include <mutex>

#include "checked.h"

namespace cuda_on_host {
namespace {

std::mutex one_call_at_a_time;
Report last_report;

constexpr int64_t kLargestDetailed = int64_t{1} << 22; // elements, with gaps; beyond, the gaps are not watched

std::vector<int64_t> report() {
  std::vector<int64_t> result{last_report.launches, last_report.blocks, last_report.threads};
  for (const auto& traffic : {last_report.loads, last_report.stores}) {
    result.insert(
        result.end(),
        {traffic.bytes, traffic.sectors, traffic.requests, traffic.request_sectors, traffic.widest_requests});
  }
  return result;
}

} // namespace

Region region(const char* name, const at::Tensor& tensor, bool readable, bool writable) {
  const auto itemsize = static_cast<int64_t>(tensor.itemsize());
  int64_t extent = 1;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    extent += tensor.stride(d) * (tensor.size(d) - 1);
  }
  Region result{
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

void add_input_and_output(Regions& regions, const at::Tensor& input, const at::Tensor& output) {
  if (input.is_same(output)) {
    regions.push_back(region("input and output", input, true, true));
  } else {
    regions.push_back(region("input", input, true, false));
    regions.push_back(region("output", output, false, true));
  }
}

void checked(std::function<Regions()> regions, const std::function<void()>& run) {
  const std::lock_guard lock(one_call_at_a_time);
  begin_call(std::move(regions));
  try {
    run();
    last_report = end_call();
  } catch (...) {
    abandon_call();
    throw;
  }
}

TORCH_LIBRARY(cuda_on_host, m) {
  m.def("only_blocks(int[] blocks) -> ()", [](std::vector<int64_t> blocks) { set_only_blocks(std::move(blocks)); });
  m.def("warp_size(int threads) -> ()", [](int64_t threads) { set_warp_size(static_cast<int>(threads)); });
  m.def("fail_next_launch() -> ()", [] { fail_next_launch(); });
  m.def("report() -> int[]", report);
}

} // namespace cuda_on_host
