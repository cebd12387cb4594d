#pragma once
// Grid, orders and access width for leaky_relu_kernel. Free of ATen; the caller sets the device.

#include <cstdint>
#include <limits>

#include "../tensor/strided_order.h"
#include "kernels.cuh"

namespace leakyrelu_ext::cuda {

/// Raw memory of one call. mask: nullptr if a forward wants none.
template <typename T>
struct Memory {
  const T* input; // a backward's grad_output
  T* output;      // a backward's grad_input
  uint8_t* mask;
};

inline bool is_aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % kAccessBytes == 0;
}

inline int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

inline int at_least_power_of_two(int64_t number, int most) {
  int power = 1;
  while (power < most && power < number) {
    power *= 2;
  }
  return power;
}

template <typename T, Pass pass, typename Parts, typename InputOrder, typename OutputOrder>
cudaError_t launch(
    Memory<T> memory,
    int64_t n,
    Parts parts,
    InputOrder input_order,
    OutputOrder output_order,
    bool wide,
    cudaStream_t stream) {
  // A grid of 2^31 blocks would move 8 TiB: n always fits.
  const auto blocks = static_cast<unsigned>((n + kTile<T> - 1) / kTile<T>);
  wide = wide && is_aligned(memory.input) && is_aligned(memory.output);
  void* arguments[] = {&memory.input, &memory.output, &memory.mask, &n, &parts, &input_order, &output_order, &wide};
  return cudaLaunchKernel(
      leaky_relu_kernel<T, pass, Parts, InputOrder, OutputOrder>, dim3(blocks), dim3(kThreads), arguments, 0, stream);
}

/// Runs on n > 0 elements of one dense order.
template <typename T, Pass pass>
cudaError_t run(Memory<T> memory, int64_t n, opmath_t<T> negative_slope, cudaStream_t stream) {
  return launch<T, pass>(memory, n, Plain<T>{negative_slope}, Dense{}, Dense{}, true, stream);
}

template <typename Index>
Strided<Index> strided(const StridedOrder& order) {
  Strided<Index> result{};
  for (const auto& dim : order.dims()) {
    auto& to = result.dims[result.last++];
    to.divisor = decltype(to.divisor)(static_cast<Index>(dim.size));
    to.size = static_cast<Index>(dim.size);
    to.stride = static_cast<Index>(dim.stride);
  }
  --result.last;
  return result;
}

inline bool fits_32_bits(const StridedOrder& order) {
  int64_t extent = 1;
  for (const auto& dim : order.dims()) {
    extent += dim.stride * (dim.size - 1);
  }
  return order.numel() <= std::numeric_limits<int32_t>::max() && extent <= std::numeric_limits<int32_t>::max();
}

/// True if each 16-byte chunk of the dense order is contiguous in the strided tensor, and aligned if the first one is.
template <typename T>
bool has_chunks(const StridedOrder& order) {
  const auto dims = order.dims();
  bool result = dims[0].stride == 1 && dims[0].size % kChunk<T> == 0;
  for (const auto& dim : dims.slice(1)) {
    result = result && dim.stride % kChunk<T> == 0;
  }
  return result;
}

template <typename T, Pass pass, typename Index>
cudaError_t run_strided(
    Memory<T> memory, opmath_t<T> negative_slope, const StridedOrder& order, bool in_place, cudaStream_t stream) {
  const Plain<T> parts{negative_slope};
  const auto from = strided<Index>(order);
  const bool wide = has_chunks<T>(order);
  if constexpr (pass == Pass::kForward) {
    if (in_place) {
      return launch<T, pass>(memory, order.numel(), parts, from, from, wide, stream);
    }
  }
  return launch<T, pass>(memory, order.numel(), parts, from, Dense{}, wide, stream);
}

/// Runs on a strided input of at most Strided<>::kMaxDims dimensions; the output is dense, or is the input itself.
template <typename T, Pass pass>
cudaError_t run_strided(
    Memory<T> memory, opmath_t<T> negative_slope, const StridedOrder& order, bool in_place, cudaStream_t stream) {
  return fits_32_bits(order) ? run_strided<T, pass, uint32_t>(memory, negative_slope, order, in_place, stream)
                             : run_strided<T, pass, uint64_t>(memory, negative_slope, order, in_place, stream);
}

} // namespace leakyrelu_ext::cuda
