#pragma once

#include "loops/loops.h"

namespace leakyrelu_ext::cpu {

/// The best tier that this CPU has and at::get_cpu_capability() (and so ATEN_CPU_CAPABILITY) allows, or the one of
/// these that LEAKYRELU_EXT_CPU_TIER names. Fixed at first use. Raises ValueError for any other name.
const Tier& active_tier();

/// The tier for calls with fewer than kFew elements, unless LEAKYRELU_EXT_CPU_TIER names one for all. CPUs with AVX-512
/// but without its bfloat16 instructions lower the core's clock for 512-bit instructions, which slows down everything
/// on that core: they get AVX2's loops.
const Tier& tier_for_few();
constexpr int64_t kFew = 4096;

/// True if this thread treats subnormal floats as zero (torch.set_flush_denormal).
bool flushes_subnormals();

/// The loops for a call with `numel` elements. Where subnormals count as zero, bfloat16 uses the generic tier, which
/// compares floats: the other tiers compare bits.
template <typename T>
const Loops<T>& active_loops(int64_t numel) {
  const bool generic = std::is_same_v<T, c10::BFloat16> && flushes_subnormals();
  const Tier& tier = generic ? generic_tier() : numel < kFew ? tier_for_few() : active_tier();
  return std::get<Loops<T>>(tier.loops);
}

} // namespace leakyrelu_ext::cpu
