#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/cuda/detail/PhiloxCudaStateRaw.cuh>

#include <array>
#include <memory>
#include <mutex>

namespace at {

/// Seeds and offsets from the CPU's generator, so that torch.manual_seed() decides them.
struct CUDAGeneratorImpl {
  std::mutex mutex_;
  bool captured = false;         // the state comes as in a CUDA graph: as addresses
  std::array<int64_t, 2> last{}; // seed and offset given out
  std::unique_ptr<int64_t[]> graph{new int64_t[2]};

  PhiloxCudaState philox_cuda_state(uint64_t increment) {
    TORCH_CHECK(!mutex_.try_lock(), "CUDA on host: the generator is used without its mutex");
    TORCH_CHECK(increment > 0 && increment % 4 == 0, "CUDA on host: not a multiple of 4");
    auto* source = get_generator_or_default<CPUGeneratorImpl>(std::nullopt, detail::getDefaultCPUGenerator());
    const uint64_t seed = source->random64(), offset = source->random64() >> 8 << 2;
    last = {static_cast<int64_t>(seed), static_cast<int64_t>(offset)};
    if (!captured) {
      return {seed, offset};
    }
    graph[0] = last[0];
    graph[1] = last[1] - 8;
    cuda_on_host::allocated(graph.get(), 2 * sizeof(int64_t));
    return {&graph[0], &graph[1], 8};
  }
};

namespace cuda::detail {

inline CUDAGeneratorImpl& getDefaultCUDAGenerator() {
  static auto& generator = *new CUDAGeneratorImpl; // not in static memory: that is shared memory here
  TORCH_CHECK(cuda_on_host::device() >= 0, "CUDA on host: another device's generator");
  return generator;
}

} // namespace cuda::detail

template <typename T>
T* get_generator_or_default(std::nullopt_t, CUDAGeneratorImpl& generator) {
  return &generator;
}

} // namespace at
