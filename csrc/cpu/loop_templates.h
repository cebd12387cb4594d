// The loops of one tier, over a Lanes type that wraps its registers. Included by each loops_<tier>.cpp after it has set its
// target instructions; the anonymous namespace keeps the tiers' instantiations apart (one definition rule).
//
// Lanes: scalar_t; width (a multiple of kMaskBits); Bits (an unsigned integer of width bits); Register, Predicate;
//   load(const scalar_t*) -> Register in opmath; store(scalar_t*, Register);
//   positive(Register) -> Predicate; to_bits(Predicate) -> Bits; from_bits(Bits) -> Predicate;
//   scale_unless(Predicate, Register, opmath) -> Register

namespace leakyrelu_ext::cpu {
namespace {

/// Registers loaded before the first of them is stored. A load waits for an earlier store to the same address modulo 4096,
/// and allocators like to place output and input so: loading ahead keeps most loads clear of the last stores.
constexpr int64_t kBatch = 4;

/// Calls step(begin) for each `count` registers that fit into [begin, n), and returns the first element left over.
template <class Lanes, int64_t count, typename Step>
int64_t for_each_batch(int64_t begin, int64_t n, const Step& step) {
  constexpr int64_t elements = count * Lanes::width;
  for (; begin + elements <= n; begin += elements) {
    step(begin, std::integral_constant<int64_t, count>());
  }
  return begin;
}

template <class Lanes, bool with_mask>
void forward_loop(
    const typename Lanes::scalar_t* input,
    typename Lanes::scalar_t* output,
    uint8_t* mask,
    int64_t n,
    opmath_t<typename Lanes::scalar_t> negative_slope) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  const auto step = [=](int64_t begin, auto count) {
    typename Lanes::Register x[count];
    for (int64_t k = 0; k < count; ++k) {
      x[k] = Lanes::load(input + begin + k * Lanes::width);
    }
    for (int64_t k = 0; k < count; ++k) {
      const auto positive = Lanes::positive(x[k]);
      Lanes::store(output + begin + k * Lanes::width, Lanes::scale_unless(positive, x[k], negative_slope));
      if constexpr (with_mask) {
        const typename Lanes::Bits bits = Lanes::to_bits(positive);
        std::memcpy(mask + (begin + k * Lanes::width) / kMaskBits, &bits, sizeof(bits));
      }
    }
  };
  int64_t i = for_each_batch<Lanes, kBatch>(0, n, step);
  i = for_each_batch<Lanes, 1>(i, n, step);
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
  const auto step = [=](int64_t begin, auto count) {
    typename Lanes::Register grad[count];
    for (int64_t k = 0; k < count; ++k) {
      grad[k] = Lanes::load(grad_output + begin + k * Lanes::width);
    }
    for (int64_t k = 0; k < count; ++k) {
      typename Lanes::Bits bits;
      std::memcpy(&bits, mask + (begin + k * Lanes::width) / kMaskBits, sizeof(bits));
      Lanes::store(
          grad_input + begin + k * Lanes::width, Lanes::scale_unless(Lanes::from_bits(bits), grad[k], negative_slope));
    }
  };
  int64_t i = for_each_batch<Lanes, kBatch>(0, n, step);
  i = for_each_batch<Lanes, 1>(i, n, step);
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
