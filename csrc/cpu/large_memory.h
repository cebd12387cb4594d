#pragma once
// Large blocks of memory: their time goes to page faults and memory traffic, not to arithmetic.

#include <ATen/core/Tensor.h>

#include "loops/loops.h"

namespace leakyrelu_ext::cpu {

/// Allocates a tensor. Asks the kernel for huge pages for large ones, unless LEAKYRELU_EXT_HUGE_PAGES=0.
at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype);

/// Whether results of `nbytes` at `to` should bypass the caches, of a call that touches `all_bytes`, results and values.
/// 0: only the results' size counts.
Stores stores_for(const void* to, size_t nbytes, size_t all_bytes = 0);

} // namespace leakyrelu_ext::cpu
