// norm_leaky_relu's loops of one tier; see templates.h. WideLanes have more for them:
//   subtract; multiply_add(a, b, c): a * b + c; above(Register, bound) -> Predicate;
//   Wide: as many doubles; widen(Register), add_to(Wide&, Wide), wide_sum(Wide) -> double, store_wide(double*, Wide)

#include "parts.h"

namespace leakyrelu_ext::cpu {
namespace {

template <typename opmath>
opmath finite_or_zero(opmath value) {
  return std::abs(value) <= std::numeric_limits<opmath>::max() ? value : opmath(0);
}

/// Sums in opmath of at most so many values become sums in double, so their roundings stay below a result's own.
constexpr int64_t kOpmathSums = 16;

/// A sum in opmath, and one beside it (of squares, or of products).
template <class Lanes>
struct PairOfSums {
  typename Lanes::Register sum, other;

  // Written out: the compiler would generate it without this tier's instructions.
  PairOfSums() : sum(Lanes::broadcast(0)), other(sum) {}
};

/// The same in double.
template <class Lanes>
struct WidePair {
  typename Lanes::Wide sum, other;

  WidePair() : sum(Lanes::widen(Lanes::broadcast(0))), other(sum) {}

  /// Leaves 0 behind. Inlined always: sums stay in registers.
  C10_ALWAYS_INLINE void take(PairOfSums<Lanes>& pair) {
    Lanes::add_to(sum, Lanes::widen(pair.sum));
    Lanes::add_to(other, Lanes::widen(pair.other));
    pair = PairOfSums<Lanes>();
  }
};

/// Calls step(row, first element, part, sums) for the parts of rows of n, which it spreads over four pairs: additions wait
/// for the one before. Writes the pairs' totals.
template <class Lanes, typename Step>
void sums_over(int64_t n, int64_t rows, double* totals, const Step& step) {
  constexpr int64_t width = Lanes::width, together = kSums * width;
  const Whole<Lanes> whole;
  PairOfSums<Lanes> pairs[kSums];
  WidePair<Lanes> wide;
  int64_t room = kOpmathSums; // additions to each pair until they go to double
  const auto make_room = [&] {
    if (room == 0) {
#pragma GCC unroll 4
      for (int k = 0; k < kSums; ++k) {
        wide.take(pairs[k]);
      }
      room = kOpmathSums;
    }
  };
  for (int64_t row = 0; row < rows; ++row) {
    int64_t i = 0;
    while (i + together <= n) {
      make_room();
      const int64_t additions = std::min(room, (n - i) / together);
      room -= additions;
      for (const int64_t end = i + additions * together; i < end; i += together) {
#pragma GCC unroll 4
        for (int k = 0; k < kSums; ++k) {
          step(row, i + k * width, whole, pairs[k]);
        }
      }
    }
    if (i == n) {
      continue;
    }
    make_room();
    --room;
    if (i + width <= n) {
      step(row, i, whole, pairs[0]);
      i += width;
    }
    if (i + width <= n) {
      step(row, i, whole, pairs[1]);
      i += width;
    }
    if (i + width <= n) {
      step(row, i, whole, pairs[2]);
      i += width;
    }
    if (i < n) {
      step(row, i, First<Lanes>{n - i}, pairs[3]);
    }
  }
#pragma GCC unroll 3
  for (int k = 1; k < kSums; ++k) {
    pairs[0].sum = Lanes::add(pairs[0].sum, pairs[k].sum);
    pairs[0].other = Lanes::add(pairs[0].other, pairs[k].other);
  }
  wide.take(pairs[0]);
  totals[0] = Lanes::wide_sum(wide.sum);
  totals[1] = Lanes::wide_sum(wide.other);
}

/// Calls each(strips, first column, part) for all parts of a row of n: four beside each other, for as long as there are so
/// many (whole cache lines, one after the other), and then one.
template <class Lanes, typename Each>
void for_each_strips(int64_t n, const Each& each) {
  int64_t c = 0;
  for (; c + kSums * Lanes::width <= n; c += kSums * Lanes::width) {
    each(std::integral_constant<int, kSums>(), c, Whole<Lanes>());
  }
  for (; c + Lanes::width <= n; c += Lanes::width) {
    each(std::integral_constant<int, 1>(), c, Whole<Lanes>());
  }
  if (c < n) {
    each(std::integral_constant<int, 1>(), c, First<Lanes>{n - c});
  }
}

/// Calls step(row, strip, sums) for all rows and strips.
template <class Lanes, int strips, typename Step>
void sums_of_strips(int64_t rows, WidePair<Lanes> (&wide)[strips], const Step& step) {
  PairOfSums<Lanes> pairs[strips];
  for (int64_t row = 0; row < rows;) {
    for (const int64_t end = std::min(rows, row + kOpmathSums); row < end; ++row) {
#pragma GCC unroll 4
      for (int k = 0; k < strips; ++k) {
        step(row, k, pairs[k]);
      }
    }
#pragma GCC unroll 4
    for (int k = 0; k < strips; ++k) {
      wide[k].take(pairs[k]);
    }
  }
}

/// The mean of kNormSamples values, in rows and places far apart.
template <typename T, typename opmath = opmath_t<T>>
opmath sample(const T* values, int64_t n, int64_t rows, int64_t row_step) {
  const auto first = static_cast<opmath>(values[0]);
  opmath above_first = 0;
  for (int64_t k = 1; k < kNormSamples; ++k) {
    above_first += static_cast<opmath>(values[rows * k / kNormSamples * row_step + n * k / kNormSamples]) - first;
  }
  return finite_or_zero(first + above_first / kNormSamples);
}

template <class Lanes, class Part>
typename Lanes::Register sample_of_columns(
    const typename Lanes::scalar_t* input, int64_t n, int64_t rows, const Part& part) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  const auto first = part.load(input);
  auto above_first = Lanes::broadcast(opmath(0));
  for (int64_t k = 1; k < kNormSamples && rows >= kNormSamples; ++k) {
    above_first = Lanes::add(above_first, Lanes::subtract(part.load(input + rows * k / kNormSamples * n), first));
  }
  const auto mean = Lanes::multiply_add(above_first, Lanes::broadcast(opmath(1) / kNormSamples), first);
  return Lanes::keep(Lanes::within(mean, std::numeric_limits<opmath>::max()), mean);
}

/// In double, from distances to `shift`, of rows of n elements.
template <typename T>
NormMoments wide_moments(const T* values, int64_t n, int64_t rows, int64_t row_step, double shift) {
  double sum = 0, squares = 0;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < n; ++i) {
      const double distance = static_cast<double>(values[row * row_step + i]) - shift;
      sum += distance;
      squares += distance * distance;
    }
  }
  return {shift, sum, squares, n * rows};
}

