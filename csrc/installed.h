#pragma once
// Our kernels under PyTorch's own aten::leaky_relu and leaky_relu_, in the whole process.

namespace leakyrelu_ext {

/// Puts them there. False if they are there already.
bool install();

/// Takes them away: what is left is PyTorch's own. False if they were not there.
bool uninstall();

bool installed();

} // namespace leakyrelu_ext
