#pragma once

#include "loops/loops.h"

namespace leakyrelu_ext::cpu {

/// The best tier that this CPU has and at::get_cpu_capability() (and so ATEN_CPU_CAPABILITY) allows, or the one that
/// LEAKYRELU_EXT_CPU_TIER names among those. Fixed at first use. Raises ValueError for another name.
const Tier& active_tier();

/// The tier for calls of few elements, unless LEAKYRELU_EXT_CPU_TIER names one for all. Processors with AVX-512 and without its
/// bfloat16 instructions are those whose clock 512-bit instructions slow down, that of everything else on the core with it:
/// they get AVX2's loops.
const Tier& tier_for_few();
constexpr int64_t kFew = 4096;

/// True if this thread takes subnormal floats for zero (torch.set_flush_denormal).
bool flushes_subnormals();

/// The loops to use now for so many elements: those of their tier, but where subnormals count as zero bfloat16 must be
/// compared as float, and the other tiers compare its bits.
template <typename T>
const Loops<T>& active_loops(int64_t numel) {
  const bool generic = std::is_same_v<T, c10::BFloat16> && flushes_subnormals();
  const Tier& tier = generic ? generic_tier() : numel < kFew ? tier_for_few() : active_tier();
  return std::get<Loops<T>>(tier.loops);
}

} // namespace leakyrelu_ext::cpu