/// What the quick sums did not get right: their mean is the better shift.
template <typename T>
NormMoments exact_moments(const T* values, int64_t n, int64_t rows, int64_t row_step, const NormMoments& quick) {
  if (quick.exact) {
    return quick;
  }
  const double near = finite_or_zero(quick.mean);
  const NormMoments better = wide_moments(values, n, rows, row_step, near);
  return better.exact || !(std::abs(better.mean) <= std::numeric_limits<double>::max())
      ? better
      : wide_moments(values, n, rows, row_step, better.mean);
}

template <class Lanes>
void norm_moments_of_rows(
    const typename Lanes::scalar_t* input, const NormRows& all, int64_t rows_of_pair, double* pairs) {
  for (int64_t first = 0; first < all.count; first += rows_of_pair, pairs += 2, input += rows_of_pair * all.step) {
    int64_t n = all.n, rows = std::min(rows_of_pair, all.count - first);
    if (all.step == n) { // one row
      n *= rows;
      rows = 1;
    }
    const auto shift = sample(input, n, rows, all.step);
    const auto shifts = Lanes::broadcast(shift);
    double sums[2];
    sums_over<Lanes>(n, rows, sums, [&](int64_t row, int64_t at, const auto& part, auto& pair) {
      const auto distance = part.keep(Lanes::subtract(part.load(input + row * all.step + at), shifts));
      pair.sum = Lanes::add(pair.sum, distance);
      pair.other = Lanes::multiply_add(distance, distance, pair.other);
    });
    exact_moments(input, n, rows, all.step, NormMoments(shift, sums[0], sums[1], n * rows)).write(pairs);
  }
}

