#pragma once
// The table of inner loops that one instruction-set tier offers. Free of ATen.

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>
#include <tuple>

#include "../activation.h"

namespace leakyrelu_ext::cpu {

/// Loops over n consecutive elements. output may be input, grad_input may be grad_output; pointers need no alignment.
template <typename T>
struct Loops {
  void (*forward)(const T* input, T* output, int64_t n, opmath_t<T> negative_slope);
  void (*forward_with_mask)(const T* input, T* output, uint8_t* mask, int64_t n, opmath_t<T> negative_slope);
  void (*backward)(const T* grad_output, const uint8_t* mask, T* grad_input, int64_t n, opmath_t<T> negative_slope);
};

struct Tier {
  const char* name;
  std::tuple<Loops<double>, Loops<float>, Loops<c10::Half>, Loops<c10::BFloat16>> loops;
};

const Tier& generic_tier();
#if defined(__x86_64__) && defined(__GNUC__)
#define LEAKYRELU_EXT_X86_TIERS
const Tier& avx2_tier();
const Tier& avx512_tier();
#endif

/// The tier that at::get_cpu_capability() (and so ATEN_CPU_CAPABILITY) asks for, if this CPU has it. Fixed at first use.
const Tier& active_tier();

} // namespace leakyrelu_ext::cpu
