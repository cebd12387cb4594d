#pragma once
// What the CUDA words in our sources mean on the host. Included before everything else (-include).

#include <tuple>
#include <utility>

#include "../emulator.h"

#define __global__
#define __device__
#define __host__
#define __grid_constant__
#define __shared__ static // one block runs at a time
#define __forceinline__ inline __attribute__((always_inline))
#define C10_LAUNCH_BOUNDS_2(threads, blocks)
// GCC asks for a number where nvcc takes an expression; all that it means here is nothing.
#define threadIdx (cuda_on_host::thread_index())
#define blockIdx (cuda_on_host::block_index())
#define blockDim (cuda_on_host::block_dim())
#define gridDim (cuda_on_host::grid_dim())
#define __shfl_xor_sync cuda_on_host::shuffle_xor
#define __syncthreads cuda_on_host::sync_threads
#define __syncthreads_or cuda_on_host::sync_threads_or

template <typename T>
T __ldg(const T* pointer) {
  return *pointer;
}

using dim3 = cuda_on_host::Dim3;
using cudaStream_t = void*;

enum cudaError_t { cudaSuccess, cudaErrorLaunchOutOfResources, cudaErrorInvalidConfiguration };

template <typename... Parameters>
cudaError_t cudaLaunchKernel(
    void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments, size_t shared_bytes, cudaStream_t stream) {
  const bool done = [&]<size_t... i>(std::index_sequence<i...>) {
    // The kernel's arguments are nobody's tensors: not checked.
    return cuda_on_host::run_grid(grid, block, shared_bytes, stream, [&]() __attribute__((no_sanitize_address)) {
      kernel(*static_cast<std::remove_const_t<Parameters>*>(arguments[i])...);
    });
  }(std::index_sequence_for<Parameters...>());
  return done ? cudaSuccess : cudaErrorLaunchOutOfResources;
}
