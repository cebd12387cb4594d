// norm_leaky_relu's loops of one tier; see templates.h. WideLanes have more for them:
//   subtract; multiply_add(a, b, c): a * b + c, multiply_add_one: the same of three opmath values, bit for bit;
//   above(Register, bound) -> Predicate;
//   Wide: as many doubles; widen(Register), add_to(Wide&, Wide), wide_sum(Wide) -> double, store_wide(double*, Wide)

namespace leakyrelu_ext::cpu {
namespace {

template <typename opmath>
opmath finite_or_zero(opmath value) {
  return std::abs(value) <= std::numeric_limits<opmath>::max() ? value : opmath(0);
}

/// Sums in opmath of at most so many values become sums in double, so their roundings stay below a result's own.
constexpr int64_t kOpmathSums = 16;

/// A sum and one beside it (of squares, or of products), in opmath and then in double.
template <class Lanes>
struct PairOfSums {
  using Register = typename Lanes::Register;
  Register sum, other;
  typename Lanes::Wide wide_sum{}, wide_other{};

  // Written out: the compiler would generate it without this tier's instructions.
  PairOfSums() : sum(Lanes::broadcast(0)), other(sum) {}

  void widen() {
    Lanes::add_to(wide_sum, Lanes::widen(sum));
    Lanes::add_to(wide_other, Lanes::widen(other));
    sum = other = Lanes::broadcast(0);
  }
};

/// Calls step(register's number, sums) for `count` registers, which it spreads over four pairs: additions wait for the one
/// before. Returns the pairs' total.
template <class Lanes, typename Step>
PairOfSums<Lanes> sums_over(int64_t count, const Step& step) {
  PairOfSums<Lanes> pairs[kSums];
  const bool few = count <= kSums * kOpmathSums; // a short row: most of its time would go to double
  int64_t i = 0;
  while (i + kSums <= count) {
    const int64_t end = std::min(count - kSums, i + kOpmathSums * kSums - 1);
    for (; i <= end; i += kSums) {
#pragma GCC unroll 4
      for (int k = 0; k < kSums; ++k) {
        step(i + k, pairs[k]);
      }
    }
    if (!few) {
      for (auto& pair : pairs) {
        pair.widen();
      }
    }
  }
  for (; i < count; ++i) {
    step(i, pairs[0]);
  }
  if (few) {
    for (int k = 1; k < kSums; ++k) {
      pairs[0].sum = Lanes::add(pairs[0].sum, pairs[k].sum);
      pairs[0].other = Lanes::add(pairs[0].other, pairs[k].other);
    }
    pairs[0].widen();
    return pairs[0];
  }
  pairs[0].widen();
  for (int k = 1; k < kSums; ++k) {
    Lanes::add_to(pairs[0].wide_sum, pairs[k].wide_sum);
    Lanes::add_to(pairs[0].wide_other, pairs[k].wide_other);
  }
  return pairs[0];
}

/// Calls each(strips, first column) for all whole registers of a row of n: four beside each other, for as long as there are
/// so many (whole cache lines, one after the other), and then one.
template <class Lanes, typename Each>
int64_t for_each_strips(int64_t n, const Each& each) {
  int64_t c = 0;
  for (; c + kSums * Lanes::width <= n; c += kSums * Lanes::width) {
    each(std::integral_constant<int, kSums>(), c);
  }
  for (; c + Lanes::width <= n; c += Lanes::width) {
    each(std::integral_constant<int, 1>(), c);
  }
  return c;
}

/// Calls step(row, strip, sums) for all rows and strips.
template <class Lanes, int strips, typename Step>
void sums_of_strips(int64_t rows, PairOfSums<Lanes> (&pairs)[strips], const Step& step) {
  for (int64_t row = 0; row < rows;) {
    for (const int64_t end = std::min(rows, row + kOpmathSums); row < end; ++row) {
#pragma GCC unroll 4
      for (int k = 0; k < strips; ++k) {
        step(row, k, pairs[k]);
      }
    }
    for (auto& pair : pairs) {
      pair.widen();
    }
  }
}

/// The mean of kNormSamples of n values. Of fewer than so many, the first.
template <typename T, typename opmath = opmath_t<T>>
opmath sample(const T* values, int64_t n) {
  const auto first = static_cast<opmath>(values[0]);
  opmath above_first = 0;
  for (int64_t k = 1; k < kNormSamples && n >= kNormSamples; ++k) {
    above_first += static_cast<opmath>(values[n * k / kNormSamples]) - first;
  }
  return finite_or_zero(first + above_first / kNormSamples);
}

template <class Lanes>
typename Lanes::Register sample_of_columns(const typename Lanes::scalar_t* input, int64_t n, int64_t rows) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  const auto first = Lanes::load(input);
  auto above_first = Lanes::broadcast(opmath(0));
  for (int64_t k = 1; k < kNormSamples && rows >= kNormSamples; ++k) {
    above_first = Lanes::add(above_first, Lanes::subtract(Lanes::load(input + rows * k / kNormSamples * n), first));
  }
  const auto mean = Lanes::multiply_add(above_first, Lanes::broadcast(opmath(1) / kNormSamples), first);
  return Lanes::keep(Lanes::within(mean, std::numeric_limits<opmath>::max()), mean);
}

/// In double, from distances to `shift`.
template <typename T>
NormMoments wide_moments(const T* values, int64_t n, int64_t stride, double shift) {
  double sum = 0, squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double distance = static_cast<double>(values[i * stride]) - shift;
    sum += distance;
    squares += distance * distance;
  }
  return {shift, sum, squares, n};
}

