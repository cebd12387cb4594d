// The Python module _C: entry points with less overhead than torch.ops, and build_info().

#include <ATen/core/PythonFallbackKernel.h>
#include <ATen/ops/leaky_relu.h>
#include <c10/core/impl/TorchDispatchModeTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_cpp_function.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/csrc/utils/python_arg_parser.h>
#include <torch/version.h>

#include "autograd.h"
#include "bias_composite.h"
#include "checks.h"
#include "composite.h"
#include "cpu/active_tier.h"
#include "ops.h"
#include "stats.h"

namespace leakyrelu_ext {
namespace {

/// Tracers and tensors that rewrite ops below Python know ATen's, not ours.
bool wants_aten(const at::Tensor& input) {
  return input.unsafeGetTensorImpl()->is_python_dispatch() || c10::impl::TorchDispatchModeTLS::any_modes_set() ||
      torch::jit::tracer::isTracing();
}

PyObject* run(at::Tensor input, const at::Scalar& negative_slope) {
  at::Tensor output;
  {
    pybind11::gil_scoped_release no_gil;
    if (wants_aten(input)) {
      output = at::leaky_relu(input, negative_slope);
    } else {
      check_layout(input, "leaky_relu");
      output = ops::leaky_relu().call(input, negative_slope.toDouble());
    }
  }
  return THPVariable_Wrap(std::move(output));
}

PyObject* run_(at::Tensor input, const at::Scalar& negative_slope) {
  {
    pybind11::gil_scoped_release no_gil;
    if (wants_aten(input)) {
      composite::leaky_relu_(input, negative_slope);
    } else {
      check_layout(input, "leaky_relu_");
      ops::leaky_relu_().call(input, negative_slope.toDouble());
    }
  }
  return THPVariable_Wrap(std::move(input));
}

/// Arguments that are not plainly (Tensor, float): PyTorch's own parser converts them or words the TypeError.
PyObject* parse_and_run(
    torch::PythonArgParser& parser,
    PyObject* const* args,
    Py_ssize_t count,
    PyObject* (*run_op)(at::Tensor, const at::Scalar&)) {
  const auto packed = pybind11::reinterpret_steal<pybind11::tuple>(PyTuple_New(count));
  for (Py_ssize_t i = 0; i < count; ++i) {
    PyTuple_SET_ITEM(packed.ptr(), i, Py_NewRef(args[i]));
  }
  torch::ParsedArgs<2> parsed_args;
  auto parsed = parser.parse(packed.ptr(), nullptr, parsed_args);
  return run_op(parsed.tensor(0), parsed.scalar(1));
}

bool plain(PyObject* const* args, Py_ssize_t count) {
  return count == 2 && THPVariable_Check(args[0]) && PyFloat_Check(args[1]);
}

PyObject* leaky_relu(PyObject* /*module*/, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (C10_LIKELY(plain(args, count))) {
    return run(THPVariable_Unpack(args[0]), PyFloat_AS_DOUBLE(args[1]));
  }
  static torch::PythonArgParser parser({"leaky_relu(Tensor input, Scalar negative_slope)"}, /*traceable=*/true);
  return parse_and_run(parser, args, count, run);
  END_HANDLE_TH_ERRORS
}

PyObject* leaky_relu_(PyObject* /*module*/, PyObject* const* args, Py_ssize_t count) {
  HANDLE_TH_ERRORS
  if (C10_LIKELY(plain(args, count))) {
    return run_(THPVariable_Unpack(args[0]), PyFloat_AS_DOUBLE(args[1]));
  }
  static torch::PythonArgParser parser({"leaky_relu_(Tensor input, Scalar negative_slope)"}, /*traceable=*/true);
  return parse_and_run(parser, args, count, run_);
  END_HANDLE_TH_ERRORS
}

PyObject* run_family(PyObject* args, PyObject* kwargs, bool inplace) {
  static torch::PythonArgParser parser(
      {"bias_leaky_relu(Tensor input, Tensor? bias, double negative_slope, Tensor? residual, int64_t dim, double gain, "
       "double? clamp, double dropout_p)"},
      /*traceable=*/true);
  torch::ParsedArgs<8> parsed_args;
  auto parsed = parser.parse(args, kwargs, parsed_args);
  at::Tensor input = parsed.tensor(0);
  const auto bias = parsed.optionalTensor(1);
  const double negative_slope = parsed.toDouble(2);
  const auto residual = parsed.optionalTensor(3);
  const int64_t dim = parsed.toInt64(4);
  const double gain = parsed.toDouble(5);
  const auto clamp = parsed.toDoubleOptional(6);
  const double dropout_p = parsed.toDouble(7);
  at::Tensor output;
  {
    pybind11::gil_scoped_release no_gil;
    const FamilyArguments arguments{bias, negative_slope, residual, dim, gain, clamp, dropout_p};
    const bool aten =
        wants_aten(input) || (bias.has_value() && wants_aten(*bias)) || (residual.has_value() && wants_aten(*residual));
    if (!aten) {
      check_layouts(input, arguments, inplace ? "bias_leaky_relu_" : "bias_leaky_relu");
    }
    if (inplace) {
      output = aten ? composite::bias_leaky_relu_(input, arguments) : arguments.call(ops::bias_leaky_relu_(), input);
    } else {
      output = aten ? composite::bias_leaky_relu(input, arguments) : arguments.call(ops::bias_leaky_relu(), input);
    }
  }
  return THPVariable_Wrap(std::move(output));
}

PyObject* bias_leaky_relu(PyObject* /*module*/, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  return run_family(args, kwargs, /*inplace=*/false);
  END_HANDLE_TH_ERRORS
}

PyObject* bias_leaky_relu_(PyObject* /*module*/, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  return run_family(args, kwargs, /*inplace=*/true);
  END_HANDLE_TH_ERRORS
}

PyCFunction as_function(PyObject* (*function)(PyObject*, PyObject*, PyObject*)) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

// Plain CPython calls: pybind11's argument conversion would cost a third of a small tensor's forward.
PyMethodDef methods[] = {
    {"leaky_relu", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(leaky_relu)), METH_FASTCALL, nullptr},
    {"leaky_relu_", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(leaky_relu_)), METH_FASTCALL, nullptr},
    {"bias_leaky_relu", as_function(bias_leaky_relu), METH_VARARGS | METH_KEYWORDS, nullptr},
    {"bias_leaky_relu_", as_function(bias_leaky_relu_), METH_VARARGS | METH_KEYWORDS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

/// Gives grad_fn a Python type of its own. AOTAutograd takes a node without one for a custom autograd.Function's, and then
/// returns the result of an in-place op as a copy.
template <const std::type_info& (*type_of_node)()>
pybind11::handle register_node_type(const char* name) {
  static PyTypeObject type;
  torch::autograd::_initFunctionPyTypeObject(type, name, /*function_properties=*/nullptr, /*function_methods=*/nullptr);
  torch::autograd::registerCppFunction(type_of_node(), &type);
  return reinterpret_cast<PyObject*>(&type);
}

pybind11::dict build_info() {
  pybind11::dict info;
  info["torch_built_with"] = TORCH_VERSION;
#if defined(__clang__)
  info["compiler"] = "clang " __clang_version__;
#else
  info["compiler"] = "gcc " __VERSION__;
#endif
  info["cpu_tier"] = cpu::active_tier().name;
#ifdef _OPENMP
  info["openmp"] = true;
#else
  info["openmp"] = false;
#endif
#ifdef LEAKYRELU_EXT_WITH_CUDA
  info["cuda"] = LEAKYRELU_EXT_WITH_CUDA;
  info["cuda_archs"] = LEAKYRELU_EXT_CUDA_ARCHS;
#else
  info["cuda"] = pybind11::none();
  info["cuda_archs"] = pybind11::none();
#endif
  return info;
}

pybind11::dict stats_of_process() {
  pybind11::dict counts;
  counts["backward_calls"] = stats::backward_calls.load();
  counts["backward_into_grad_output"] = stats::backward_into_grad_output.load();
  counts["huge_page_requests"] = stats::huge_page_requests.load();
  counts["streaming_calls"] = stats::streaming_calls.load();
  return counts;
}

} // namespace
} // namespace leakyrelu_ext

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  if (PyModule_AddFunctions(m.ptr(), leakyrelu_ext::methods) != 0) {
    throw pybind11::error_already_set();
  }
  m.add_object(
      leakyrelu_ext::kNodeName, leakyrelu_ext::register_node_type<leakyrelu_ext::node_type>(leakyrelu_ext::kNodeName));
  m.add_object(
      leakyrelu_ext::kBiasNodeName,
      leakyrelu_ext::register_node_type<leakyrelu_ext::bias_node_type>(leakyrelu_ext::kBiasNodeName));
  m.def("build_info", &leakyrelu_ext::build_info);
  m.def("stats", &leakyrelu_ext::stats_of_process);
}
