// float, and bfloat16 computed in float, with AVX-512. Included, like loop_templates.h, once the target instructions are set.

namespace leakyrelu_ext::cpu {
namespace {

/// 16 elements of a 16-bit dtype as they are in memory.
struct HalfBits {
  static __m256i load(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
  }
  static void store(void* to, __m256i r) {
    _mm256_storeu_si256(static_cast<__m256i*>(to), r);
  }
  static void stream(void* to, __m256i r) {
    _mm256_stream_si256(static_cast<__m256i*>(to), r);
  }
};

struct FloatLanes {
  using scalar_t = float;
  using Bits = uint16_t;
  using Register = __m512;
  using Predicate = __mmask16;
  using Slope = float;
  static constexpr int64_t width = 16;

  static Register load(const float* from) {
    return _mm512_loadu_ps(from);
  }
  static void store(float* to, Register r) {
    _mm512_storeu_ps(to, r);
  }
  static void stream(float* to, Register r) {
    _mm512_stream_ps(to, r);
  }
  static void finish_streaming() {
    _mm_sfence();
  }
  static Predicate positive(Register r) {
    return _mm512_cmp_ps_mask(r, _mm512_setzero_ps(), _CMP_GT_OQ);
  }
  static Bits to_bits(Predicate p) {
    return p;
  }
  static Predicate from_bits(Bits bits) {
    return bits;
  }
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    return _mm512_mask_mul_ps(r, _knot_mask16(p), r, _mm512_set1_ps(slope));
  }

  static Register load_opmath(const float* from) {
    return _mm512_loadu_ps(from);
  }
  static void store_opmath(float* to, Register r) {
    _mm512_storeu_ps(to, r);
  }
  static Register broadcast(float value) {
    return _mm512_set1_ps(value);
  }
  static Register add(Register a, Register b) {
    return _mm512_add_ps(a, b);
  }
  static Register multiply(Register a, Register b) {
    return _mm512_mul_ps(a, b);
  }
  static Predicate within(Register r, float bound) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(r), _mm512_set1_ps(bound), _CMP_LE_OQ);
  }
  static Register clamp(Register r, float bound) {
    // The second operand is the result if one is NaN.
    return _mm512_max_ps(_mm512_set1_ps(-bound), _mm512_min_ps(_mm512_set1_ps(bound), r));
  }
  static Register keep(Predicate p, Register r) {
    return _mm512_maskz_mov_ps(p, r);
  }
  static float sum(Register r) {
    return _mm512_reduce_add_ps(r);
  }
};

/// 16-bit elements computed in float.
struct WideBFloat16Lanes : FloatLanes {
  using scalar_t = c10::BFloat16;

  static __m256i round(Register r) {
    const __m512i bits = _mm512_castps_si512(r);
    const __m512i lsb = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(lsb, _mm512_set1_epi32(0x7fff)));
    // A NaN's payload would carry over into another number.
    const __mmask16 nan = _mm512_cmp_ps_mask(r, r, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(
        _mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc00000)), 16));
  }
  static Register load(const c10::BFloat16* from) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(HalfBits::load(from)), 16));
  }
  static void store(c10::BFloat16* to, Register r) {
    HalfBits::store(to, round(r));
  }
  static void stream(c10::BFloat16* to, Register r) {
    HalfBits::stream(to, round(r));
  }
};

} // namespace
} // namespace leakyrelu_ext::cpu
