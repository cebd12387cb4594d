// bfloat16 with AVX-512: 32 elements are kept as in memory; only scaled values are computed in float.
// Include after setting the target instructions.

namespace leakyrelu_ext::cpu {
namespace {

struct BFloat16Lanes {
  using scalar_t = c10::BFloat16;
  using Bits = uint32_t;
  using Register = __m512i;
  using Predicate = __mmask32;
  using Slope = float;
  static constexpr int64_t width = 32;

  static Register load(const c10::BFloat16* from) {
    return _mm512_loadu_si512(from);
  }
  static void store(c10::BFloat16* to, Register r) {
    _mm512_storeu_si512(to, r);
  }
  static void stream(c10::BFloat16* to, Register r) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), r);
  }
  static void finish_streaming() {
    _mm_sfence();
  }
  static Predicate positive(Register r) {
    // The bit patterns 1 … infinity are positive. Minus 1, zero is the largest; NaN and negatives exceed infinity.
    return _mm512_cmplt_epu16_mask(_mm512_sub_epi16(r, _mm512_set1_epi16(1)), _mm512_set1_epi16(0x7f80));
  }
  static Bits to_bits(Predicate p) {
    return p;
  }
  static Predicate from_bits(Bits bits) {
    return bits;
  }
  static Register scale_unless(Predicate p, Register r, Slope slope) {
    // A bfloat16 is the upper half of a float: a shift and a mask spread even and odd elements, without crossing lanes.
    constexpr __mmask32 odds = 0xAAAAAAAA;
    const __m512 factor = _mm512_set1_ps(slope);
    const __m512 even = _mm512_castsi512_ps(_mm512_slli_epi32(r, 16));
    const __m512 odd = _mm512_castsi512_ps(_mm512_maskz_mov_epi16(odds, r));
    const __m512i even_scaled = _mm512_castps_si512(_mm512_mul_ps(even, factor));
    const __m512i odd_scaled = _mm512_castps_si512(_mm512_mul_ps(odd, factor));
    const __m512i upper = _mm512_mask_mov_epi16(_mm512_srli_epi32(even_scaled, 16), odds, odd_scaled);
    const __m512i lower = _mm512_mask_mov_epi16(even_scaled, odds, _mm512_slli_epi32(odd_scaled, 16));
    // Round to nearest, ties to even: up if lower + lsb > 0x8000. NaN stays NaN: here its lower half is zero, so
    // nothing carries.
    const __m512i one = _mm512_set1_epi16(1);
    const __m512i sum = _mm512_adds_epu16(lower, _mm512_and_si512(upper, one));
    const __mmask32 up = _mm512_cmpgt_epu16_mask(sum, _mm512_set1_epi16(-0x8000));
    return _mm512_mask_mov_epi16(_mm512_mask_add_epi16(upper, up, upper, one), p, r);
  }
};

} // namespace
} // namespace leakyrelu_ext::cpu
