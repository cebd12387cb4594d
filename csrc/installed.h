#pragma once
// Runs PyTorch's own aten::leaky_relu and leaky_relu_ on our kernels, in the whole process.

namespace leakyrelu_ext {

/// Registers our kernels. Returns false if they are registered already.
bool install();

/// Restores PyTorch's own kernels. Returns false if ours were not registered.
bool uninstall();

bool installed();

} // namespace leakyrelu_ext
