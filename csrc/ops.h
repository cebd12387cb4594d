#pragma once
// Handles for calling the ops through the dispatcher. Schemas: ops.cpp.

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>

#include <array>
#include <optional>
#include <tuple>

namespace leakyrelu_ext::ops {

template <typename Signature>
c10::TypedOperatorHandle<Signature> find(const char* name) {
  return c10::Dispatcher::singleton().findSchemaOrThrow(name, "").typed<Signature>();
}

inline const auto& leaky_relu() {
  static const auto op = find<at::Tensor(const at::Tensor&, double)>("leakyrelu_ext::leaky_relu");
  return op;
}

inline const auto& leaky_relu_() {
  static const auto op = find<at::Tensor&(at::Tensor&, double)>("leakyrelu_ext::leaky_relu_");
  return op;
}

inline const auto& leaky_relu_forward() {
  static const auto op =
      find<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, double)>("leakyrelu_ext::leaky_relu_forward");
  return op;
}

inline const auto& leaky_relu_forward_() {
  static const auto op = find<at::Tensor(at::Tensor&, double)>("leakyrelu_ext::leaky_relu_forward_");
  return op;
}

inline const auto& leaky_relu_backward() {
  static const auto op = find<at::Tensor(const at::Tensor&, const at::Tensor&, double, at::OptionalSymIntArrayRef)>(
      "leakyrelu_ext::leaky_relu_backward");
  return op;
}

inline const auto& leaky_relu_backward_() {
  static const auto op = find<void(at::Tensor&, const at::Tensor&, double)>("leakyrelu_ext::leaky_relu_backward_");
  return op;
}

#define LEAKYRELU_EXT_BIAS_PARAMETERS                                                                                 \
  const std::optional<at::Tensor>&, double, const std::optional<at::Tensor>&, int64_t, double, std::optional<double>, \
      double

inline const auto& bias_leaky_relu() {
  static const auto op =
      find<at::Tensor(const at::Tensor&, LEAKYRELU_EXT_BIAS_PARAMETERS)>("leakyrelu_ext::bias_leaky_relu");
  return op;
}

inline const auto& bias_leaky_relu_() {
  static const auto op =
      find<at::Tensor&(at::Tensor&, LEAKYRELU_EXT_BIAS_PARAMETERS)>("leakyrelu_ext::bias_leaky_relu_");
  return op;
}

inline const auto& bias_leaky_relu_forward() {
  static const auto op = find<std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, LEAKYRELU_EXT_BIAS_PARAMETERS)>(
      "leakyrelu_ext::bias_leaky_relu_forward");
  return op;
}

inline const auto& bias_leaky_relu_forward_() {
  static const auto op =
      find<at::Tensor(at::Tensor&, LEAKYRELU_EXT_BIAS_PARAMETERS)>("leakyrelu_ext::bias_leaky_relu_forward_");
  return op;
}

#undef LEAKYRELU_EXT_BIAS_PARAMETERS

inline const auto& bias_leaky_relu_backward() {
  static const auto op = find<std::tuple<at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, double, at::OptionalSymIntArrayRef, double, double, int64_t, at::ScalarType,
      std::array<bool, 2>)>("leakyrelu_ext::bias_leaky_relu_backward");
  return op;
}

inline const auto& bias_leaky_relu_backward_() {
  static const auto op =
      find<at::Tensor(at::Tensor&, const at::Tensor&, double, double, double, int64_t, at::ScalarType, bool)>(
          "leakyrelu_ext::bias_leaky_relu_backward_");
  return op;
}

#define LEAKYRELU_EXT_NORM_PARAMETERS                                                                   \
  const std::optional<at::Tensor>&, const std::optional<at::Tensor>&, const std::optional<at::Tensor>&, \
      const std::optional<at::Tensor>&, const std::optional<at::Tensor>&, int64_t, bool, double, double, double

inline const auto& norm_leaky_relu() {
  static const auto op =
      find<at::Tensor(const at::Tensor&, LEAKYRELU_EXT_NORM_PARAMETERS)>("leakyrelu_ext::norm_leaky_relu");
  return op;
}

inline const auto& norm_leaky_relu_forward() {
  static const auto op =
      find<std::tuple<at::Tensor, at::Tensor, at::Tensor>(const at::Tensor&, LEAKYRELU_EXT_NORM_PARAMETERS, bool)>(
          "leakyrelu_ext::norm_leaky_relu_forward");
  return op;
}

#undef LEAKYRELU_EXT_NORM_PARAMETERS

inline const auto& norm_leaky_relu_backward() {
  static const auto op = find<std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>(
      const at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, const at::Tensor&,
      int64_t, bool, double, double, std::array<bool, 4>)>("leakyrelu_ext::norm_leaky_relu_backward");
  return op;
}

inline const auto& norm_leaky_relu_backward_() {
  static const auto op = find<std::tuple<at::Tensor, at::Tensor, at::Tensor>(
      at::Tensor&, const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&, const at::Tensor&, int64_t,
      bool, double, double, std::array<bool, 3>)>("leakyrelu_ext::norm_leaky_relu_backward_");
  return op;
}

} // namespace leakyrelu_ext::ops