/// What the quick sums did not get right: their mean is the better shift.
template <typename T>
NormMoments exact_moments(const T* values, int64_t n, int64_t stride, const NormMoments& quick) {
  if (quick.exact) {
    return quick;
  }
  const double near = finite_or_zero(quick.mean);
  const NormMoments better = wide_moments(values, n, stride, near);
  return better.exact || !(std::abs(better.mean) <= std::numeric_limits<double>::max())
      ? better
      : wide_moments(values, n, stride, better.mean);
}

template <class Lanes>
void norm_moments_of_row(const typename Lanes::scalar_t* input, int64_t n, double* pair) {
  const auto shift = sample(input, n);
  const auto shifts = Lanes::broadcast(shift);
  const int64_t whole = n / Lanes::width;
  const auto sums = sums_over<Lanes>(whole, [&](int64_t i, auto& pairs) {
    const auto distance = Lanes::subtract(Lanes::load(input + i * Lanes::width), shifts);
    pairs.sum = Lanes::add(pairs.sum, distance);
    pairs.other = Lanes::multiply_add(distance, distance, pairs.other);
  });
  double sum = Lanes::wide_sum(sums.wide_sum), squares = Lanes::wide_sum(sums.wide_other);
  for (int64_t i = whole * Lanes::width; i < n; ++i) {
    const double distance = static_cast<double>(input[i]) - static_cast<double>(shift);
    sum += distance;
    squares += distance * distance;
  }
  exact_moments(input, n, 1, NormMoments(shift, sum, squares, n)).write(pair);
}

template <class Lanes>
void norm_moments_of_columns(const typename Lanes::scalar_t* input, int64_t n, int64_t rows, double* pairs) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  constexpr int64_t width = Lanes::width;
  int64_t c = for_each_strips<Lanes>(n, [&](auto count, int64_t first) {
    constexpr int strips = decltype(count)::value;
    typename Lanes::Register shifts[strips];
    PairOfSums<Lanes> sums[strips];
    for (int k = 0; k < strips; ++k) {
      shifts[k] = sample_of_columns<Lanes>(input + first + k * width, n, rows);
    }
    sums_of_strips<Lanes, strips>(rows, sums, [&](int64_t row, int k, auto& pair) {
      const auto distance = Lanes::subtract(Lanes::load(input + row * n + first + k * width), shifts[k]);
      pair.sum = Lanes::add(pair.sum, distance);
      pair.other = Lanes::multiply_add(distance, distance, pair.other);
    });
    for (int k = 0; k < strips; ++k) {
      opmath shift[width];
      double sum[width], squares[width];
      Lanes::store_opmath(shift, shifts[k]);
      Lanes::store_wide(sum, sums[k].wide_sum);
      Lanes::store_wide(squares, sums[k].wide_other);
      for (int64_t j = 0; j < width; ++j) {
        const int64_t column = first + k * width + j;
        exact_moments(input + column, rows, n, NormMoments(shift[j], sum[j], squares[j], rows))
            .write(pairs + 2 * column);
      }
    }
  });
  for (; c < n; ++c) {
    const auto first = finite_or_zero(static_cast<double>(input[c]));
    exact_moments(input + c, rows, n, wide_moments(input + c, rows, n, first)).write(pairs + 2 * c);
  }
}

