#pragma once
// Who else sees a call before its kernel does: transforms, tracers, subclasses and modes.

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>

namespace leakyrelu_ext {

inline bool functorch_active() {
  // Not functorchTLSAccessor(): that stays set after a thread's first transform; this key is there only during one.
  return c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

inline bool mode_active() {
  return c10::impl::TorchDispatchModeTLS::any_modes_set();
}

/// A TorchDispatchMode is active that records calls rather than runs them: FakeTensorMode, make_fx, AOTAutograd.
inline bool recorder_active() {
  using Modes = c10::impl::TorchDispatchModeTLS;
  using Key = c10::impl::TorchDispatchModeKey;
  return mode_active() &&
      (Modes::get_mode(Key::FAKE).has_value() || Modes::get_mode(Key::PROXY).has_value() ||
       Modes::get_mode(Key::FUNCTIONAL).has_value());
}

/// A TorchDispatchMode is active under which calls run: a counter, a logger, selective checkpointing. What is saved for the
/// backward must be the same with it and without: non-reentrant checkpointing compares the two.
inline bool observer_active() {
  return mode_active() && !recorder_active();
}

/// Hides calls from modes.
struct UnobservedGuard {
  c10::impl::ExcludeDispatchKeyGuard guard{
      c10::DispatchKeySet({c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot})};
};

/// A subclass that intercepts ops knows ATen's; under AOTAutograd's tracing an op stays one op.
inline bool intercepts(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->is_python_dispatch() && !recorder_active();
}

} // namespace leakyrelu_ext
