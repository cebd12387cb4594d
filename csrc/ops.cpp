// Every schema of leakyrelu_ext, in one place.
//
// mask: one bit per element (1 where input > 0), LSB first, in the memory order of a dense tensor with the output's
// strides; uint8 of shape (ceil(numel / 8),). output_strides: the strides of that tensor, None if it is contiguous.

#include <torch/library.h>

TORCH_LIBRARY(leakyrelu_ext, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def("leaky_relu(Tensor input, float negative_slope=0.01) -> Tensor", tags);
  m.def("leaky_relu_(Tensor(a!) input, float negative_slope=0.01) -> Tensor(a!)", tags);
  m.def("leaky_relu_forward(Tensor input, float negative_slope=0.01) -> (Tensor output, Tensor mask)", tags);
  m.def("leaky_relu_forward_(Tensor(a!) input, float negative_slope=0.01) -> Tensor mask", tags);
  m.def(
      "leaky_relu_backward(Tensor grad_output, Tensor mask, float negative_slope, SymInt[]? output_strides) -> Tensor",
      tags);
  // For callers that alone own grad_output, which is dense in the mask's order. Not differentiable.
  m.def("leaky_relu_backward_(Tensor(a!) grad_output, Tensor mask, float negative_slope) -> ()", tags);

  // dropout(clamp(gain * leaky_relu(input + bias + residual))). With clamp or dropout its mask has a second half: one
  // more bit per element, 1 where a gradient passes, neither clamped nor dropped.
  const std::vector<at::Tag> random{at::Tag::pt2_compliant_tag, at::Tag::nondeterministic_seeded};
  const std::string arguments =
      "Tensor? bias=None, float negative_slope=0.01, Tensor? residual=None, int dim=1, float gain=1.0, "
      "float? clamp=None, float dropout_p=0.0)";
  m.def(("bias_leaky_relu(Tensor input, " + arguments + " -> Tensor").c_str(), random);
  m.def(("bias_leaky_relu_(Tensor(a!) input, " + arguments + " -> Tensor(a!)").c_str(), random);
  m.def(("bias_leaky_relu_forward(Tensor input, " + arguments + " -> (Tensor output, Tensor mask)").c_str(), random);
  m.def(("bias_leaky_relu_forward_(Tensor(a!) input, " + arguments + " -> Tensor mask").c_str(), random);
  // output_mask: which results are wanted; the others are empty. grad_bias: the sum of grad_input over all dimensions
  // but `dim`, of dtype bias_dtype.
  m.def(
      "bias_leaky_relu_backward(Tensor grad_output, Tensor mask, float negative_slope, SymInt[]? output_strides, "
      "float gain, float dropout_p, int dim, ScalarType bias_dtype, bool[2] output_mask) -> "
      "(Tensor grad_input, Tensor grad_bias)",
      tags);
  // See leaky_relu_backward_.
  m.def(
      "bias_leaky_relu_backward_(Tensor(a!) grad_output, Tensor mask, float negative_slope, float gain, float dropout_p, "
      "int dim, ScalarType bias_dtype, bool with_bias) -> Tensor grad_bias",
      tags);

  // leaky_relu(norm(input) + residual). num_groups: 0 for batch norm, else the groups of a sample, each normalized by
  // itself (instance norm: the number of channels). Without use_input_stats, running statistics are the norm's; with it
  // they are updated, if given. statistics: see element/norm_leaky_relu.h. mask: with a residual the signs do not follow
  // from input and statistics; rows of memory (pixels of a channel, or with channels_last channels of a pixel) begin
  // bytes.
  const std::string norm_arguments =
      "Tensor? weight, Tensor? bias, Tensor(a!)? running_mean, Tensor(b!)? running_var, Tensor? residual, "
      "int num_groups, bool use_input_stats, float momentum, float eps, float negative_slope";
  m.def(("norm_leaky_relu(Tensor input, " + norm_arguments + ") -> Tensor").c_str(), tags);
  m.def(
      ("norm_leaky_relu_forward(Tensor input, " + norm_arguments +
       ", bool with_mask) -> (Tensor output, Tensor statistics, Tensor mask)")
          .c_str(),
      tags);
  m.def(
      "norm_leaky_relu_backward(Tensor grad_output, Tensor input, Tensor statistics, Tensor? weight, Tensor mask, "
      "int num_groups, bool use_input_stats, float eps, float negative_slope, bool[4] output_mask) -> "
      "(Tensor grad_input, Tensor grad_weight, Tensor grad_bias, Tensor grad_residual)",
      tags);
  // The same, with grad_input in the memory of grad_output. output_mask: of the results.
  m.def(
      "norm_leaky_relu_backward_(Tensor(a!) grad_output, Tensor input, Tensor statistics, Tensor? weight, Tensor mask, "
      "int num_groups, bool use_input_stats, float eps, float negative_slope, bool[3] output_mask) -> "
      "(Tensor grad_weight, Tensor grad_bias, Tensor grad_residual)",
      tags);
}
