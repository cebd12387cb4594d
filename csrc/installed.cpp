// Kernels for aten::leaky_relu and leaky_relu_ at the dispatch keys of the devices with native kernels. Calls that they
// do not support (transforms, tracers, subclasses, other dtypes) go on to PyTorch's own.

#include "installed.h"

#include <c10/util/Exception.h>

#include <atomic>

#include "torch_versions.h"

namespace leakyrelu_ext {
namespace {

std::atomic<bool> is_installed{false};

} // namespace

bool installed() {
  return is_installed;
}

} // namespace leakyrelu_ext

#if !LEAKYRELU_EXT_TORCH_FROM(2, 9)

namespace leakyrelu_ext {

bool install() {
  TORCH_CHECK(
      false,
      "install(): needs torch >= 2.9, and this is torch " TORCH_VERSION
      ", which does not hand out a kernel that another one replaces; leakyrelu_ext.convert(model) works with it");
}

bool uninstall() {
  return false;
}

} // namespace leakyrelu_ext

#else

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/jit_type.h>
#include <ATen/ops/leaky_relu_ops.h>
#include <torch/library.h>

#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "autograd/leaky_relu.h"
#include "autograd/route.h"
#include "ops.h"
#include "stats.h"
#include "tensor/checks.h"
#include "tensor/dense.h"

namespace leakyrelu_ext {
namespace {

using c10::DispatchKey;

const c10::OperatorHandle& aten_op(bool inplace) {
  static const auto out_of_place = c10::Dispatcher::singleton().findSchemaOrThrow("aten::leaky_relu", "");
  static const auto in_place = c10::Dispatcher::singleton().findSchemaOrThrow("aten::leaky_relu_", "");
  return inplace ? in_place : out_of_place;
}

/// PyTorch's own kernel. First called before ours are registered. Never freed, as in PyTorch: a call may be on its way
/// to it at any time.
template <DispatchKey key, bool inplace>
const c10::SafeKernelFunction& original() {
  static const auto* kernel = new auto(aten_op(inplace).getComputedKernelForDispatchKey(key));
  return *kernel;
}

template <DispatchKey key, bool inplace>
at::Tensor call_original(c10::DispatchKeySet keys, const at::Tensor& self, const at::Scalar& negative_slope) {
  torch::jit::Stack stack{self, negative_slope};
  original<key, inplace>().callBoxed(aten_op(inplace), keys, &stack);
  return std::move(stack[0]).toTensor();
}

/// True for a real number that double holds: PyTorch rounds an int once, to the kernel's precision; we pass doubles.
bool is_double(const at::Scalar& number) {
  if (number.isComplex() || number.isSymbolic()) {
    return false;
  }
  constexpr int64_t kExact = int64_t{1} << std::numeric_limits<double>::digits;
  return !number.isIntegral(/*includeBool=*/true) ||
      (number.type() != at::kUInt64 && number.toLong() >= -kExact && number.toLong() <= kExact);
}

/// True for a plain tensor of a supported dtype and a slope that is_double.
template <DispatchKey device>
bool takes(const at::Tensor& self, const at::Scalar& negative_slope) {
  const auto dtype = self.scalar_type();
  const bool floating = dtype == at::kFloat || dtype == at::kDouble || dtype == at::kHalf || dtype == at::kBFloat16;
  // Subclasses, fake, functional, batched, named, nested, sparse and lazily negated tensors have other keys.
  const auto keys = self.key_set() - c10::autograd_dispatch_keyset_with_ADInplaceOrView - c10::autocast_dispatch_keyset;
  return floating && keys == c10::DispatchKeySet(device) && is_double(negative_slope);
}

template <DispatchKey device, DispatchKey autograd>
struct Kernels {
  static at::Tensor leaky_relu_autograd(
      c10::DispatchKeySet keys, const at::Tensor& self, const at::Scalar& negative_slope) {
    if (takes<device>(self, negative_slope) && !recorder_active()) {
      switch (route(self)) {
        case Route::record:
          stats::count(stats::installed_calls);
          return record_leaky_relu(self, negative_slope.toDouble(), /*under_aten=*/true);
        case Route::below: {
          at::AutoDispatchBelowADInplaceOrView guard;
          return mode_active()
              ? at::_ops::leaky_relu::redispatch(keys & c10::after_autograd_keyset, self, negative_slope)
              : leaky_relu(keys, self, negative_slope);
        }
        case Route::aten:
          break;
      }
    }
    return call_original<autograd, false>(keys, self, negative_slope);
  }

