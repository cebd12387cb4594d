#pragma once
// Whether a call has a kernel, and what intercepts it before that runs: transforms, tracers, subclasses and modes.

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

namespace leakyrelu_ext {

inline bool has_native_kernel(const at::Tensor& tensor) {
  const auto device = tensor.device().type();
#ifdef LEAKYRELU_EXT_WITH_CUDA
  const bool supported = device == at::kCPU || device == at::kCUDA || device == at::kMeta;
#else
  const bool supported = device == at::kCPU || device == at::kMeta;
#endif
  return supported && tensor.layout() == at::kStrided && !tensor.is_nested();
}

inline bool functorch_active() {
  // Not functorchTLSAccessor(): it stays set after a thread's first transform. This key is included only during one.
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

inline bool mode_active() {
  return c10::impl::TorchDispatchModeTLS::any_modes_set();
}

/// True under a TorchDispatchMode that records calls instead of running them: FakeTensorMode, make_fx, AOTAutograd.
inline bool recorder_active() {
  using Modes = c10::impl::TorchDispatchModeTLS;
  using Key = c10::impl::TorchDispatchModeKey;
  return mode_active() &&
      (Modes::get_mode(Key::FAKE).has_value() || Modes::get_mode(Key::PROXY).has_value() ||
       Modes::get_mode(Key::FUNCTIONAL).has_value());
}

/// True under a TorchDispatchMode that lets calls run: a counter, a logger, selective checkpointing. With and without
/// it, the same tensors must be saved for the backward: non-reentrant checkpointing compares them.
inline bool observer_active() {
  return mode_active() && !recorder_active();
}

/// Hides calls from modes while it exists.
struct UnobservedGuard {
  c10::impl::ExcludeDispatchKeyGuard guard{
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot})};
};

/// True for a subclass that intercepts ops: it knows only ATen's. False while AOTAutograd traces: ops stay whole.
inline bool intercepts(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->is_python_dispatch() && !recorder_active();
}

} // namespace leakyrelu_ext
