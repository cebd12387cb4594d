// Chooses the instruction-set tier.

#include "active_tier.h"

#include <ATen/Version.h>
#include <c10/util/Exception.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace leakyrelu_ext::cpu {
namespace {

/// The tiers that this CPU has and at::get_cpu_capability() allows, best last.
std::vector<const Tier*> available_tiers() {
  std::vector<const Tier*> tiers{&generic_tier()};
#if defined(LEAKYRELU_EXT_X86_TIERS)
  const std::string capability = at::get_cpu_capability();
  if ((capability == "AVX2" || capability == "AVX512") && __builtin_cpu_supports("avx2") &&
      __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    tiers.push_back(&avx2_tier());
    if (capability == "AVX512" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
      tiers.push_back(&avx512_tier());
      if (__builtin_cpu_supports("avx512bf16")) {
        tiers.push_back(&avx512_bf16_tier());
      }
    }
  }
#elif defined(LEAKYRELU_EXT_NEON_TIER)
  tiers.push_back(&neon_tier());
#endif
  return tiers;
}

const Tier& choose_tier() {
  const auto tiers = available_tiers();
  const char* wish = std::getenv("LEAKYRELU_EXT_CPU_TIER");
  if (wish == nullptr || *wish == '\0') {
    return *tiers.back();
  }
  std::string names;
  for (const Tier* tier : tiers) {
    if (wish == std::string(tier->name)) {
      return *tier;
    }
    names += names.empty() ? tier->name : std::string(", ") + tier->name;
  }
  TORCH_CHECK_VALUE(
      false, "environment variable LEAKYRELU_EXT_CPU_TIER must be one of ", names,
      " (what this CPU and ATEN_CPU_CAPABILITY allow), got '", wish, "'");
}

} // namespace

const Tier& active_tier() {
  static const Tier& tier = choose_tier();
  return tier;
}

const Tier& tier_for_few() {
#if defined(LEAKYRELU_EXT_X86_TIERS)
  static const char* wish = std::getenv("LEAKYRELU_EXT_CPU_TIER");
  static const bool slowed = &active_tier() == &avx512_tier() && (wish == nullptr || *wish == '\0');
  return slowed ? avx2_tier() : active_tier();
#else
  return active_tier();
#endif
}

bool flushes_subnormals() {
#if defined(LEAKYRELU_EXT_X86_TIERS)
  constexpr unsigned denormals_are_zeros = 0x40;
  return (__builtin_ia32_stmxcsr() & denormals_are_zeros) != 0;
#elif defined(LEAKYRELU_EXT_NEON_TIER)
  uint64_t control = 0;
  __asm__("mrs %0, fpcr" : "=r"(control));
  return (control >> 24 & 1) != 0;
#else
  return false;
#endif
}

} // namespace leakyrelu_ext::cpu
