// AVX-512 F/BW/DQ/VL: a mask register holds bits of the mask as they are in memory.
// avx512_fp16 is not used: its multiplication would round slope and product to float16, where ATen (and so the drop-in)
// computes in float. The conversions between the two are already in F16C.

#include "loops.h"

#ifdef LEAKYRELU_EXT_X86_TIERS

#include <immintrin.h>

#include "target.h"

#if defined(__GNUC__) && !defined(__clang__)
// False positives in GCC 12's own intrinsics headers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif

LEAKYRELU_EXT_TARGET_BEGIN("avx,avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")

#include "bfloat16_avx512.h"
#include "float_avx512.h"
#include "templates.h"

namespace leakyrelu_ext::cpu {
namespace {

/// 16-bit elements computed in float.
struct WideHalfLanes : FloatLanes {
  using scalar_t = c10::Half;

  static Register load(const c10::Half* from) {
    return _mm512_cvtph_ps(HalfBits::load(from));
  }
  static void store(c10::Half* to, Register r) {
    HalfBits::store(to, _mm512_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT));
  }
  static void stream(c10::Half* to, Register r) {
    HalfBits::stream(to, _mm512_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT));
  }
  static Register load_first(const c10::Half* from, int64_t n) {
    return _mm512_cvtph_ps(HalfBits::load_first(from, n));
  }
  static void store_first(c10::Half* to, Register r, int64_t n) {
    HalfBits::store_first(to, _mm512_cvtps_ph(r, _MM_FROUND_TO_NEAREST_INT), n);
  }
};

/// Elements are kept as in memory; only scaled values are computed, in a register twice as wide.
struct HalfLanes : HalfBits {
  using scalar_t = c10::Half;
  using Bits = uint16_t;
  using Register = __m256i;
  using Predicate = __mmask16;
  using Slope = float;
  static constexpr int64_t width = 16;

  static void finish_streaming() {
    _mm_sfence();
  }
  static Predicate positive(Register r) {
    // The bit patterns 1 … infinity are positive. Minus 1, zero is the largest; NaN and negatives exceed infinity.
    return _mm256_cmplt_epu16_mask(_mm256_sub_epi16(r, _mm256_set1_epi16(1)), _mm256_set1_epi16(0x7c00));
  }
  static Bits to_bits(Predicate p) {
    return p;
  }
  static Predicate from_bits(Bits bits) {
    return bits;
  }
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    return _mm512_mask_cvtps_ph(
        r, _knot_mask16(p), _mm512_mul_ps(_mm512_cvtph_ps(r), _mm512_set1_ps(slope)), _MM_FROUND_TO_NEAREST_INT);
  }
};

struct DoubleLanes {
  using scalar_t = double;
  using Bits = uint8_t;
  using Register = __m512d;
  using Predicate = __mmask8;
  using Slope = double;
  static constexpr int64_t width = 8;

  static Register load(const double* from) {
    return _mm512_loadu_pd(from);
  }
  static void store(double* to, Register r) {
    _mm512_storeu_pd(to, r);
  }
  static void stream(double* to, Register r) {
    _mm512_stream_pd(to, r);
  }
  static void finish_streaming() {
    _mm_sfence();
  }
  static Predicate positive(Register r) {
    return _mm512_cmp_pd_mask(r, _mm512_setzero_pd(), _CMP_GT_OQ);
  }
  static Bits to_bits(Predicate p) {
    return p;
  }
  static Predicate from_bits(Bits bits) {
    return bits;
  }
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    return _mm512_mask_mul_pd(r, _knot_mask8(p), r, _mm512_set1_pd(slope));
  }

  static Register load_opmath(const double* from) {
    return load(from);
  }
  static void store_opmath(double* to, Register r) {
    store(to, r);
  }
  static Register broadcast(double value) {
    return _mm512_set1_pd(value);
  }
  static Register add(Register a, Register b) {
    return _mm512_add_pd(a, b);
  }
  static Register multiply(Register a, Register b) {
    return _mm512_mul_pd(a, b);
  }
  static Predicate within(Register r, double bound) {
    return _mm512_cmp_pd_mask(_mm512_abs_pd(r), _mm512_set1_pd(bound), _CMP_LE_OQ);
  }
  static Register clamp(Register r, double bound) {
    return _mm512_max_pd(_mm512_set1_pd(-bound), _mm512_min_pd(_mm512_set1_pd(bound), r));
  }
  static Register keep(Predicate p, Register r) {
    return _mm512_maskz_mov_pd(p, r);
  }
  static double sum(Register r) {
    return _mm512_reduce_add_pd(r);
  }

  static Register subtract(Register a, Register b) {
    return _mm512_sub_pd(a, b);
  }
  static Register multiply_add(Register a, Register b, Register c) {
    return _mm512_fmadd_pd(a, b, c);
  }
  static Predicate above(Register r, double bound) {
    return _mm512_cmp_pd_mask(r, _mm512_set1_pd(bound), _CMP_GT_OQ);
  }
  static Register load_first(const double* from, int64_t n) {
    return _mm512_maskz_loadu_pd(first_bits<__mmask8>(n), from);
  }
  static void store_first(double* to, Register r, int64_t n) {
    _mm512_mask_storeu_pd(to, first_bits<__mmask8>(n), r);
  }
  static Register load_opmath_first(const double* from, int64_t n) {
    return load_first(from, n);
  }

  using Wide = Register;
  static Wide widen(const Register& r) {
    return r;
  }
  static void add_to(Wide& sum, const Wide& w) {
    sum = add(sum, w);
  }
  static double wide_sum(Wide wide) {
    return sum(wide);
  }
  static void store_wide(double* to, Wide wide) {
    store(to, wide);
  }
};

constexpr Tier kTier{
    "avx512",
    {loops_of<DoubleLanes, DoubleLanes, Random>(), loops_of<FloatLanes, FloatLanes, Random>(),
     loops_of<HalfLanes, WideHalfLanes, Random>(), loops_of<BFloat16Lanes, WideBFloat16Lanes, Random>()}};

} // namespace
} // namespace leakyrelu_ext::cpu

LEAKYRELU_EXT_TARGET_END

const leakyrelu_ext::cpu::Tier& leakyrelu_ext::cpu::avx512_tier() {
  return kTier;
}

#endif // LEAKYRELU_EXT_X86_TIERS