template <class Lanes>
void norm_moments_of_columns(const typename Lanes::scalar_t* input, const NormRows& all, double* pairs) {
  using opmath = opmath_t<typename Lanes::scalar_t>;
  const int64_t n = all.n, rows = all.count;
  constexpr int64_t width = Lanes::width;
  for_each_strips<Lanes>(n, [&](auto count, int64_t first, const auto& part) {
    constexpr int strips = decltype(count)::value;
    typename Lanes::Register shifts[strips];
    WidePair<Lanes> sums[strips];
    for (int k = 0; k < strips; ++k) {
      shifts[k] = sample_of_columns<Lanes>(input + first + k * width, n, rows, part);
    }
    sums_of_strips<Lanes, strips>(rows, sums, [&](int64_t row, int k, auto& pair) {
      const auto distance = Lanes::subtract(part.load(input + row * n + first + k * width), shifts[k]);
      pair.sum = Lanes::add(pair.sum, distance);
      pair.other = Lanes::multiply_add(distance, distance, pair.other);
    });
    for (int k = 0; k < strips; ++k) {
      opmath shift[width];
      double sum[width], squares[width];
      Lanes::store_opmath(shift, shifts[k]);
      Lanes::store_wide(sum, sums[k].sum);
      Lanes::store_wide(squares, sums[k].other);
      for (int64_t j = 0; j < part.count(); ++j) {
        const int64_t column = first + k * width + j;
        exact_moments(input + column, 1, rows, n, NormMoments(shift[j], sum[j], squares[j], rows))
            .write(pairs + 2 * column);
      }
    }
  });
}

/// The values of a statistic along a row of n: one for all elements, or one each.
template <class Lanes, PerChannel kind>
struct PerChannelValues {
  using opmath = opmath_t<typename Lanes::scalar_t>;

  const opmath* values;
  typename Lanes::Register constant; // for all elements, or those of the row's end

  PerChannelValues(const opmath* from, int64_t n) : values(from), constant(Lanes::broadcast(0)) {
    if (from != nullptr) {
      if constexpr (kind == PerChannel::kConstant) {
        constant = Lanes::broadcast(*from);
      } else {
        constant = load_opmath_first<Lanes>(from + n - n % Lanes::width, n % Lanes::width);
      }
    }
  }

  /// Goes on to the next row.
  void next(const NormRows& rows) {
    if (kind == PerChannel::kConstant && values != nullptr) {
      values += rows.entry_step;
      constant = Lanes::broadcast(*values);
    }
  }

  typename Lanes::Register at(int64_t i, const Whole<Lanes>& /*part*/) const {
    if constexpr (kind == PerChannel::kConstant) {
      return constant;
    } else {
      return Lanes::load_opmath(values + i);
    }
  }
  const typename Lanes::Register& at(int64_t /*i*/, const First<Lanes>& /*part*/) const {
    return constant;
  }
};

