// The Python module _C: entry points with less overhead than torch.ops, and build_info().

#include <ATen/core/PythonFallbackKernel.h>
#include <ATen/ops/leaky_relu.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_cpp_function.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/jit/frontend/tracer.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/csrc/utils/python_arg_parser.h>
#include <torch/version.h>

#include "autograd/bias_leaky_relu.h"
#include "autograd/interception.h"
#include "autograd/leaky_relu.h"
#include "autograd/route.h"
#include "composite/bias_leaky_relu.h"
#include "composite/leaky_relu.h"
#include "composite/norm_leaky_relu.h"
#include "cpu/active_tier.h"
#include "installed.h"
#include "ops.h"
#include "stats.h"
#include "tensor/checks.h"

namespace leakyrelu_ext {
namespace {

/// True under tracers and for tensors that rewrite ops below Python: they know ATen's ops, not ours.
bool wants_aten(const at::Tensor& input) {
  return input.unsafeGetTensorImpl()->is_python_dispatch() || recorder_active() || torch::jit::tracer::isTracing();
}

/// Runs under an observer mode, which sees aten's op.
at::Tensor observed_leaky_relu(const at::Tensor& input, double negative_slope) {
  return route(input) == Route::record ? record_leaky_relu(input, negative_slope, /*under_aten=*/false)
                                       : at::leaky_relu(input, negative_slope);
}

void observed_leaky_relu_(at::Tensor& input, double negative_slope) {
  if (route(input) == Route::record) {
    torch::autograd::check_inplace(input, /*requires_grad=*/true);
    record_leaky_relu_(input, negative_slope, /*under_aten=*/false);
  } else {
    composite::leaky_relu_(input, negative_slope);
  }
}

PyObject* run(at::Tensor input, const at::Scalar& negative_slope) {
  at::Tensor output;
  {
    pybind11::gil_scoped_release no_gil;
    if (wants_aten(input)) {
      output = at::leaky_relu(input, negative_slope);
    } else {
      check_layout(input, "leaky_relu");
      const double slope = negative_slope.toDouble();
      output = observer_active() ? observed_leaky_relu(input, slope) : ops::leaky_relu().call(input, slope);
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
      const double slope = negative_slope.toDouble();
      observer_active() ? observed_leaky_relu_(input, slope) : void(ops::leaky_relu_().call(input, slope));
    }
  }
  return THPVariable_Wrap(std::move(input));
}

/// For arguments other than (Tensor, float): PyTorch's own parser converts them or words the TypeError.
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

/// Parses refused arguments again with the names that callers have to use, so that the error message has them.
void refuse_by_name(PyObject* args) {
  static torch::PythonArgParser parser(
      {"bias_leaky_relu(Tensor input, Tensor? bias, double negative_slope, *, Tensor? residual, int64_t dim, double gain, "
       "double? clamp, double dropout_p)"},
      /*traceable=*/true);
  constexpr Py_ssize_t kPositional = 3;
  constexpr const char* kNames[] = {"residual", "dim", "gain", "clamp", "dropout_p"};
  const auto positional = pybind11::reinterpret_steal<pybind11::tuple>(PyTuple_GetSlice(args, 0, kPositional));
  pybind11::dict named;
  for (Py_ssize_t i = kPositional; i < PyTuple_GET_SIZE(args); ++i) {
    named[kNames[i - kPositional]] = pybind11::handle(PyTuple_GET_ITEM(args, i));
  }
  torch::ParsedArgs<8> parsed_args;
  parser.parse(positional.ptr(), named.ptr(), parsed_args);
}

PyObject* run_bias_leaky_relu(PyObject* args, PyObject* kwargs, bool inplace) {
  static torch::PythonArgParser parser(
      {"bias_leaky_relu(Tensor input, Tensor? bias, double negative_slope, Tensor? residual, int64_t dim, double gain, "
       "double? clamp, double dropout_p)"},
      /*traceable=*/true);
  torch::ParsedArgs<8> parsed_args;
  auto parsed = [&] {
    try {
      return parser.parse(args, kwargs, parsed_args);
    } catch (const std::exception&) {
      refuse_by_name(args);
      throw;
    }
  }();
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
    const BiasLeakyReLUArguments arguments{bias, negative_slope, residual, dim, gain, clamp, dropout_p};
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
  return run_bias_leaky_relu(args, kwargs, /*inplace=*/false);
  END_HANDLE_TH_ERRORS
}

PyObject* bias_leaky_relu_(PyObject* /*module*/, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  return run_bias_leaky_relu(args, kwargs, /*inplace=*/true);
  END_HANDLE_TH_ERRORS
}

/// As torch.nn.functional's norms do; their C++ ops compute NaN.
void check_more_than_one(const at::Tensor& input, const char* what, bool per_channel) {
  c10::SymInt count = per_channel && input.dim() > 0 ? input.sym_size(0) : c10::SymInt(1);
  for (int64_t d = 2; d < input.dim(); ++d) {
    count *= input.sym_size(d);
  }
  TORCH_CHECK_VALUE(
      count != 1, "Expected more than 1 ", what, " when training, got input size torch.Size(", input.sym_sizes(), ")");
}

PyObject* run_norm_leaky_relu(const at::Tensor& input, const NormArguments& arguments) {
  at::Tensor output;
  {
    pybind11::gil_scoped_release no_gil;
    output = wants_aten(input) ? composite::norm_leaky_relu(input, arguments)
                               : arguments.call(ops::norm_leaky_relu(), input);
  }
  return THPVariable_Wrap(std::move(output));
}

/// Of the norms with running statistics, whose arguments are the same but for the names.
PyObject* run_with_running_statistics(
    torch::PythonArgParser& parser, PyObject* args, PyObject* kwargs, bool over_batch) {
  torch::ParsedArgs<10> parsed_args;
  auto parsed = parser.parse(args, kwargs, parsed_args);
  const at::Tensor input = parsed.tensor(0);
  const auto running_mean = parsed.optionalTensor(1), running_var = parsed.optionalTensor(2),
             weight = parsed.optionalTensor(3), bias = parsed.optionalTensor(4), residual = parsed.optionalTensor(9);
  const bool use_input_stats = parsed.toBool(5);
  if (use_input_stats) {
    check_more_than_one(input, over_batch ? "value per channel" : "spatial element", /*per_channel=*/over_batch);
  }
  int64_t num_groups = 0;
  if (!over_batch) {
    num_groups = input.dim() < 2 ? 1 : input.sym_size(1).guard_int(__FILE__, __LINE__);
  }
  return run_norm_leaky_relu(
      input,
      {weight, bias, running_mean, running_var, residual, num_groups, use_input_stats, parsed.toDouble(6),
       parsed.toDouble(7), parsed.toDouble(8)});
}

PyObject* batch_norm_leaky_relu(PyObject* /*module*/, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  static torch::PythonArgParser parser(
      {"batch_norm_leaky_relu(Tensor input, Tensor? running_mean, Tensor? running_var, Tensor? weight, Tensor? bias, "
       "bool training, double momentum, double eps, double negative_slope, Tensor? residual)"},
      /*traceable=*/true);
  return run_with_running_statistics(parser, args, kwargs, /*over_batch=*/true);
  END_HANDLE_TH_ERRORS
}

PyObject* instance_norm_leaky_relu(PyObject* /*module*/, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  static torch::PythonArgParser parser(
      {"instance_norm_leaky_relu(Tensor input, Tensor? running_mean, Tensor? running_var, Tensor? weight, Tensor? bias, "
       "bool use_input_stats, double momentum, double eps, double negative_slope, Tensor? residual)"},
      /*traceable=*/true);
  return run_with_running_statistics(parser, args, kwargs, /*over_batch=*/false);
  END_HANDLE_TH_ERRORS
}

PyObject* group_norm_leaky_relu(PyObject* /*module*/, PyObject* args, PyObject* kwargs) {
  HANDLE_TH_ERRORS
  static torch::PythonArgParser parser(
      {"group_norm_leaky_relu(Tensor input, int64_t num_groups, Tensor? weight, Tensor? bias, double eps, "
       "double negative_slope, Tensor? residual)"},
      /*traceable=*/true);
  torch::ParsedArgs<7> parsed_args;
  auto parsed = parser.parse(args, kwargs, parsed_args);
  const at::Tensor input = parsed.tensor(0);
  const int64_t num_groups = parsed.toInt64(1);
  const auto weight = parsed.optionalTensor(2), bias = parsed.optionalTensor(3), residual = parsed.optionalTensor(6);
  TORCH_CHECK(input.dim() >= 2, "Expected at least 2 dimensions for input tensor but received ", input.dim());
  TORCH_CHECK(num_groups > 0, "Expected num groups to be greater than 0, got ", num_groups);
  const c10::SymInt per_group = input.sym_size(0) * input.sym_size(1) / num_groups;
  TORCH_CHECK_VALUE(
      per_group != 1 || input.sym_numel() != input.sym_size(0) * input.sym_size(1),
      "Expected more than 1 value per channel when training, got input size ", input.sym_sizes(), " for ", num_groups,
      " groups");
  const std::optional<at::Tensor> none;
  return run_norm_leaky_relu(
      input,
      {weight, bias, none, none, residual, num_groups, /*use_input_stats=*/true, /*momentum=*/0, parsed.toDouble(4),
       parsed.toDouble(5)});
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
    {"batch_norm_leaky_relu", as_function(batch_norm_leaky_relu), METH_VARARGS | METH_KEYWORDS, nullptr},
    {"instance_norm_leaky_relu", as_function(instance_norm_leaky_relu), METH_VARARGS | METH_KEYWORDS, nullptr},
    {"group_norm_leaky_relu", as_function(group_norm_leaky_relu), METH_VARARGS | METH_KEYWORDS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

torch::autograd::Node& node_of(PyObject* self) {
  return *reinterpret_cast<torch::autograd::THPCppFunction*>(self)->cdata;
}

PyObject* get_saved_negative_slope(PyObject* self, void* /*closure*/) {
  HANDLE_TH_ERRORS
  return PyFloat_FromDouble(saved_negative_slope(node_of(self)));
  END_HANDLE_TH_ERRORS
}

PyObject* get_saved_mask(PyObject* self, void* /*closure*/) {
  HANDLE_TH_ERRORS
  return THPVariable_Wrap(saved_mask(node_of(self)));
  END_HANDLE_TH_ERRORS
}

using namespace torch::autograd; // for the macro's names
PyGetSetDef node_properties[] = {
    THP_FUNCTION_DEFAULT_PROPERTIES,
    {"_saved_mask", get_saved_mask, nullptr, nullptr, nullptr},
    {"_saved_negative_slope", get_saved_negative_slope, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

/// Gives grad_fn a Python type of its own. AOTAutograd would take a node without one for a custom autograd.Function's,
/// and return the result of an in-place op as a copy.
void register_node_type(pybind11::module_& m, const std::type_info& node, const char* name) {
  auto* type = new PyTypeObject{}; // never freed, like PyTorch's own
  torch::autograd::_initFunctionPyTypeObject(*type, name, node_properties, /*function_methods=*/nullptr);
  torch::autograd::registerCppFunction(node, type);
  m.add_object(name, reinterpret_cast<PyObject*>(type));
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
  counts["installed_calls"] = stats::installed_calls.load();
  counts["streaming_calls"] = stats::streaming_calls.load();
  return counts;
}

} // namespace
} // namespace leakyrelu_ext

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  if (PyModule_AddFunctions(m.ptr(), leakyrelu_ext::methods) != 0) {
    throw pybind11::error_already_set();
  }
  using leakyrelu_ext::NodeKind;
  for (const auto kind : {NodeKind::ours, NodeKind::aten, NodeKind::aten_inplace}) {
    leakyrelu_ext::register_node_type(
        m, leakyrelu_ext::node_type(kind), leakyrelu_ext::kNodeNames[static_cast<int>(kind)]);
  }
  leakyrelu_ext::register_node_type(
      m, leakyrelu_ext::bias_leaky_relu_node_type(), leakyrelu_ext::kBiasLeakyReLUNodeName);
  m.def("build_info", &leakyrelu_ext::build_info);
  m.def("stats", &leakyrelu_ext::stats_of_process);
  m.def("install", &leakyrelu_ext::install);
  m.def("uninstall", &leakyrelu_ext::uninstall);
  m.def("installed", &leakyrelu_ext::installed);
}
