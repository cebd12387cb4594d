// The loops of one tier, over a Lanes type that wraps its registers. Included by each loops_<tier>.cpp after it has set its
// target instructions; the anonymous namespace keeps the tiers' instantiations apart (one definition rule).
//
// Lanes: scalar_t; width (a multiple of kMaskBits); Bits (an unsigned integer of width bits); Register; Predicate;
//   Slope: constructed once per loop from an opmath value;
//   load(const scalar_t*) -> Register; store(scalar_t*, Register); stream(scalar_t*, Register): a store past the caches;
//   finish_streaming(): orders streamed results before whatever follows;
//   positive(Register) -> Predicate; to_bits(Predicate) -> Bits; from_bits(Bits) -> Predicate;
//   scale_unless(Predicate, Register, const Slope&) -> Register

namespace leakyrelu_ext::cpu {
namespace {

// One register is loaded and stored at a time. With four or eight loaded first, streaming through memory takes longer (2^24
// floats into memory that is there: 2.1 ms, then 2.6 and 3.2).

/// A load waits for an earlier store to the same address modulo 4096. Going upwards it meets the store just before where results
/// lie a little above their values, modulo 4096, and allocators like to place them so (2^20 floats: 66 µs instead of 49); going
/// downwards it does not. Beyond the caches the wait does not show, and downwards is slower.
template <typename T>
bool better_downwards(const T* values, const T* results, int64_t n) {
  constexpr uintptr_t period = 4096, near = 256;
  constexpr int64_t cached_bytes = int64_t{4} << 20;
  const uintptr_t above = (reinterpret_cast<uintptr_t>(results) - reinterpret_cast<uintptr_t>(values)) % period;
  return above != 0 && above < near && n * static_cast<int64_t>(sizeof(T)) <= cached_bytes;
}

/// Calls step(first element) for each whole register of [0, n), and returns the first element left over. Unrolled: the half
/// types are bound by their instructions (AVX2, bfloat16: 3 to 5 % less time).
template <class Lanes, typename Step>
int64_t for_each_register(int64_t n, bool downwards, const Step& step) {
  const int64_t end = n - n % Lanes::width;
  if (downwards) {
#pragma GCC unroll 4
    for (int64_t i = end - Lanes::width; i >= 0; i -= Lanes::width) {
      step(i);
    }
  } else {
#pragma GCC unroll 4
    for (int64_t i = 0; i < end; i += Lanes::width) {
      step(i);
    }
  }
  return end;
}

template <class Lanes, Stores stores>
void store(typename Lanes::scalar_t* to, typename Lanes::Register r) {
  if constexpr (stores == Stores::kStreaming) {
    Lanes::stream(to, r);
  } else {
    Lanes::store(to, r);
  }
}

template <class Lanes, bool with_mask, Stores stores>
void forward_loop(
    const typename Lanes::scalar_t* input,
    typename Lanes::scalar_t* output,
    uint8_t* mask,
    Rows rows,
    opmath_t<typename Lanes::scalar_t> negative_slope) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  const typename Lanes::Slope slope(negative_slope);
  const int64_t n = rows.n;
  const bool downwards = better_downwards(input, output, n);
  for (int64_t row = 0; row < rows.count; ++row) {
    int64_t i = for_each_register<Lanes>(n, downwards, [&](int64_t at) {
      const typename Lanes::Register x = Lanes::load(input + at);
      const typename Lanes::Predicate positive = Lanes::positive(x);
      store<Lanes, stores>(output + at, Lanes::scale_unless(positive, x, slope));
      if constexpr (with_mask) {
        const typename Lanes::Bits bits = Lanes::to_bits(positive);
        std::memcpy(mask + at / kMaskBits, &bits, sizeof(bits));
      }
    });
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
    input += rows.input_step;
    output += rows.output_step;
    if constexpr (with_mask) {
      mask += n / kMaskBits;
    }
  }
  if constexpr (stores == Stores::kStreaming) {
    Lanes::finish_streaming();
  }
}

template <class Lanes, Stores stores>
void backward_loop(
    const typename Lanes::scalar_t* grad_output,
    const uint8_t* mask,
    typename Lanes::scalar_t* grad_input,
    Rows rows,
    opmath_t<typename Lanes::scalar_t> negative_slope) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  const typename Lanes::Slope slope(negative_slope);
  const int64_t n = rows.n;
  const bool downwards = better_downwards(grad_output, grad_input, n);
  for (int64_t row = 0; row < rows.count; ++row) {
    int64_t i = for_each_register<Lanes>(n, downwards, [&](int64_t at) {
      typename Lanes::Bits bits;
      std::memcpy(&bits, mask + at / kMaskBits, sizeof(bits));
      const typename Lanes::Register grad = Lanes::load(grad_output + at);
      store<Lanes, stores>(grad_input + at, Lanes::scale_unless(Lanes::from_bits(bits), grad, slope));
    });
    for (; i < n; ++i) {
      const bool positive = mask[i / kMaskBits] >> (i % kMaskBits) & 1;
      const auto grad = static_cast<opmath>(grad_output[i]);
      grad_input[i] = static_cast<typename Lanes::scalar_t>(scale_unless(positive, grad, negative_slope));
    }
    grad_output += rows.input_step;
    grad_input += rows.output_step;
    mask += n / kMaskBits;
  }
  if constexpr (stores == Stores::kStreaming) {
    Lanes::finish_streaming();
  }
}

template <typename T>
void gather_loop(const T* from, int64_t stride, T* to, Rows rows) {
  const auto every = [&](auto step) {
    for (int64_t j = 0; j < rows.n; ++j) {
      to[j] = from[j * step];
    }
  };
  for (int64_t row = 0; row < rows.count; ++row) {
    switch (stride) { // constants: the compiler knows broadcasts, copies and shuffles for them
      case 0:
        every(std::integral_constant<int64_t, 0>());
        break;
      case 1:
        every(std::integral_constant<int64_t, 1>());
        break;
      case 2:
        every(std::integral_constant<int64_t, 2>());
        break;
      default:
        every(stride);
    }
    from += rows.input_step;
    to += rows.output_step;
  }
}

template <class Lanes>
constexpr Loops<typename Lanes::scalar_t> loops_of() {
  using T = typename Lanes::scalar_t;
  constexpr auto forward = [](const T* input, T* output, uint8_t* mask, Rows rows, opmath_t<T> slope, Stores stores) {
    if (stores == Stores::kStreaming) {
      mask != nullptr ? forward_loop<Lanes, true, Stores::kStreaming>(input, output, mask, rows, slope)
                      : forward_loop<Lanes, false, Stores::kStreaming>(input, output, mask, rows, slope);
    } else {
      mask != nullptr ? forward_loop<Lanes, true, Stores::kCached>(input, output, mask, rows, slope)
                      : forward_loop<Lanes, false, Stores::kCached>(input, output, mask, rows, slope);
    }
  };
  constexpr auto backward = [](const T* grad, const uint8_t* mask, T* to, Rows rows, opmath_t<T> slope, Stores stores) {
    stores == Stores::kStreaming ? backward_loop<Lanes, Stores::kStreaming>(grad, mask, to, rows, slope)
                                 : backward_loop<Lanes, Stores::kCached>(grad, mask, to, rows, slope);
  };
  return {forward, backward, gather_loop<T>};
}

} // namespace
} // namespace leakyrelu_ext::cpu
