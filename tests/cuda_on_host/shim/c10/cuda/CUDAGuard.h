#pragma once

#include <c10/core/Device.h>

namespace c10::cuda {

class CUDAGuard {
 public:
  explicit CUDAGuard(Device) : before_(cuda_on_host::device()) {
    cuda_on_host::set_device(0);
  }

  CUDAGuard(const CUDAGuard&) = delete;

  ~CUDAGuard() {
    cuda_on_host::set_device(before_);
  }

 private:
  int before_;
};

} // namespace c10::cuda
