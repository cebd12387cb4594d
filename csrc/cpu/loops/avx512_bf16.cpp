// AVX-512 with avx512_bf16: like avx512, but one instruction rounds to bfloat16.

#include "loops.h"

#ifdef LEAKYRELU_EXT_X86_TIERS

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "target.h"

#if defined(__GNUC__) && !defined(__clang__)
// False positives in GCC 12's own intrinsics headers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

LEAKYRELU_EXT_TARGET_BEGIN("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")

#include "bfloat16_avx512.h"
#include "float_avx512.h"
#include "templates.h"

namespace leakyrelu_ext::cpu {
namespace {

constexpr int16_t kMagnitude = 0x7fff; // the magnitude bits of a bfloat16

struct Spread {
  __m512 low, high;
};

/// 32 elements as floats: a bfloat16 is the upper half of a float.
Spread spread(__m512i r) {
  alignas(64) static constexpr uint16_t kLow[32] = {0, 0, 0, 1, 0, 2,  0, 3,  0, 4,  0, 5,  0, 6,  0, 7,
                                                    0, 8, 0, 9, 0, 10, 0, 11, 0, 12, 0, 13, 0, 14, 0, 15};
  constexpr __mmask32 upper = 0xAAAAAAAA;
  const __m512i of_low = _mm512_load_si512(kLow);
  const __m512i of_high = _mm512_add_epi16(of_low, _mm512_set1_epi16(16));
  return {
      _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(upper, of_low, r)),
      _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(upper, of_high, r))};
}

struct NativeBFloat16Lanes : BFloat16Lanes {
  /// The instruction treats subnormal floats as zero; ATen's rounding does not. An element with any of `safe_bits` set
  /// has no subnormal product with the slope.
  struct Slope {
    float value;
    int16_t safe_bits = 0;

    explicit Slope(float slope) : value(slope) {
      const double smallest = std::numeric_limits<float>::min() / std::abs(static_cast<double>(slope));
      if (slope == 0 || std::isnan(slope)) {
        safe_bits = kMagnitude;
      } else if (smallest < std::numeric_limits<float>::max()) {
        // Elements are safe from the next power of two on, which has the bits `threshold`. Any bit from `power` up
        // makes an element at least as large.
        const int exponent = std::max(std::ilogb(smallest) + 1, -126);
        const int threshold = (exponent + 127) << 7;
        int power = 1;
        while (power < threshold) {
          power *= 2;
        }
        safe_bits = static_cast<int16_t>(kMagnitude & ~(power - 1));
      }
    }
  };

  static Register scale_unless(Predicate p, Register r, const Slope& slope) {
    const __mmask32 small = _mm512_mask_testn_epi16_mask(_knot_mask32(p), r, _mm512_set1_epi16(slope.safe_bits));
    if (__builtin_expect(small != 0, 0)) { // mostly zeros, which are safe, too
      if (_mm512_mask_test_epi16_mask(small, r, _mm512_set1_epi16(kMagnitude)) != 0) {
        return BFloat16Lanes::scale_unless(p, r, slope.value);
      }
    }
    const __m512 factor = _mm512_set1_ps(slope.value);
    const auto [low, high] = spread(r);
    return reinterpret_cast<Register>(_mm512_mask_cvtne2ps_pbh(
        reinterpret_cast<__m512bh>(r), _knot_mask32(p), _mm512_mul_ps(high, factor), _mm512_mul_ps(low, factor)));
  }
};

/// 32 elements computed in float, in two registers: one instruction rounds them, one branch checks for subnormals.
struct NativeWideBFloat16Lanes {
  using scalar_t = c10::BFloat16;
  using Bits = uint32_t;
  struct Predicate {
    __mmask16 low, high;
  };
  using Slope = float;
  struct Register {
    __m512 low, high;
  };
  static constexpr int64_t width = 32;

