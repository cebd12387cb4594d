// Every schema of leakyrelu_ext, in one place.
//
// mask: one bit per element (1 where input > 0), LSB first, in the memory order of a dense tensor with the output's
// strides; uint8 of shape (ceil(numel / 8),). output_strides: the strides of that dense tensor, None if it is contiguous.

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
  // For the sole owner of grad_output, which is dense in the mask's order; not differentiable.
  m.def("leaky_relu_backward_(Tensor(a!) grad_output, Tensor mask, float negative_slope) -> ()", tags);
}
