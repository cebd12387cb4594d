#pragma once

#include <c10/core/Device.h>

namespace c10::cuda {

class CUDAGuard {
 public:
  /// The tensors under test are on the CPU: any other device is a wrong one.
  explicit CUDAGuard(Device device) : before_(cuda_on_host::device()) {
    cuda_on_host::set_device(device.is_cpu() ? 0 : -1);
  }

  CUDAGuard(const CUDAGuard&) = delete;

  ~CUDAGuard() {
    cuda_on_host::set_device(before_);
  }

 private:
  int before_;
};

} // namespace c10::cuda