  static at::Tensor& leaky_relu_autograd_(
      c10::DispatchKeySet keys, at::Tensor& self, const at::Scalar& negative_slope) {
    if (takes<device>(self, negative_slope) && !recorder_active()) {
      switch (route(self)) {
        case Route::record:
          // Raise autograd's errors before any byte is overwritten.
          torch::autograd::check_inplace(self, /*requires_grad=*/true);
          check_not_inference(self);
          stats::count(stats::installed_calls);
          record_leaky_relu_(self, negative_slope.toDouble(), /*under_aten=*/true);
          return self;
        case Route::below: {
          torch::autograd::check_inplace(self, torch::autograd::compute_requires_grad(self));
          at::AutoDispatchBelowAutograd guard;
          return at::_ops::leaky_relu_::redispatch(keys & c10::after_autograd_keyset, self, negative_slope);
        }
        case Route::aten:
          break;
      }
    }
    call_original<autograd, true>(keys, self, negative_slope);
    return self;
  }

  static at::Tensor leaky_relu(c10::DispatchKeySet keys, const at::Tensor& self, const at::Scalar& negative_slope) {
    if (!takes<device>(self, negative_slope)) {
      return call_original<device, false>(keys, self, negative_slope);
    }
    stats::count(stats::installed_calls);
    at::Tensor output = ops::leaky_relu().redispatch(c10::DispatchKeySet(device), self, negative_slope.toDouble());
    as_elementwise_strides(self, output);
    return output;
  }

  static at::Tensor& leaky_relu_(c10::DispatchKeySet keys, at::Tensor& self, const at::Scalar& negative_slope) {
    if (!takes<device>(self, negative_slope)) {
      call_original<device, true>(keys, self, negative_slope);
      return self;
    }
    stats::count(stats::installed_calls);
    return ops::leaky_relu_().redispatch(c10::DispatchKeySet(device), self, negative_slope.toDouble());
  }

  static void check_originals() {
    check_is_pytorchs<device, false>();
    check_is_pytorchs<device, true>();
    check_is_pytorchs<autograd, false>();
    check_is_pytorchs<autograd, true>();
  }

  static void register_in(std::vector<std::unique_ptr<torch::Library> >& libraries) {
    // Devices first: until autograd's kernels are registered, recording calls go to PyTorch's, which call these.
    auto& below = libraries.emplace_back(new torch::Library(torch::Library::IMPL, "aten", device, __FILE__, __LINE__));
    below->impl("leaky_relu", TORCH_FN(leaky_relu));
    below->impl("leaky_relu_", TORCH_FN(leaky_relu_));
    auto& above =
        libraries.emplace_back(new torch::Library(torch::Library::IMPL, "aten", autograd, __FILE__, __LINE__));
    above->impl("leaky_relu", TORCH_FN(leaky_relu_autograd));
    above->impl("leaky_relu_", TORCH_FN(leaky_relu_autograd_));
  }

 private:
  /// Raises if another library has replaced the kernel: replacements do not know of each other, so one would be lost.
  template <DispatchKey key, bool inplace>
  static void check_is_pytorchs() {
    const auto now = aten_op(inplace).getComputedKernelForDispatchKey(key);
    const std::string file = key == device ? std::string("/Register") + c10::toString(key) : "/VariableType";
    TORCH_CHECK(
        now.debug().find(file) != std::string::npos, "install(): another library has replaced PyTorch's kernel of ",
        aten_op(inplace).operator_name(), " for ", key, " (", now.debug(), "): only one can");
    original<key, inplace>();
  }
};

using KernelsOnCPU = Kernels<DispatchKey::CPU, DispatchKey::AutogradCPU>;
#ifdef LEAKYRELU_EXT_WITH_CUDA
using KernelsOnCUDA = Kernels<DispatchKey::CUDA, DispatchKey::AutogradCUDA>;
#endif

/// Hides PyTorch's warning that a kernel replaces another, which is the purpose here. Sets warnAlways meanwhile: the
/// warning that PyTorch shows only once belongs to somebody else.
struct WithoutWarnings final : c10::WarningHandler {
  const bool always = c10::WarningUtils::get_warnAlways();
  c10::WarningUtils::WarningHandlerGuard guard{this};

  WithoutWarnings() {
    c10::WarningUtils::set_warnAlways(true);
  }
  ~WithoutWarnings() override {
    c10::WarningUtils::set_warnAlways(always);
  }
  void process(const c10::Warning& /*warning*/) override {}
};

std::mutex mutex;

/// Never destroyed: at exit, threads may still run ops.
auto& libraries = *new std::vector<std::unique_ptr<torch::Library> >;

} // namespace

bool install() {
  const std::lock_guard<std::mutex> lock(mutex);
  if (is_installed) {
    return false;
  }
  KernelsOnCPU::check_originals();
#ifdef LEAKYRELU_EXT_WITH_CUDA
  KernelsOnCUDA::check_originals();
#endif
  const WithoutWarnings quiet;
  KernelsOnCPU::register_in(libraries);
#ifdef LEAKYRELU_EXT_WITH_CUDA
  KernelsOnCUDA::register_in(libraries);
#endif
  is_installed = true;
  return true;
}

bool uninstall() {
  const std::lock_guard<std::mutex> lock(mutex);
  while (!libraries.empty()) {
    libraries.pop_back();
  }
  return is_installed.exchange(false);
}

} // namespace leakyrelu_ext

#endif
