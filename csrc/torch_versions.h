#pragma once
// Differences between the supported torch releases, 2.7 to 2.15, each with the release that introduced it. A library
// runs only on the release it was compiled against (leakyrelu_ext/_library.py), so all is decided at compile time.

#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/VariableTypeUtils.h>
#include <torch/csrc/autograd/function.h>
#include <torch/version.h>

#include <memory>

#define LEAKYRELU_EXT_TORCH_FROM(major, minor) \
  (TORCH_VERSION_MAJOR > (major) || (TORCH_VERSION_MAJOR == (major) && TORCH_VERSION_MINOR >= (minor)))

// 2.6 and older have another interface for compiled autograd.
#if !LEAKYRELU_EXT_TORCH_FROM(2, 7)
#error "leakyrelu_ext needs torch >= 2.7"
#endif

/// The built-in's error for a dtype without kernels: NotImplementedError since 2.8 (pytorch#155470), or RuntimeError.
#if LEAKYRELU_EXT_TORCH_FROM(2, 8)
#define LEAKYRELU_EXT_CHECK_DTYPE TORCH_CHECK_NOT_IMPLEMENTED
#else
#define LEAKYRELU_EXT_CHECK_DTYPE TORCH_CHECK
#endif

namespace leakyrelu_ext {

/// Whether clamp() passes a gradient where the value equals a bound. Not since 2.14 (pytorch#191142).
constexpr bool kGradPassesAtBound = !LEAKYRELU_EXT_TORCH_FROM(2, 14);

/// Whether the caller holds the only reference, strong or weak. A Python object counts as one, because weak references
/// in Python can reach it again.
inline bool is_uniquely_owned(const at::Tensor& tensor) {
#if LEAKYRELU_EXT_TORCH_FROM(2, 10)
  return tensor.is_uniquely_owned(); // since 2.10 the counts include the Python object (pytorch#167564)
#else
  return tensor.use_count() == 1 && tensor.weak_use_count() == 1 &&
      !tensor.unsafeGetTensorImpl()->pyobj_slot()->owns_pyobj();
#endif
}

/// The same for a storage; weak references do not matter.
inline bool is_uniquely_owned(const c10::Storage& storage) {
#if LEAKYRELU_EXT_TORCH_FROM(2, 10)
  return storage.use_count() == 1;
#else
  return storage.use_count() == 1 && !storage.unsafeGetStorageImpl()->pyobj_slot()->owns_pyobj();
#endif
}

// 2.13: nodes are held by intrusive_ptr.
#if LEAKYRELU_EXT_TORCH_FROM(2, 13)
template <class Node>
using NodePtr = c10::intrusive_ptr<Node>;

template <class Node>
NodePtr<Node> make_node() {
  return c10::make_intrusive<Node>();
}
#else
template <class Node>
using NodePtr = std::shared_ptr<Node>;

template <class Node>
NodePtr<Node> make_node() {
  return NodePtr<Node>(new Node, torch::autograd::deleteNode);
}
#endif

// 2.14: rebase_history may return another node than the given one, and creation hooks run once a node is complete.
#if LEAKYRELU_EXT_TORCH_FROM(2, 14)
inline NodePtr<torch::autograd::Node> attach_inplace(
    const at::Tensor& input, const NodePtr<torch::autograd::Node>& node) {
  return torch::autograd::rebase_history(input, node);
}

inline void complete(const NodePtr<torch::autograd::Node>& node) {
  torch::autograd::fire_node_creation_hooks(node);
}
#else
inline NodePtr<torch::autograd::Node> attach_inplace(
    const at::Tensor& input, const NodePtr<torch::autograd::Node>& node) {
  torch::autograd::rebase_history(input, node);
  return node;
}

inline void complete(const NodePtr<torch::autograd::Node>& /*node*/) {}
#endif

} // namespace leakyrelu_ext