template <class Lanes, PerChannel kind, bool with_residual>
void norm_forward_rows(
    const NormForwardRun<typename Lanes::scalar_t>& run,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    Stores stores) {
  using T = typename Lanes::scalar_t;
  NormForwardRun<T> r = run;
  const typename Lanes::Slope slope(negative_slope);
  const int64_t n = r.rows.n, step = r.rows.step, mask_step = r.mask != nullptr ? r.rows.mask_step() : 0;
  PerChannelValues<Lanes, kind> mean(r.mean, n), scale(r.scale, n), shift(r.shift, n);
  const bool downwards = better_downwards(r.input, r.output, n);
  for (int64_t row = 0; row < r.rows.count; ++row) {
    if (row > 0) {
      mean.next(r.rows);
      scale.next(r.rows);
      shift.next(r.rows);
    }
    for_each_part<Lanes>(n, downwards, [&](int64_t at, const auto& part) {
      auto value = Lanes::multiply_add(
          Lanes::subtract(part.load(r.input + at), mean.at(at, part)), scale.at(at, part), shift.at(at, part));
      if constexpr (with_residual) {
        value = Lanes::add(value, part.load(r.residual + at));
      }
      const auto positive = Lanes::above(value, kRoundsToZero<T>);
      part.store(stores, r.output + at, Lanes::scale_unless(positive, value, slope));
      if constexpr (with_residual) {
        if (r.mask != nullptr) {
          part.store_bits(r.mask, at, positive);
        }
      }
    });
    r.input += step;
    r.output += step;
    r.residual = with_residual ? r.residual + step : nullptr;
    r.mask += mask_step;
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

  PerChannelValues<Lanes, kind> mean, scale, shift;
  const typename Lanes::Slope slope;

  NormGradient(const NormBackwardRun<T>& r, opmath negative_slope)
      : mean(r.mean, r.rows.n), scale(r.scale, r.rows.n), shift(r.shift, r.rows.n), slope(negative_slope) {}

  void next(const NormRows& rows) {
    mean.next(rows);
    scale.next(rows);
    shift.next(rows);
  }

  /// `at`: the element's place in its row; pointers are to rows.
  template <class Part>
  Register distance(const T* input, int64_t at, const Part& part) const {
    return Lanes::subtract(part.load(input + at), mean.at(at, part));
  }
  template <class Part>
  Register grad(
      const Register& distance, const T* grad_output, const uint8_t* mask, int64_t at, const Part& part) const {
    const Register grad = part.load(grad_output + at);
    if constexpr (with_mask) {
      return Lanes::scale_unless(part.load_bits(mask, at), grad, slope);
    } else {
      const Register value = Lanes::multiply_add(distance, scale.at(at, part), shift.at(at, part));
      return Lanes::scale_unless(Lanes::above(value, kRoundsToZero<T>), grad, slope);
    }
  }
};

template <class Lanes, bool with_mask>
void norm_sums_of_rows(
    const NormBackwardRun<typename Lanes::scalar_t>& r,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    int64_t rows_of_pair,
    double* pairs) {
  NormGradient<Lanes, PerChannel::kConstant, with_mask> gradient(r, negative_slope);
  const int64_t step = r.rows.step, mask_step = with_mask ? r.rows.mask_step() : 0;
  for (int64_t first = 0; first < r.rows.count; first += rows_of_pair, pairs += 2) {
    if (first > 0) {
      gradient.next(r.rows);
    }
    const int64_t rows = std::min(rows_of_pair, r.rows.count - first);
    sums_over<Lanes>(r.rows.n, rows, pairs, [&](int64_t row, int64_t at, const auto& part, auto& pair) {
      const int64_t begin = (first + row) * step;
      const uint8_t* mask = with_mask ? r.mask + (first + row) * mask_step : nullptr;
      const auto distance = part.keep(gradient.distance(r.input + begin, at, part));
      const auto grad = part.keep(gradient.grad(distance, r.grad_output + begin, mask, at, part));
      pair.sum = Lanes::add(pair.sum, grad);
      pair.other = Lanes::multiply_add(grad, distance, pair.other);
    });
  }
}

template <class Lanes, bool with_mask>
void norm_sums_of_columns(
    const NormBackwardRun<typename Lanes::scalar_t>& r,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    double* pairs) {
  const NormGradient<Lanes, PerChannel::kArray, with_mask> gradient(r, negative_slope);
  constexpr int64_t width = Lanes::width;
  const int64_t n = r.rows.n, mask_step = with_mask ? r.rows.mask_step() : 0;
  for_each_strips<Lanes>(n, [&](auto count, int64_t first, const auto& part) {
    constexpr int strips = decltype(count)::value;
    WidePair<Lanes> sums[strips];
    sums_of_strips<Lanes, strips>(r.rows.count, sums, [&](int64_t row, int k, auto& pair) {
      const int64_t column = first + k * width;
      const auto distance = gradient.distance(r.input + row * n, column, part);
      const auto grad = gradient.grad(
          distance, r.grad_output + row * n, with_mask ? r.mask + row * mask_step : nullptr, column, part);
      pair.sum = Lanes::add(pair.sum, grad);
      pair.other = Lanes::multiply_add(grad, distance, pair.other);
    });
    for (int k = 0; k < strips; ++k) {
      double sum[width], products[width];
      Lanes::store_wide(sum, sums[k].sum);
      Lanes::store_wide(products, sums[k].other);
      for (int64_t j = 0; j < part.count(); ++j) {
        pairs[2 * (first + k * width + j)] = sum[j];
        pairs[2 * (first + k * width + j) + 1] = products[j];
      }
    }
  });
}

template <class Lanes, PerChannel kind, bool with_mask, bool with_statistics>
void norm_backward_rows(
    const NormBackwardRun<typename Lanes::scalar_t>& run,
    opmath_t<typename Lanes::scalar_t> negative_slope,
    Stores stores) {
  using T = typename Lanes::scalar_t;
  NormBackwardRun<T> r = run;
  const int64_t n = r.rows.n, step = r.rows.step, mask_step = with_mask ? r.rows.mask_step() : 0;
  NormGradient<Lanes, kind, with_mask> gradient(r, negative_slope);
  PerChannelValues<Lanes, kind> along(r.along, n), offset(r.offset, n), rstd(r.rstd, n);
  for (int64_t row = 0; row < r.rows.count; ++row) {
    if (row > 0) {
      gradient.next(r.rows);
      along.next(r.rows);
      offset.next(r.rows);
      rstd.next(r.rows);
    }
    for_each_part<Lanes>(n, false, [&](int64_t at, const auto& part) {
      const auto distance = gradient.distance(r.input, at, part);
      const auto grad = gradient.grad(distance, r.grad_output, r.mask, at, part);
      if (r.grad_residual != nullptr) {
        part.store(stores, r.grad_residual + at, grad);
      }
      if (r.grad_input != nullptr) {
        auto value = Lanes::multiply(grad, gradient.scale.at(at, part));
        if constexpr (with_statistics) {
          value = Lanes::multiply_add(
              Lanes::multiply_add(distance, along.at(at, part), offset.at(at, part)), rstd.at(at, part), value);
        }
        part.store(stores, r.grad_input + at, value);
      }
    });
    r.grad_output += step;
    r.input += step;
    r.mask += mask_step;
    r.grad_input = r.grad_input != nullptr ? r.grad_input + step : nullptr;
    r.grad_residual = r.grad_residual != nullptr ? r.grad_residual + step : nullptr;
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
  loops.moments = [](const T* input, const NormRows& rows, [[maybe_unused]] int64_t rows_of_pair, double* pairs) {
    if constexpr (kind == PerChannel::kConstant) {
      norm_moments_of_rows<Lanes>(input, rows, rows_of_pair, pairs);
    } else {
      norm_moments_of_columns<Lanes>(input, rows, pairs);
    }
  };
  loops.forward = [](const NormForwardRun<T>& run, opmath slope, Stores stores) {
    run.residual != nullptr ? norm_forward_rows<Lanes, kind, true>(run, slope, stores)
                            : norm_forward_rows<Lanes, kind, false>(run, slope, stores);
  };
  loops.sums = [](const NormBackwardRun<T>& run, opmath slope, [[maybe_unused]] int64_t rows_of_pair, double* pairs) {
    if constexpr (kind == PerChannel::kConstant) {
      run.mask != nullptr ? norm_sums_of_rows<Lanes, true>(run, slope, rows_of_pair, pairs)
                          : norm_sums_of_rows<Lanes, false>(run, slope, rows_of_pair, pairs);
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