/// The values of a channel's statistics along a row: one for all elements, or one each.
template <class Lanes, PerChannel kind>
struct PerChannelValues {
  using opmath = opmath_t<typename Lanes::scalar_t>;

  const opmath* values;
  typename Lanes::Register constant;

  explicit PerChannelValues(const opmath* from)
      : values(from),
        constant(Lanes::broadcast(kind == PerChannel::kConstant && from != nullptr ? *from : opmath(0))) {}

  typename Lanes::Register at(int64_t i) const {
    if constexpr (kind == PerChannel::kConstant) {
      return constant;
    } else {
      return Lanes::load_opmath(values + i);
    }
  }
  opmath one(int64_t i) const {
    return values[kind == PerChannel::kConstant ? 0 : i];
  }
};

template <class Lanes, PerChannel kind, bool with_residual>
void norm_forward_rows(
    const NormForwardRun<typename Lanes::scalar_t>& run,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    Stores stores) {
  using T = typename Lanes::scalar_t;
  using opmath = opmath_t<T>;
  NormForwardRun<T> r = run;
  const typename Lanes::Slope slope(negative_slope);
  const PerChannelValues<Lanes, kind> mean(r.mean), scale(r.scale), shift(r.shift);
  for (int64_t row = 0; row < r.rows; ++row) {
    int64_t i = for_each_register<Lanes>(r.n, better_downwards(r.input, r.output, r.n), [&](int64_t at) {
      auto value =
          Lanes::multiply_add(Lanes::subtract(Lanes::load(r.input + at), mean.at(at)), scale.at(at), shift.at(at));
      if constexpr (with_residual) {
        value = Lanes::add(value, Lanes::load(r.residual + at));
      }
      const auto positive = Lanes::above(value, kRoundsToZero<T>);
      store_as<Lanes>(stores, r.output + at, Lanes::scale_unless(positive, value, slope));
      if constexpr (with_residual) {
        if (r.mask != nullptr) {
          store_bits<Lanes>(r.mask, at, positive);
        }
      }
    });
    for (; i < r.n; i += kMaskBits) {
      uint8_t byte = 0;
      for (int64_t j = i; j < i + kMaskBits && j < r.n; ++j) {
        opmath value =
            Lanes::multiply_add_one(static_cast<opmath>(r.input[j]) - mean.one(j), scale.one(j), shift.one(j));
        if constexpr (with_residual) {
          value += static_cast<opmath>(r.residual[j]);
        }
        const bool positive = value > kRoundsToZero<T>;
        r.output[j] = static_cast<T>(scale_unless(positive, value, negative_slope));
        byte |= static_cast<uint8_t>(positive << (j - i));
      }
      if (with_residual && r.mask != nullptr) {
        r.mask[i / kMaskBits] = byte;
      }
    }
    r.input += r.n;
    r.output += r.n;
    r.residual = with_residual ? r.residual + r.n : nullptr;
    r.mask = r.mask != nullptr ? r.mask + mask_bytes(r.n) : nullptr;
  }
  if (stores == Stores::kStreaming) {
    Lanes::finish_streaming();
  }
}

/// At an element: its distance from the mean, and the gradient of the norm's result. Two functions: compilers put a
/// pair of registers that one returns into memory.
template <class Lanes, PerChannel kind, bool with_mask>
struct NormGradient {
  using T = typename Lanes::scalar_t;
  using opmath = opmath_t<T>;
  using Register = typename Lanes::Register;

  const PerChannelValues<Lanes, kind> mean, scale, shift;
  const opmath negative_slope;
  const typename Lanes::Slope slope;

  NormGradient(const NormBackwardRun<T>& r, opmath negative_slope)
      : mean(r.mean), scale(r.scale), shift(r.shift), negative_slope(negative_slope), slope(negative_slope) {}

  /// `at`: the element's place in its row; pointers are to rows.
  Register distance(const T* input, int64_t at) const {
    return Lanes::subtract(Lanes::load(input + at), mean.at(at));
  }
  Register grad(const Register& distance, const T* grad_output, const uint8_t* mask, int64_t at) const {
    const Register grad = Lanes::load(grad_output + at);
    if constexpr (with_mask) {
      return Lanes::scale_unless(load_bits<Lanes>(mask, at), grad, slope);
    } else {
      const Register value = Lanes::multiply_add(distance, scale.at(at), shift.at(at));
      return Lanes::scale_unless(Lanes::above(value, kRoundsToZero<T>), grad, slope);
    }
  }

