#pragma once

namespace c10::cuda {

/// The current stream of the device that a guard has chosen; without one, some other device's.
inline cudaStream_t getCurrentCUDAStream() {
  return cuda_on_host::device() >= 0 ? cuda_on_host::current_stream() : nullptr;
}

} // namespace c10::cuda
