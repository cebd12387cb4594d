#pragma once
// A call of the CUDA backend under the emulator's eyes.

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

#include "emulator.h"

namespace cuda_on_host {

using Regions = std::vector<Region>;

/// The tensor's elements.
Region region(const char* name, const at::Tensor& tensor, bool readable, bool writable);

/// Two regions; of the same tensor, one.
void add_input_and_output(Regions& regions, const at::Tensor& input, const at::Tensor& output);

/// One call at a time. `regions` is asked for at each launch: until then copy-on-write tensors may move.
void checked(std::function<Regions()> regions, const std::function<void()>& run);

} // namespace cuda_on_host