  opmath distance_of_one(const T* input, int64_t at) const {
    return static_cast<opmath>(input[at]) - mean.one(at);
  }
  opmath grad_of_one(opmath distance, const T* grad_output, const uint8_t* mask, int64_t at) const {
    const bool positive = with_mask
        ? bit_at(mask, at)
        : Lanes::multiply_add_one(distance, scale.one(at), shift.one(at)) > kRoundsToZero<T>;
    return scale_unless(positive, static_cast<opmath>(grad_output[at]), negative_slope);
  }
};

/// The same bits in every loop: float's products are exact in double, double's take the instruction that Lanes choose.
template <class Lanes>
void add_product_of_one(double& sum, opmath_t<typename Lanes::scalar_t> a, opmath_t<typename Lanes::scalar_t> b) {
  if constexpr (std::is_same_v<decltype(a), double>) {
    sum = Lanes::multiply_add_one(a, b, sum);
  } else {
    sum += static_cast<double>(a) * static_cast<double>(b);
  }
}

template <class Lanes, bool with_mask>
void norm_sums_of_row(
    const NormBackwardRun<typename Lanes::scalar_t>& r,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    double* pair) {
  const NormGradient<Lanes, PerChannel::kConstant, with_mask> gradient(r, negative_slope);
  const int64_t whole = r.n / Lanes::width;
  const auto sums = sums_over<Lanes>(whole, [&](int64_t i, auto& pairs) {
    const auto distance = gradient.distance(r.input, i * Lanes::width);
    const auto grad = gradient.grad(distance, r.grad_output, r.mask, i * Lanes::width);
    pairs.sum = Lanes::add(pairs.sum, grad);
    pairs.other = Lanes::multiply_add(grad, distance, pairs.other);
  });
  pair[0] = Lanes::wide_sum(sums.wide_sum);
  pair[1] = Lanes::wide_sum(sums.wide_other);
  for (int64_t i = whole * Lanes::width; i < r.n; ++i) {
    const auto distance = gradient.distance_of_one(r.input, i);
    const auto grad = gradient.grad_of_one(distance, r.grad_output, r.mask, i);
    pair[0] += static_cast<double>(grad);
    add_product_of_one<Lanes>(pair[1], grad, distance);
  }
}

template <class Lanes, bool with_mask>
void norm_sums_of_columns(
    const NormBackwardRun<typename Lanes::scalar_t>& r,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    double* pairs) {
  const NormGradient<Lanes, PerChannel::kArray, with_mask> gradient(r, negative_slope);
  constexpr int64_t width = Lanes::width;
  const int64_t mask_step = mask_bytes(r.n);
  int64_t c = for_each_strips<Lanes>(r.n, [&](auto count, int64_t first) {
    constexpr int strips = decltype(count)::value;
    PairOfSums<Lanes> sums[strips];
    sums_of_strips<Lanes, strips>(r.rows, sums, [&](int64_t row, int k, auto& pair) {
      const int64_t column = first + k * width;
      const auto distance = gradient.distance(r.input + row * r.n, column);
      const auto grad =
          gradient.grad(distance, r.grad_output + row * r.n, with_mask ? r.mask + row * mask_step : nullptr, column);
      pair.sum = Lanes::add(pair.sum, grad);
      pair.other = Lanes::multiply_add(grad, distance, pair.other);
    });
    for (int k = 0; k < strips; ++k) {
      double sum[width], products[width];
      Lanes::store_wide(sum, sums[k].wide_sum);
      Lanes::store_wide(products, sums[k].wide_other);
      for (int64_t j = 0; j < width; ++j) {
        pairs[2 * (first + k * width + j)] = sum[j];
        pairs[2 * (first + k * width + j) + 1] = products[j];
      }
    }
  });
  for (; c < r.n; ++c) {
    double sum = 0, products = 0;
    for (int64_t row = 0; row < r.rows; ++row) {
      const auto distance = gradient.distance_of_one(r.input + row * r.n, c);
      const auto grad =
          gradient.grad_of_one(distance, r.grad_output + row * r.n, with_mask ? r.mask + row * mask_step : nullptr, c);
      sum += static_cast<double>(grad);
      add_product_of_one<Lanes>(products, grad, distance);
    }
    pairs[2 * c] = sum;
    pairs[2 * c + 1] = products;
  }
}

