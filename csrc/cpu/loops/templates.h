// The loops of one tier, over a Lanes type that wraps its registers. Each <tier>.cpp includes this after setting its
// target instructions; the anonymous namespace keeps the tiers' instantiations apart (one definition rule).
//
// Lanes: scalar_t; width (a multiple of kMaskBits); Bits (an unsigned integer of width bits); Register; Predicate;
//   Slope: constructed once per loop from an opmath value;
//   load(const scalar_t*) -> Register; store(scalar_t*, Register); stream(scalar_t*, Register): bypasses the caches;
//   finish_streaming(): orders streamed results before later memory accesses;
//   positive(Register) -> Predicate; to_bits(Predicate) -> Bits; from_bits(Bits) -> Predicate;
//   scale_unless(Predicate, Register, const Slope&) -> Register
//
// bias_leaky_relu computes everything in opmath, with WideLanes, whose Register holds opmath values. They also have
//   load_opmath(const opmath*), store_opmath(opmath*, Register), broadcast(opmath) -> Register, add, multiply,
//   within(Register, bound): -bound <= r <= bound; clamp(Register, bound): NaN stays NaN;
//   keep(Predicate, Register): 0 where the predicate is false; sum(Register) -> opmath

namespace leakyrelu_ext::cpu {
namespace {

// One register is loaded and stored at a time. Loading four or eight first takes longer for data in memory (2^24
// floats, output resident: 2.1 ms with one, then 2.6 and 3.2).

/// A load waits for an earlier store to the same address modulo 4096. If results lie slightly above their values modulo
/// 4096, as allocators like to place them, an upward loop meets that store (2^20 floats: 66 µs instead of 49), a
/// downward loop does not. Beyond the caches the wait does not show, and downward loops are slower.
template <typename T>
bool better_downwards(const T* values, const T* results, int64_t n) {
  constexpr uintptr_t period = 4096, near = 256;
  constexpr int64_t cached_bytes = int64_t{4} << 20;
  const uintptr_t above = (reinterpret_cast<uintptr_t>(results) - reinterpret_cast<uintptr_t>(values)) % period;
  return above != 0 && above < near && n * static_cast<int64_t>(sizeof(T)) <= cached_bytes;
}

/// Calls step(first element) for each whole register of [0, n), and returns the first element left over. Unrolled,
/// because instructions limit the 16-bit dtypes (AVX2, bfloat16: 3 to 5 % less time).
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
    switch (stride) { // constant strides: the compiler emits broadcasts, copies and shuffles
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
void store_as(Stores stores, typename Lanes::scalar_t* to, const typename Lanes::Register& r) {
  if (stores == Stores::kStreaming) {
    Lanes::stream(to, r);
  } else {
    Lanes::store(to, r);
  }
}

template <class Lanes>
typename Lanes::Predicate load_bits(const uint8_t* mask, int64_t at) {
  typename Lanes::Bits bits;
  std::memcpy(&bits, mask + at / kMaskBits, sizeof(bits));
  return Lanes::from_bits(bits);
}

template <class Lanes>
void store_bits(uint8_t* mask, int64_t at, const typename Lanes::Predicate& predicate) {
  const typename Lanes::Bits bits = Lanes::to_bits(predicate);
  std::memcpy(mask + at / kMaskBits, &bits, sizeof(bits));
}

inline bool bit_at(const uint8_t* mask, int64_t i) {
  return mask[i / kMaskBits] >> (i % kMaskBits) & 1;
}

template <class Lanes, PerChannel bias, bool with_residual, bool with_passed>
void bias_leaky_relu_forward_loop(
    const BiasLeakyReLUForwardRun<typename Lanes::scalar_t>& run,
    const BiasLeakyReLUConstants<opmath_t<typename Lanes::scalar_t>>& constants,
    Stores stores) {
  using T = typename Lanes::scalar_t;
  using opmath = opmath_t<T>;
  using Register = typename Lanes::Register;
  const BiasLeakyReLUForwardRun<T> r = run; // a copy, which the stores cannot change
  const typename Lanes::Slope slope(constants.negative_slope);
  const Register gain = Lanes::broadcast(constants.gain);
  const Register constant = Lanes::broadcast(bias == PerChannel::kConstant ? *r.bias : opmath(0));
  const opmath clamp = constants.clamp;
  const opmath passing = constants.passing;
  const Register scale = Lanes::broadcast(constants.dropout_scale);
  const bool clamped = constants.clamped;
  int64_t i = for_each_register<Lanes>(r.n, better_downwards(r.input, r.output, r.n), [&](int64_t at) {
    Register sum = Lanes::load(r.input + at);
    if constexpr (bias == PerChannel::kConstant) {
      sum = Lanes::add(sum, constant);
    } else if constexpr (bias == PerChannel::kArray) {
      sum = Lanes::add(sum, Lanes::load_opmath(r.bias + at));
    }
    if constexpr (with_residual) {
      sum = Lanes::add(sum, Lanes::load(r.residual + at));
    }
    const auto positive = Lanes::positive(sum);
    Register value = Lanes::multiply(Lanes::scale_unless(positive, sum, slope), gain);
    if constexpr (with_passed) {
      typename Lanes::Bits passed = static_cast<typename Lanes::Bits>(~typename Lanes::Bits(0));
      if (clamped) {
        passed = Lanes::to_bits(Lanes::within(value, passing));
        value = Lanes::clamp(value, clamp);
      }
      if (r.kept != nullptr) {
        typename Lanes::Bits kept;
        std::memcpy(&kept, r.kept + at / kMaskBits, sizeof(kept));
        passed &= kept;
        value = Lanes::keep(Lanes::from_bits(kept), Lanes::multiply(value, scale));
      }
      if (r.passed != nullptr) {
        std::memcpy(r.passed + at / kMaskBits, &passed, sizeof(passed));
      }
    }
    store_as<Lanes>(stores, r.output + at, value);
    if (r.mask != nullptr) {
      store_bits<Lanes>(r.mask, at, positive);
    }
  });
  for (; i < r.n; i += kMaskBits) {
    uint8_t positive = 0, passed = 0;
    for (int64_t j = 0; j < kMaskBits && i + j < r.n; ++j) {
      auto sum = static_cast<opmath>(r.input[i + j]);
      if constexpr (bias != PerChannel::kNone) {
        sum += r.bias[bias == PerChannel::kArray ? i + j : 0];
      }
      if constexpr (with_residual) {
        sum += static_cast<opmath>(r.residual[i + j]);
      }
      const auto result = activate(sum, r.kept == nullptr || bit_at(r.kept, i + j), constants);
      r.output[i + j] = static_cast<T>(result.value);
      positive |= static_cast<uint8_t>(result.positive << j);
      passed |= static_cast<uint8_t>(result.passed << j);
    }
    if (r.mask != nullptr) {
      r.mask[i / kMaskBits] = positive;
    }
    if (with_passed && r.passed != nullptr) {
      r.passed[i / kMaskBits] = passed;
    }
  }
  if (stores == Stores::kStreaming) {
    Lanes::finish_streaming();
  }
}

/// Registers for sums: four additions can start within one's latency, and four short sums round less than a long one.
constexpr int kSums = 4;

template <class Lanes, PerChannel sums, bool with_passed>
void bias_leaky_relu_backward_loop(
    const BiasLeakyReLUBackwardRun<typename Lanes::scalar_t>& run,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    opmath_t<typename Lanes::scalar_t> gain,
    Stores stores) {
  using T = typename Lanes::scalar_t;
  using opmath = opmath_t<T>;
  using Register = typename Lanes::Register;
  const BiasLeakyReLUBackwardRun<T> r = run;
  const typename Lanes::Slope slope(negative_slope);
  const Register gains = Lanes::broadcast(gain);
  Register sum[kSums];
  for (auto& s : sum) {
    s = Lanes::broadcast(opmath(0));
  }
  const auto step = [&](int64_t at, Register& own_sum) {
    Register grad = Lanes::multiply(Lanes::load(r.grad_output + at), gains);
    grad = Lanes::scale_unless(load_bits<Lanes>(r.mask, at), grad, slope);
    if constexpr (with_passed) {
      grad = Lanes::keep(load_bits<Lanes>(r.passed, at), grad);
    }
    store_as<Lanes>(stores, r.grad_input + at, grad);
    if constexpr (sums == PerChannel::kConstant) {
      own_sum = Lanes::add(own_sum, grad);
    } else if constexpr (sums == PerChannel::kArray) {
      Lanes::store_opmath(r.sums + at, Lanes::add(Lanes::load_opmath(r.sums + at), grad));
    }
  };
  const int64_t end = r.n - r.n % Lanes::width;
  int64_t i = 0;
  for (; i + kSums * Lanes::width <= end; i += kSums * Lanes::width) {
#pragma GCC unroll 4
    for (int s = 0; s < kSums; ++s) {
      step(i + s * Lanes::width, sum[s]);
    }
  }
  for (; i < end; i += Lanes::width) {
    step(i, sum[0]);
  }
  opmath total = 0;
  if constexpr (sums == PerChannel::kConstant) {
    total = Lanes::sum(Lanes::add(Lanes::add(sum[0], sum[1]), Lanes::add(sum[2], sum[3])));
  }
  for (; i < r.n; ++i) {
    const bool passed = !with_passed || bit_at(r.passed, i);
    const opmath grad =
        activation_grad(bit_at(r.mask, i), passed, static_cast<opmath>(r.grad_output[i]), negative_slope, gain);
    r.grad_input[i] = static_cast<T>(grad);
    if constexpr (sums == PerChannel::kConstant) {
      total += grad;
    } else if constexpr (sums == PerChannel::kArray) {
      r.sums[i] += grad;
    }
  }
  if constexpr (sums == PerChannel::kConstant) {
    *r.sums += total;
  }
  if (stores == Stores::kStreaming) {
    Lanes::finish_streaming();
  }
}

template <class Lanes>
opmath_t<typename Lanes::scalar_t> sum_loop(const opmath_t<typename Lanes::scalar_t>* values, int64_t n) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  opmath total = 0;
  int64_t i = 0;
  if (n >= Lanes::width) {
    typename Lanes::Register sum[kSums];
    for (auto& s : sum) {
      s = Lanes::broadcast(opmath(0));
    }
    for (; i + kSums * Lanes::width <= n; i += kSums * Lanes::width) {
#pragma GCC unroll 4
      for (int s = 0; s < kSums; ++s) {
        sum[s] = Lanes::add(sum[s], Lanes::load_opmath(values + i + s * Lanes::width));
      }
    }
    for (; i + Lanes::width <= n; i += Lanes::width) {
      sum[0] = Lanes::add(sum[0], Lanes::load_opmath(values + i));
    }
    total = Lanes::sum(Lanes::add(Lanes::add(sum[0], sum[1]), Lanes::add(sum[2], sum[3])));
  }
  for (; i < n; ++i) {
    total += values[i];
  }
  return total;
}

/// Counters per span. The four numbers of each counter go to four groups of kCounters bits.
constexpr int kCounters = kDropoutSpan / 4;

/// Plain loops, which the compiler vectorises for this tier.
struct PlainRandom {
  static void keep(uint64_t seed, uint64_t first_counter, uint32_t largest_kept, uint8_t* bits) {
    uint32_t numbers[4][kCounters];
    for (int k = 0; k < kCounters; ++k) {
      const Random4 random = philox(seed, 0, first_counter + static_cast<uint64_t>(k));
      numbers[0][k] = random.value[0];
      numbers[1][k] = random.value[1];
      numbers[2][k] = random.value[2];
      numbers[3][k] = random.value[3];
    }
    uint8_t kept[kDropoutSpan];
    for (int i = 0; i < 4; ++i) {
      for (int k = 0; k < kCounters; ++k) {
        kept[i * kCounters + k] = numbers[i][k] <= largest_kept;
      }
    }
    for (int byte = 0; byte < kDropoutSpan / kMaskBits; ++byte) {
      uint64_t eight; // each byte is 0 or 1, the first one is the lowest
      std::memcpy(&eight, kept + byte * kMaskBits, sizeof(eight));
      bits[byte] = static_cast<uint8_t>(eight * 0x0102040810204080 >> 56);
    }
  }
};

template <class Random>
void keep_loop(uint64_t seed, int64_t first_span, int64_t spans, uint32_t largest_kept, uint8_t* bits) {
  for (int64_t span = first_span; span < first_span + spans; ++span) {
    Random::keep(seed, static_cast<uint64_t>(span) * kCounters, largest_kept, bits);
    bits += kDropoutSpan / kMaskBits;
  }
}

/// Sets the loops of leaky_relu.
template <class Lanes>
constexpr void set_plain(Loops<typename Lanes::scalar_t>& loops) {
  using T = typename Lanes::scalar_t;
  loops.forward = [](const T* input, T* output, uint8_t* mask, Rows rows, opmath_t<T> slope, Stores stores) {
    if (stores == Stores::kStreaming) {
      mask != nullptr ? forward_loop<Lanes, true, Stores::kStreaming>(input, output, mask, rows, slope)
                      : forward_loop<Lanes, false, Stores::kStreaming>(input, output, mask, rows, slope);
    } else {
      mask != nullptr ? forward_loop<Lanes, true, Stores::kCached>(input, output, mask, rows, slope)
                      : forward_loop<Lanes, false, Stores::kCached>(input, output, mask, rows, slope);
    }
  };
  loops.backward = [](const T* grad, const uint8_t* mask, T* to, Rows rows, opmath_t<T> slope, Stores stores) {
    stores == Stores::kStreaming ? backward_loop<Lanes, Stores::kStreaming>(grad, mask, to, rows, slope)
                                 : backward_loop<Lanes, Stores::kCached>(grad, mask, to, rows, slope);
  };
}

template <class WideLanes, PerChannel kind>
constexpr void set_bias_leaky_relu(Loops<typename WideLanes::scalar_t>& loops) {
  constexpr int k = static_cast<int>(kind);
  loops.bias_leaky_relu_forward[k][0][0] = bias_leaky_relu_forward_loop<WideLanes, kind, false, false>;
  loops.bias_leaky_relu_forward[k][0][1] = bias_leaky_relu_forward_loop<WideLanes, kind, false, true>;
  loops.bias_leaky_relu_forward[k][1][0] = bias_leaky_relu_forward_loop<WideLanes, kind, true, false>;
  loops.bias_leaky_relu_forward[k][1][1] = bias_leaky_relu_forward_loop<WideLanes, kind, true, true>;
  loops.bias_leaky_relu_backward[k][0] = bias_leaky_relu_backward_loop<WideLanes, kind, false>;
  loops.bias_leaky_relu_backward[k][1] = bias_leaky_relu_backward_loop<WideLanes, kind, true>;
}

} // namespace
} // namespace leakyrelu_ext::cpu

#include "norm_templates.h"

namespace leakyrelu_ext::cpu {
namespace {

template <class Lanes, class WideLanes, class Random = PlainRandom>
constexpr Loops<typename Lanes::scalar_t> loops_of() {
  Loops<typename Lanes::scalar_t> loops{};
  set_plain<Lanes>(loops);
  loops.gather = gather_loop<typename Lanes::scalar_t>;
  set_bias_leaky_relu<WideLanes, PerChannel::kNone>(loops);
  set_bias_leaky_relu<WideLanes, PerChannel::kConstant>(loops);
  set_bias_leaky_relu<WideLanes, PerChannel::kArray>(loops);
  loops.norm_of_rows = norm_loops_of<WideLanes, PerChannel::kConstant>();
  loops.norm_of_columns = norm_loops_of<WideLanes, PerChannel::kArray>();
  loops.sum = sum_loop<WideLanes>;
  loops.keep = keep_loop<Random>;
  return loops;
}

} // namespace
} // namespace leakyrelu_ext::cpu
