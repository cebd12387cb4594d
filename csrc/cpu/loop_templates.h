// The loops of one tier, over a Lanes type that wraps its registers. Included by each loops_<tier>.cpp after it has set its
// target instructions; the anonymous namespace keeps the tiers' instantiations apart (one definition rule).
//
// Lanes: scalar_t; width (a multiple of kMaskBits); Bits (an unsigned integer of width bits); Register, Predicate;
//   load(const scalar_t*) -> Register in opmath; store(scalar_t*, Register);
//   positive(Register) -> Predicate; to_bits(Predicate) -> Bits; from_bits(Bits) -> Predicate;
//   scale_unless(Predicate, Register, opmath) -> Register

namespace leakyrelu_ext::cpu {
namespace {

template <class Lanes, bool with_mask>
void forward_loop(
    const typename Lanes::scalar_t* input,
    typename Lanes::scalar_t* output,
    uint8_t* mask,
    int64_t n,
    opmath_t<typename Lanes::scalar_t> negative_slope) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  int64_t i = 0;
  for (; i + Lanes::width <= n; i += Lanes::width) {
    const auto x = Lanes::load(input + i);
    const auto positive = Lanes::positive(x);
    Lanes::store(output + i, Lanes::scale_unless(positive, x, negative_slope));
    if constexpr (with_mask) {
      const typename Lanes::Bits bits = Lanes::to_bits(positive);
      std::memcpy(mask + i / kMaskBits, &bits, sizeof(bits));
    }
  }
  for (; i < n; i += kMaskBits) {
    uint8_t byte = 0;
    for (int64_t j = 0; j < kMaskBits && i + j < n; ++j) {
      const auto x = static_cast<opmath>(input[i + j]);
      const bool positive = is_positive(x);
      byte |= static_cast<uint8_t>(positive << j);
      output[i + j] = static_cast<typename Lanes::scalar_t>(scale_unless(positive, x, negative_slope));
    }
    if constexpr (with_mask) {
      mask[i / kMaskBits] = byte;
    }
  }
}

template <class Lanes>
void backward_loop(
    const typename Lanes::scalar_t* grad_output,
    const uint8_t* mask,
    typename Lanes::scalar_t* grad_input,
    int64_t n,
    opmath_t<typename Lanes::scalar_t> negative_slope) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  int64_t i = 0;
  for (; i + Lanes::width <= n; i += Lanes::width) {
    typename Lanes::Bits bits;
    std::memcpy(&bits, mask + i / kMaskBits, sizeof(bits));
    const auto grad = Lanes::load(grad_output + i);
    Lanes::store(grad_input + i, Lanes::scale_unless(Lanes::from_bits(bits), grad, negative_slope));
  }
  for (; i < n; ++i) {
    const bool positive = mask[i / kMaskBits] >> (i % kMaskBits) & 1;
    const auto grad = static_cast<opmath>(grad_output[i]);
    grad_input[i] = static_cast<typename Lanes::scalar_t>(scale_unless(positive, grad, negative_slope));
  }
}

template <class Lanes>
constexpr Loops<typename Lanes::scalar_t> loops_of() {
  using T = typename Lanes::scalar_t;
  return {
      [](const T* input, T* output, int64_t n, opmath_t<T> negative_slope) {
        forward_loop<Lanes, false>(input, output, nullptr, n, negative_slope);
      },
      forward_loop<Lanes, true>, backward_loop<Lanes>};
}

} // namespace
} // namespace leakyrelu_ext::cpu
