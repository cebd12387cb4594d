#pragma once
// The table of inner loops that one instruction-set tier offers. Free of ATen.

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>
#include <tuple>

#include "../activation.h"

namespace leakyrelu_ext::cpu {

/// How results reach memory. kStreaming goes past the caches, which spares reading the old contents of each line first.
enum class Stores : bool { kCached, kStreaming };

/// Where streaming stores may begin.
constexpr uintptr_t kStreamingAlignment = 64;

/// Rows of n consecutive elements each. Those of the mask follow each other: with more than one row n is a multiple of
/// kMaskBits.
struct Rows {
  int64_t n;
  int64_t count = 1;
  int64_t input_step = 0; // from one row to the next
  int64_t output_step = 0;
};

/// output may be input, grad_input may be grad_output. Pointers need no alignment, but results with Stores::kStreaming that of
/// kStreamingAlignment. The forward's mask may be nullptr: not wanted.
template <typename T>
struct Loops {
  void (*forward)(const T* input, T* output, uint8_t* mask, Rows rows, opmath_t<T> negative_slope, Stores stores);
  void (*backward)(
      const T* grad_output, const uint8_t* mask, T* grad_input, Rows rows, opmath_t<T> negative_slope, Stores stores);
  /// Rows of elements that lie `stride` apart, to consecutive elements.
  void (*gather)(const T* from, int64_t stride, T* to, Rows rows);
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
const Tier& avx512_bf16_tier();
#elif defined(__aarch64__) && defined(__GNUC__)
#define LEAKYRELU_EXT_NEON_TIER
const Tier& neon_tier();
#endif

} // namespace leakyrelu_ext::cpu