template <class Lanes, PerChannel kind, bool with_mask, bool with_statistics>
void norm_backward_rows(
    const NormBackwardRun<typename Lanes::scalar_t>& run,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    Stores stores) {
  using T = typename Lanes::scalar_t;
  using opmath = opmath_t<T>;
  NormBackwardRun<T> r = run;
  const NormGradient<Lanes, kind, with_mask> gradient(r, negative_slope);
  const PerChannelValues<Lanes, kind> along(r.along), offset(r.offset), rstd(r.rstd);
  for (int64_t row = 0; row < r.rows; ++row) {
    int64_t i = for_each_register<Lanes>(r.n, false, [&](int64_t at) {
      const auto distance = gradient.distance(r.input, at);
      const auto grad = gradient.grad(distance, r.grad_output, r.mask, at);
      if (r.grad_residual != nullptr) {
        store_as<Lanes>(stores, r.grad_residual + at, grad);
      }
      if (r.grad_input != nullptr) {
        auto value = Lanes::multiply(grad, gradient.scale.at(at));
        if constexpr (with_statistics) {
          value = Lanes::multiply_add(Lanes::multiply_add(distance, along.at(at), offset.at(at)), rstd.at(at), value);
        }
        store_as<Lanes>(stores, r.grad_input + at, value);
      }
    });
    for (; i < r.n; ++i) {
      const auto distance = gradient.distance_of_one(r.input, i);
      const auto grad = gradient.grad_of_one(distance, r.grad_output, r.mask, i);
      if (r.grad_residual != nullptr) {
        r.grad_residual[i] = static_cast<T>(grad);
      }
      if (r.grad_input != nullptr) {
        opmath value = grad * gradient.scale.one(i);
        if constexpr (with_statistics) {
          value = Lanes::multiply_add_one(
              Lanes::multiply_add_one(distance, along.one(i), offset.one(i)), rstd.one(i), value);
        }
        r.grad_input[i] = static_cast<T>(value);
      }
    }
    r.grad_output += r.n;
    r.input += r.n;
    r.mask = with_mask ? r.mask + mask_bytes(r.n) : nullptr;
    r.grad_input = r.grad_input != nullptr ? r.grad_input + r.n : nullptr;
    r.grad_residual = r.grad_residual != nullptr ? r.grad_residual + r.n : nullptr;
  }
  if (stores == Stores::kStreaming) {
    Lanes::finish_streaming();
  }
}

template <class Lanes, PerChannel kind>
constexpr NormLoops<typename Lanes::scalar_t> norm_loops_of() {
  using T = typename Lanes::scalar_t;
  using opmath = opmath_t<T>;
  NormLoops<T> loops{};
  loops.moments = [](const T* input, int64_t n, int64_t rows, double* pairs) {
    if constexpr (kind == PerChannel::kConstant) {
      norm_moments_of_row<Lanes>(input, n, pairs);
    } else {
      norm_moments_of_columns<Lanes>(input, n, rows, pairs);
    }
  };
  loops.forward = [](const NormForwardRun<T>& run, opmath slope, Stores stores) {
    run.residual != nullptr ? norm_forward_rows<Lanes, kind, true>(run, slope, stores)
                            : norm_forward_rows<Lanes, kind, false>(run, slope, stores);
  };
  loops.sums = [](const NormBackwardRun<T>& run, opmath slope, double* pairs) {
    if constexpr (kind == PerChannel::kConstant) {
      run.mask != nullptr ? norm_sums_of_row<Lanes, true>(run, slope, pairs)
                          : norm_sums_of_row<Lanes, false>(run, slope, pairs);
    } else {
      run.mask != nullptr ? norm_sums_of_columns<Lanes, true>(run, slope, pairs)
                          : norm_sums_of_columns<Lanes, false>(run, slope, pairs);
    }
  };
  loops.backward = [](const NormBackwardRun<T>& run, opmath slope, Stores stores) {
    if (run.along != nullptr) {
      run.mask != nullptr ? norm_backward_rows<Lanes, kind, true, true>(run, slope, stores)
                          : norm_backward_rows<Lanes, kind, false, true>(run, slope, stores);
    } else {
      run.mask != nullptr ? norm_backward_rows<Lanes, kind, true, false>(run, slope, stores)
                          : norm_backward_rows<Lanes, kind, false, false>(run, slope, stores);
    }
  };
  return loops;
}

} // namespace
} // namespace leakyrelu_ext::cpu
