// Runs every loop of the NEON tier against the generic one: `make neon-check` compiles it for aarch64 and runs it under qemu.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "../csrc/cpu/loops/loops.h"

namespace {

using namespace leakyrelu_ext;
using namespace leakyrelu_ext::cpu;

template <typename T>
using bits_t = std::conditional_t<sizeof(T) == 2, uint16_t, std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>>;

template <typename T>
T from_bits(uint64_t bits) {
  const auto narrow = static_cast<bits_t<T>>(bits);
  T value;
  std::memcpy(&value, &narrow, sizeof(T));
  return value;
}

template <typename T>
bool same_bits(T a, T b) {
  return (std::isnan(static_cast<double>(a)) && std::isnan(static_cast<double>(b))) ||
      std::memcmp(&a, &b, sizeof(T)) == 0;
}

template <typename T>
void require_same(
    const std::vector<T>& actual, const std::vector<T>& expected, const char* what, int64_t n, double slope) {
  for (size_t i = 0; i < actual.size(); ++i) {
    if (!same_bits(actual[i], expected[i])) {
      std::printf(
          "%s, itemsize %zu, %lld elements, slope %g: element %zu is %g instead of %g\n", what, sizeof(T),
          static_cast<long long>(n), slope, i, static_cast<double>(actual[i]), static_cast<double>(expected[i]));
      std::exit(1);
    }
  }
}

template <typename T>
void check(const std::vector<T>& values, int64_t n, double slope_value) {
  const auto& neon = std::get<Loops<T>>(neon_tier().loops);
  const auto& generic = std::get<Loops<T>>(generic_tier().loops);
  const auto slope = static_cast<opmath_t<T>>(slope_value);
  const T guard = static_cast<T>(77.0f);
  for (int64_t offset = 0; offset < 3; ++offset) { // of the first element in memory, and from the guards at both ends
    std::vector<T> input(values.begin(), values.begin() + n + offset);
    std::vector<T> results[2], gradients[2];
    std::vector<uint8_t> masks[2];
    for (const bool with_mask : {true, false}) {
      for (const int side : {0, 1}) {
        const auto& loops = side == 0 ? neon : generic;
        results[side].assign(n + offset + 1, guard);
        gradients[side].assign(n + offset + 1, guard);
        masks[side].assign(mask_bytes(n) + 1, 0xA5);
        loops.forward(
            input.data() + offset, results[side].data() + offset, with_mask ? masks[side].data() : nullptr, {n}, slope,
            Stores::kCached);
        loops.backward(
            input.data() + offset, masks[side].data(), gradients[side].data() + offset, {n}, slope, Stores::kCached);
      }
      require_same(results[0], results[1], "forward", n, slope_value);
      require_same(gradients[0], gradients[1], "backward", n, slope_value);
      if (masks[0] != masks[1]) {
        std::printf("masks differ: itemsize %zu, %lld elements\n", sizeof(T), static_cast<long long>(n));
        std::exit(1);
      }
    }
  }
  // Rows, gathered and scaled.
  const Rows rows{16, 3, 40, 24};
  if (static_cast<int64_t>(values.size()) >= rows.n * 2 + 2 * rows.input_step) {
    for (const int64_t stride : {0, 1, 2}) {
      std::vector<T> results[2], scaled[2];
      for (const int side : {0, 1}) {
        const auto& loops = side == 0 ? neon : generic;
        results[side].assign(rows.output_step * rows.count, guard);
        scaled[side].assign(rows.output_step * rows.count, guard);
        loops.gather(values.data(), stride, results[side].data(), rows);
        loops.forward(values.data(), scaled[side].data(), nullptr, rows, slope, Stores::kStreaming);
      }
      require_same(results[0], results[1], "gather", stride, slope_value);
      require_same(scaled[0], scaled[1], "rows", stride, slope_value);
    }
  }
}

/// bias_leaky_relu, by all its parts.
template <typename T>
void check_bias_leaky_relu(const std::vector<T>& values, int64_t n, double slope_value) {
  using opmath = opmath_t<T>;
  const auto& neon = std::get<Loops<T>>(neon_tier().loops);
  const auto& generic = std::get<Loops<T>>(generic_tier().loops);
  std::vector<opmath> bias(n + 1);
  std::vector<T> residual(n + 1);
  for (int64_t i = 0; i < n; ++i) {
    bias[i] = static_cast<opmath>(i % 7 - 3) / 4;
    residual[i] = values[(i * 37 + 11) % n];
  }
  std::vector<uint8_t> kept(mask_bytes(n) + 64);
  for (size_t i = 0; i < kept.size(); ++i) {
    kept[i] = static_cast<uint8_t>(i * 151 + 3);
  }
  for (int parts = 0; parts < kPerChannelKinds * 16; ++parts) {
    const int kind = parts % kPerChannelKinds, flags = parts / kPerChannelKinds;
    const bool with_residual = flags & 1, with_passed = flags & 2, clamped = flags & 4, dropping = flags & 8;
    if (!with_passed && (clamped || dropping)) {
      continue;
    }
    const BiasLeakyReLUConstants<opmath> constants{
        static_cast<opmath>(slope_value), opmath(1.25), opmath(0.75), opmath(0.625), opmath(2), clamped};
    std::vector<T> outputs[2], gradients[2];
    std::vector<uint8_t> masks[2], passed[2];
    std::vector<opmath> sums[2];
    for (const int side : {0, 1}) {
      const auto& loops = side == 0 ? neon : generic;
      outputs[side].assign(n + 1, T(77.0f));
      gradients[side].assign(n + 1, T(77.0f));
      masks[side].assign(mask_bytes(n) + 1, 0xA5);
      passed[side].assign(mask_bytes(n) + 1, 0xA5);
      sums[side].assign(n + 1, opmath(0));
      loops.bias_leaky_relu_forward[kind][with_residual][with_passed](
          {values.data(), bias.data(), with_residual ? residual.data() : nullptr, dropping ? kept.data() : nullptr,
           outputs[side].data(), masks[side].data(), passed[side].data(), n},
          constants, Stores::kCached);
      loops.bias_leaky_relu_backward[kind][with_passed](
          {residual.data(), masks[side].data(), passed[side].data(), gradients[side].data(), sums[side].data(), n},
          constants.negative_slope, constants.gain, Stores::kStreaming);
    }
    require_same(outputs[0], outputs[1], "bias_leaky_relu, forward", n, slope_value);
    require_same(gradients[0], gradients[1], "bias_leaky_relu, backward", n, slope_value);
    bool same = masks[0] == masks[1] && (!with_passed || passed[0] == passed[1]);
    double magnitude = 0;
    for (int64_t i = 0; i < n; ++i) {
      magnitude += std::abs(static_cast<double>(gradients[1][i]));
    }
    for (int64_t i = 0; i < n && std::isfinite(magnitude) && magnitude < 1e30; ++i) {
      same = same && std::abs(static_cast<double>(sums[0][i] - sums[1][i])) <= 1e-5 * magnitude + 1e-30;
    }
    if (!same) {
      std::printf(
          "bias_leaky_relu, masks or sums differ: itemsize %zu, %lld elements\n", sizeof(T), static_cast<long long>(n));
      std::exit(1);
    }
  }
  uint8_t bits[2][16];
  neon.keep(5, 3, 2, 1u << 31, bits[0]);
  generic.keep(5, 3, 2, 1u << 31, bits[1]);
  const opmath sum = neon.sum(bias.data(), n), expected = generic.sum(bias.data(), n);
  if (std::memcmp(bits[0], bits[1], sizeof(bits[0])) != 0 || std::abs(sum - expected) > opmath(1e-4)) {
    std::printf("bias_leaky_relu, keep or sum differ\n");
    std::exit(1);
  }
}

/// norm_leaky_relu, up to roundings: NEON fuses multiplications with additions.
template <typename T>
void check_norm(PerChannel kind, int64_t n, int64_t rows, int64_t rows_of_pair) {
  using opmath = opmath_t<T>;
  std::mt19937_64 random(n);
  std::normal_distribution<double> normal;
  const auto draw = [&](auto& values) {
    for (auto& value : values) {
      value = static_cast<std::decay_t<decltype(value)>>(static_cast<float>(normal(random)));
    }
  };
  // Rows of one pair lie apart.
  const bool constant = kind == PerChannel::kConstant;
  const NormRows all{n, rows, constant && rows_of_pair > 1 ? 2 * n : n, rows_of_pair == 1};
  const int64_t numel = all.step * rows, pairs = constant ? (rows + rows_of_pair - 1) / rows_of_pair : n;
  const int64_t places = constant ? rows : n;
  std::vector<T> input(numel), residual(numel), grad_output(numel);
  std::vector<opmath> mean(places), scale(places), shift(places), along(places), offset(places), rstd(places);
  draw(input), draw(residual), draw(grad_output), draw(mean), draw(scale), draw(shift), draw(along), draw(offset),
      draw(rstd);
  const auto loops_of = [&](const Tier& tier) {
    const auto& loops = std::get<Loops<T>>(tier.loops);
    return constant ? loops.norm_of_rows : loops.norm_of_columns;
  };
  const double tolerance = sizeof(T) == 2 ? 0.02 : 1e-5;
  const auto require_near = [&](const auto& actual, const auto& expected, const char* what) {
    for (size_t i = 0; i < actual.size(); ++i) {
      const auto a = static_cast<double>(actual[i]), e = static_cast<double>(expected[i]);
      if (!(std::abs(a - e) <= tolerance * (1 + std::abs(e)))) {
        std::printf(
            "norm_leaky_relu, %s, itemsize %zu, %lld elements in %lld rows: element %zu is %g instead of %g\n", what,
            sizeof(T), static_cast<long long>(n), static_cast<long long>(rows), i, a, e);
        std::exit(1);
      }
    }
  };
  for (int parts = 0; parts < 4; ++parts) {
    const bool with_residual = parts & 1, with_statistics = parts & 2;
    std::vector<double> moments[2], sums[2];
    std::vector<T> outputs[2], gradients[2], residuals[2];
    std::vector<uint8_t> masks[2];
    for (const int side : {0, 1}) {
      const auto loops = loops_of(side == 0 ? neon_tier() : generic_tier());
      moments[side].resize(2 * pairs);
      sums[side].resize(2 * pairs);
      outputs[side].assign(numel + 1, T(77.0f));
      gradients[side].assign(numel + 1, T(77.0f));
      residuals[side].assign(numel + 1, T(77.0f));
      masks[side].assign(all.mask_step() * rows + 1, 0xA5);
      uint8_t* mask = with_residual ? masks[side].data() : nullptr;
      loops.moments(input.data(), all, rows_of_pair, moments[side].data());
      loops.forward(
          {input.data(), with_residual ? residual.data() : nullptr, mean.data(), scale.data(), shift.data(),
           outputs[side].data(), mask, all},
          opmath(0.25), Stores::kCached);
      const NormBackwardRun<T> backward{
          grad_output.data(),
          input.data(),
          mask,
          mean.data(),
          scale.data(),
          shift.data(),
          with_statistics ? along.data() : nullptr,
          with_statistics ? offset.data() : nullptr,
          with_statistics ? rstd.data() : nullptr,
          gradients[side].data(),
          residuals[side].data(),
          all};
      loops.sums(backward, opmath(0.25), rows_of_pair, sums[side].data());
      loops.backward(backward, opmath(0.25), Stores::kStreaming);
    }
    require_near(moments[0], moments[1], "moments");
    require_near(outputs[0], outputs[1], "forward");
    require_near(masks[0], masks[1], "mask");
    require_near(sums[0], sums[1], "sums");
    require_near(gradients[0], gradients[1], "backward");
    require_near(residuals[0], residuals[1], "gradient of the residual");
  }
}

template <typename T>
void check_all() {
  for (const int64_t n : {1, 7, 8, 31, 32, 100, 399, 4000}) {
    check_norm<T>(PerChannel::kConstant, n, 1, 1);
    check_norm<T>(PerChannel::kConstant, n, 37, 1);
    check_norm<T>(PerChannel::kConstant, n, 37, 5);
    check_norm<T>(PerChannel::kArray, n, 37, 1);
  }
  std::mt19937_64 random(0);
  std::vector<T> noise(400);
  for (auto& value : noise) {
    value = from_bits<T>(random());
  }
  for (const double special : {0.0, -0.0, 1.0, -1.0, HUGE_VAL, -HUGE_VAL, std::nan("")}) {
    noise[random() % noise.size()] = static_cast<T>(static_cast<float>(special));
  }
  for (const double slope : {0.01, 0.0, 1.0, -0.5, 2.0, 0x1p-140, HUGE_VAL, std::nan("")}) {
    for (int64_t n = 0; n < 200; ++n) {
      check(noise, n, slope);
    }
    for (const int64_t n : {1, 7, 8, 31, 32, 33, 64, 100, 399}) {
      check_bias_leaky_relu(noise, n, slope);
    }
    if constexpr (sizeof(T) == 2) {
      std::vector<T> every(1 << 16);
      for (uint32_t bits = 0; bits < every.size(); ++bits) {
        every[bits] = from_bits<T>(bits);
      }
      check(every, every.size() - 3, slope);
    }
  }
}

} // namespace

int main() {
  check_all<double>();
  check_all<float>();
  check_all<c10::Half>();
  check_all<c10::BFloat16>();
  std::printf("the %s loops equal the generic ones\n", neon_tier().name);
}