  static Register load(const c10::BFloat16* from) {
    const auto [low, high] = spread(_mm512_loadu_si512(from));
    return {low, high};
  }
  /// Takes registers, no reference: that would keep values in memory on the way around, too.
  [[gnu::noinline]] static __m512i round_subnormals(__m512 low, __m512 high) {
    return _mm512_inserti64x4(_mm512_castsi256_si512(WideBFloat16Lanes::round(low)), WideBFloat16Lanes::round(high), 1);
  }
  static __m512i round(const Register& r) {
    // The instruction treats subnormal floats as zero; ATen's rounding does not.
    constexpr int subnormal = 0x20;
    const __mmask16 low = _mm512_fpclass_ps_mask(r.low, subnormal), high = _mm512_fpclass_ps_mask(r.high, subnormal);
    if (__builtin_expect(!_kortestz_mask16_u8(low, high), 0)) {
      return round_subnormals(r.low, r.high);
    }
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(r.high, r.low));
  }
  static void store(c10::BFloat16* to, const Register& r) {
    _mm512_storeu_si512(to, round(r));
  }
  static void stream(c10::BFloat16* to, const Register& r) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), round(r));
  }
  static void finish_streaming() {
    _mm_sfence();
  }
  static Predicate positive(const Register& r) {
    return {FloatLanes::positive(r.low), FloatLanes::positive(r.high)};
  }
  static Bits to_bits(Predicate p) {
    return _mm512_kunpackw(p.high, p.low);
  }
  static Predicate from_bits(Bits bits) {
    return {static_cast<__mmask16>(bits), static_cast<__mmask16>(bits >> 16)};
  }
  static Register scale_unless(Predicate p, const Register& r, Slope slope) {
    return {FloatLanes::scale_unless(p.low, r.low, slope), FloatLanes::scale_unless(p.high, r.high, slope)};
  }

  static Register load_opmath(const float* from) {
    return {_mm512_loadu_ps(from), _mm512_loadu_ps(from + 16)};
  }
  static void store_opmath(float* to, const Register& r) {
    _mm512_storeu_ps(to, r.low);
    _mm512_storeu_ps(to + 16, r.high);
  }
  static Register broadcast(float value) {
    return {_mm512_set1_ps(value), _mm512_set1_ps(value)};
  }
  static Register add(const Register& a, const Register& b) {
    return {_mm512_add_ps(a.low, b.low), _mm512_add_ps(a.high, b.high)};
  }
  static Register multiply(const Register& a, const Register& b) {
    return {_mm512_mul_ps(a.low, b.low), _mm512_mul_ps(a.high, b.high)};
  }
  static Predicate within(const Register& r, float bound) {
    return {FloatLanes::within(r.low, bound), FloatLanes::within(r.high, bound)};
  }
  static Register clamp(const Register& r, float bound) {
    return {FloatLanes::clamp(r.low, bound), FloatLanes::clamp(r.high, bound)};
  }
  static Register keep(Predicate p, const Register& r) {
    return {FloatLanes::keep(p.low, r.low), FloatLanes::keep(p.high, r.high)};
  }
  static float sum(const Register& r) {
    return FloatLanes::sum(_mm512_add_ps(r.low, r.high));
  }

  static Register subtract(const Register& a, const Register& b) {
    return {_mm512_sub_ps(a.low, b.low), _mm512_sub_ps(a.high, b.high)};
  }
  static Register multiply_add(const Register& a, const Register& b, const Register& c) {
    return {_mm512_fmadd_ps(a.low, b.low, c.low), _mm512_fmadd_ps(a.high, b.high, c.high)};
  }
  static Predicate above(const Register& r, float bound) {
    return {FloatLanes::above(r.low, bound), FloatLanes::above(r.high, bound)};
  }
  static Register load_first(const c10::BFloat16* from, int64_t n) {
    const auto [low, high] = spread(_mm512_maskz_loadu_epi16(first_bits<__mmask32>(n), from));
    return {low, high};
  }
  static void store_first(c10::BFloat16* to, const Register& r, int64_t n) {
    _mm512_mask_storeu_epi16(to, first_bits<__mmask32>(n), round(r));
  }
  static Register load_opmath_first(const float* from, int64_t n) {
    const auto mask = first_bits<__mmask32>(n);
    return {
        _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), from),
        _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), from + 16)};
  }

  struct Wide {
    FloatLanes::Wide low, high;
  };
  static Wide widen(const Register& r) {
    return {FloatLanes::widen(r.low), FloatLanes::widen(r.high)};
  }
  static void add_to(Wide& sum, const Wide& w) {
    FloatLanes::add_to(sum.low, w.low);
    FloatLanes::add_to(sum.high, w.high);
  }
  static double wide_sum(const Wide& sum) {
    return FloatLanes::wide_sum(sum.low) + FloatLanes::wide_sum(sum.high);
  }
  static void store_wide(double* to, const Wide& sum) {
    FloatLanes::store_wide(to, sum.low);
    FloatLanes::store_wide(to + 16, sum.high);
  }
};

} // namespace
} // namespace leakyrelu_ext::cpu

LEAKYRELU_EXT_TARGET_END

const leakyrelu_ext::cpu::Tier& leakyrelu_ext::cpu::avx512_bf16_tier() {
  static const Tier tier = [] {
    Tier of_avx512 = avx512_tier();
    of_avx512.name = "avx512_bf16";
    std::get<Loops<c10::BFloat16>>(of_avx512.loops) = loops_of<NativeBFloat16Lanes, NativeWideBFloat16Lanes, Random>();
    return of_avx512;
  }();
  return tier;
}

#endif // LEAKYRELU_EXT_X86_TIERS
