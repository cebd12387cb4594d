#pragma once
// Decides whether a gradient's memory may be reused for the gradient computed from it.

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/DispatchKeySet.h>

#include "../torch_versions.h"

namespace leakyrelu_ext {

/// True if nobody else can read the tensor's memory: the caller holds the only reference, strong or weak, to a plain
/// CPU tensor that fills its own storage.
///
/// All other holders show in the reference counts: the caller of backward(), captures of torch.autograd.grad, hooks,
/// other branches, views and aliases, tracers. A tensor that Python code has held (in any hook, in any backward in
/// Python) has a Python object, which counts as a reference.
///
/// Always false on CUDA: a kernel queued on another stream may still read memory that no tensor refers to any more.
inline bool is_sole_owner(const at::Tensor& tensor) {
  if (!tensor.defined() || !is_uniquely_owned(tensor)) {
    return false;
  }
  // Subclasses, fake, functional, batched and lazily negated tensors have other keys.
  const auto keys =
      tensor.key_set() - c10::autograd_dispatch_keyset_with_ADInplaceOrView - c10::autocast_dispatch_keyset;
  if (keys != c10::DispatchKeySet(c10::DispatchKey::CPU)) {
    return false;
  }
  if (tensor.requires_grad() || tensor.is_inference() || tensor._fw_grad(0).defined()) {
    return false;
  }
  const c10::Storage& storage = tensor.storage();
  if (!is_uniquely_owned(storage) || storage.nbytes() != static_cast<size_t>(tensor.numel()) * tensor.itemsize()) {
    return false;
  }
  // External memory (NumPy, DLPack, shared memory, copy-on-write) has an owner that these counts do not show.
  const c10::Allocator* allocator = storage.allocator();
  return allocator != nullptr && allocator->raw_deleter() != nullptr &&
      storage.data_ptr().get_deleter() == allocator->raw_deleter();
}

} // namespace leakyrelu_ext
