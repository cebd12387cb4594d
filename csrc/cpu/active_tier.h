#pragma once

#include "loops.h"

namespace leakyrelu_ext::cpu {

/// The best tier that this CPU has and at::get_cpu_capability() (and so ATEN_CPU_CAPABILITY) allows, or the one that
/// LEAKYRELU_EXT_CPU_TIER names among those. Fixed at first use. Raises ValueError for another name.
const Tier& active_tier();

/// True if this thread takes subnormal floats for zero (torch.set_flush_denormal).
bool flushes_subnormals();

/// The loops to use now: those of the active tier, but where subnormals count as zero bfloat16 must be compared as float, and
/// the other tiers compare its bits.
template <typename T>
const Loops<T>& active_loops() {
  const bool generic = std::is_same_v<T, c10::BFloat16> && flushes_subnormals();
  return std::get<Loops<T>>((generic ? generic_tier() : active_tier()).loops);
}

} // namespace leakyrelu_ext::cpu
