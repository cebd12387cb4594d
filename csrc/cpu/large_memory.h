#pragma once
// Large blocks of memory: where their time goes is page faults and the traffic of stores, not arithmetic.

#include <ATen/core/Tensor.h>

#include "loops/loops.h"

namespace leakyrelu_ext::cpu {

/// A new tensor. Large ones ask the kernel for huge pages (LEAKYRELU_EXT_HUGE_PAGES=0: they do not).
at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype);

/// Whether results of `nbytes` at `to` had better go past the caches.
Stores stores_for(const void* to, size_t nbytes);

} // namespace leakyrelu_ext::cpu
