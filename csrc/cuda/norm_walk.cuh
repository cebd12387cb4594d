#pragma once
// How norm_leaky_relu's work is cut up for blocks. Free of ATen.
//
// A line is what a block's threads go along: in planes (contiguous images) the pixels of one channel; else, in columns
// (channels_last), the pixels of some adjacent channels, a few of which each thread keeps to. Over the batch a line has the
// pixels of all samples, otherwise of one. A line is cut into `splits` of whole items. An item is one access: 16 bytes, or
// one element where alignment or layout forbid that. Only shape and alignment decide all this, so that sums are the same each
// time, on every device.
//
// Items of a row of memory (pixels of a channel, channels of a pixel) are filled up to whole mask bytes: threads side by side
// hold elements of the same byte.

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "../element/activation.h"
#include "kernels.cuh"
#include "launch.cuh"
#include "order.cuh"

namespace leakyrelu_ext::cuda {

constexpr int kNormThreads = 256; // at most

/// The groups of an input of shape [samples, channels, pixels] and how it lies in memory; see NormShape.
struct NormLayout {
  int64_t samples;
  int64_t channels;
  int64_t pixels;
  int64_t groups_per_sample; // 0: a group per channel, over the whole batch
  bool columns;
};

struct NormWalk {
  int64_t channels;
  int64_t stretches; // 1 over the batch, else the samples
  int64_t lines;     // of a stretch
  int64_t splits;
  int64_t split;    // items; the last one may be shorter
  int64_t items;    // of a line, for each thread side by side
  int64_t width;    // elements of a line that are adjacent in memory
  int64_t run;      // items for them
  int64_t row;      // elements from there to the next
  int64_t mask_row; // bytes
  int64_t stretch;  // elements from a stretch to the next
  int64_t mask_stretch;
  int64_t line; // elements from a line to the next
  int64_t mask_line;
  int64_t elements_of_group; // of a group in all its lines
  int64_t channels_of_group;
  Divisor<uint64_t> width_divisor, run_divisor;
  int64_t step_in_run; // from a thread's item to its next: items in the run, minus a run where that ends;
  int64_t step;        // elements, and more
  int64_t wrap;        // where the run ends;
  int64_t mask_step;   // bytes
  int64_t mask_wrap;
  int chunk;     // elements of an item
  int lanes;     // threads side by side; 1 in planes
  int groups;    // of `lanes` threads; a group takes one item after the other
  int reduction; // distance in the first step that adds up the groups
  int threads;
  bool columns;
  bool wide;
  bool folded; // second passes add up the pairs of their groups themselves (norm_folded.cuh)

  int64_t entries() const {
    return stretches * channels;
  }
  int64_t groups_of_all() const {
    return entries() / channels_of_group;
  }
  int64_t pairs() const {
    return splits * entries();
  }
  int64_t blocks() const {
    return splits * stretches * lines;
  }

  /// How many elements of a line come before an item.
  __device__ __forceinline__ int64_t elements_before(int64_t item) const {
    const auto rows = static_cast<int64_t>(run_divisor.divide(item));
    const int64_t rest = (item - rows * run) * chunk;
    return rows * width + (rest < width ? rest : width);
  }
  __device__ __forceinline__ int64_t begin_of_split(int64_t number) const {
    const int64_t begin = number * split;
    return begin < items ? begin : items;
  }
  __device__ __forceinline__ int64_t elements_of_split(int64_t number) const {
    return elements_before(begin_of_split(number + 1)) - elements_before(begin_of_split(number));
  }
};

constexpr int64_t kNormBlocks = 1024; // wanted for any GPU
// Elements of a block. Few, and much time goes into beginning and ending; many, and float sums lose digits.
constexpr int64_t kNormFewest = 2048;
constexpr int64_t kNormMost = 16384;
constexpr int64_t kNormMostOfColumns = 65536; // each split costs a pair per channel

// Tensors up to this size take about as long as launches do: one less counts for more than pairs that are read several times.
constexpr int64_t kNormFoldedBytes = int64_t{1} << 24;
// Bytes of pairs that all blocks read. GPUs with few float64 units add them up, too.
constexpr int64_t kFoldedPairs = int64_t{1} << 22;
// There are at least so many blocks, or blocks have at most so many elements.
constexpr int64_t kFoldedBlocks = 384;
constexpr int64_t kFoldedOfBlock = 12288;
constexpr int kFoldedLanes = 4;     // 64 bytes; the fewer channels a block has, the fewer pairs it reads
constexpr int kFoldedChannels = 32; // of a line, at most
constexpr int kFoldedOfThread = 16; // pairs, at most

/// `aligned`: the memory allows 16-byte accesses.
template <typename T>
NormWalk norm_walk(const NormLayout& layout, bool aligned, int64_t folded_bytes = kNormFoldedBytes) {
  const bool over_batch = layout.groups_per_sample == 0;
  const int64_t numel = layout.samples * layout.channels * layout.pixels;
  const int64_t bytes = numel * static_cast<int64_t>(sizeof(T));
  const int64_t in_memory = layout.columns ? layout.channels : layout.pixels; // a row's elements
  const int64_t mask = mask_bytes(in_memory);
  NormWalk walk{};
  walk.columns = layout.columns;
  walk.channels = layout.channels;
  walk.stretches = over_batch ? 1 : layout.samples;
  walk.channels_of_group = over_batch ? 1 : layout.channels / layout.groups_per_sample;
  walk.elements_of_group = (over_batch ? layout.samples : walk.channels_of_group) * layout.pixels;
  walk.wide = aligned && in_memory % kMaskBits == 0;
  walk.chunk = walk.wide ? kChunk<T> : 1;
  walk.folded = bytes <= folded_bytes; // unless that does not pay, see below
  const int64_t items_of_row = mask * kMaskBits / walk.chunk;
  const int64_t most =
      std::clamp(ceil_div(numel, kNormBlocks), kNormFewest, layout.columns ? kNormMostOfColumns : kNormMost);
  if (layout.columns) {
    const int64_t pixels = (over_batch ? layout.samples : 1) * layout.pixels;
    const auto team = static_cast<int64_t>(kMaskBits) / walk.chunk;
    walk.lines = ceil_div(items_of_row, walk.folded && walk.wide ? kFoldedLanes : kRow);
    walk.lanes = static_cast<int>(ceil_div(ceil_div(items_of_row, walk.lines), team) * team);
    walk.lines = ceil_div(items_of_row, walk.lanes);
    walk.items = pixels;
    walk.threads = std::max(kRow, at_least_power_of_two(walk.lanes * walk.items, kNormThreads));
    walk.groups = walk.threads / walk.lanes;
    walk.width = walk.run = 1;
    walk.row = layout.channels;
    walk.mask_row = mask;
    walk.stretch = layout.pixels * layout.channels;
    walk.mask_stretch = layout.pixels * mask;
    walk.line = static_cast<int64_t>(walk.lanes) * walk.chunk;
    walk.mask_line = walk.line / kMaskBits;
    walk.split = ceil_div(most, walk.line);
  } else {
    walk.lines = layout.channels;
    walk.lanes = 1;
    walk.items = (over_batch ? layout.samples : 1) * items_of_row;
    walk.threads = std::max(kRow, at_least_power_of_two(walk.items, kNormThreads));
    walk.groups = walk.threads;
    walk.width = layout.pixels;
    walk.run = items_of_row;
    walk.row = layout.channels * layout.pixels;
    walk.mask_row = layout.channels * mask;
    walk.stretch = walk.row;
    walk.mask_stretch = walk.mask_row;
    walk.line = layout.pixels;
    walk.mask_line = mask;
    walk.split = ceil_div(most, walk.chunk);
  }
  const int64_t channels_of_line = walk.columns ? walk.line : 1;
  const int64_t of_group = walk.channels_of_group;
  const bool cut = of_group % channels_of_line != 0 && channels_of_line % of_group != 0; // groups, in their midst
  const int64_t groups_of_line =
      cut ? ceil_div(channels_of_line - 1, of_group) + 1 : ceil_div(channels_of_line, of_group);
  const int64_t pairs_of_split = groups_of_line * of_group;
  constexpr auto pair_bytes = static_cast<int64_t>(2 * sizeof(double));
  walk.splits = ceil_div(walk.items, walk.split);
  if (walk.folded) { // each block's pairs: no more bytes than half its elements
    const int64_t most_bytes = std::min(bytes / 2, kFoldedPairs) / (walk.stretches * walk.lines);
    const double most_splits = std::sqrt(static_cast<double>(most_bytes / (pairs_of_split * pair_bytes)));
    walk.splits = std::clamp(static_cast<int64_t>(most_splits), int64_t(1), walk.splits);
  }
  // As many items for each thread, and splits of about the same size.
  walk.split = ceil_div(ceil_div(walk.items, walk.splits), walk.groups) * walk.groups;
  walk.splits = ceil_div(walk.items, walk.split);
  const int64_t pairs = walk.splits * pairs_of_split;
  const int64_t of_parameters = walk.splits * walk.stretches * channels_of_line; // pairs of the line's first block
  if (walk.folded &&
      (std::max(pairs, of_parameters) > kFoldedOfThread * walk.threads ||
       walk.blocks() * pairs * pair_bytes > kFoldedPairs ||
       walk.blocks() < std::min(kFoldedBlocks, numel / kFoldedOfBlock))) {
    return norm_walk<T>(layout, aligned, 0);
  }
  walk.reduction = at_least_power_of_two(walk.groups, kNormThreads) / 2;
  walk.width_divisor = Divisor<uint64_t>(walk.width);
  walk.run_divisor = Divisor<uint64_t>(walk.run);
  const int64_t rows = walk.groups / walk.run;
  walk.step_in_run = walk.groups % walk.run;
  walk.step = rows * walk.row + walk.step_in_run * walk.chunk;
  walk.wrap = walk.row - walk.run * walk.chunk;
  walk.mask_step = rows * walk.mask_row + walk.step_in_run * walk.chunk / kMaskBits;
  walk.mask_wrap = walk.mask_row - mask;
  return walk;
}

/// Where a block works.
struct NormPlace {
  int64_t line;
  int64_t stretch;
  int64_t split;
  int64_t begin; // items
  int64_t end;

  explicit __device__ __forceinline__ NormPlace(const NormWalk& walk) {
    const auto lines = static_cast<unsigned>(walk.lines), stretches = static_cast<unsigned>(walk.stretches);
    const unsigned rest = blockIdx.x / lines;
    line = blockIdx.x % lines;
    stretch = rest % stretches;
    split = rest / stretches;
    begin = walk.begin_of_split(split);
    end = walk.begin_of_split(split + 1);
  }
};

/// A thread's way through its block's items: the first is its group's, then every `groups`-th.
template <bool columns, int chunk>
class NormItems {
 public:
  static constexpr int kTeam = static_cast<int>(kMaskBits) / chunk; // threads that hold a mask byte's elements

  __device__ __forceinline__ NormItems(const NormWalk& walk, const NormPlace& place)
      : walk_(walk),
        lane_(columns ? static_cast<int>(threadIdx.x) % walk.lanes : 0),
        group_(columns ? static_cast<int>(threadIdx.x) / walk.lanes : static_cast<int>(threadIdx.x)),
        left_(static_cast<int>(place.end - place.begin) - group_),
        channel_(columns ? place.line * walk.line + lane_ * chunk : place.line),
        line_(place.stretch * walk.stretch + place.line * walk.line + lane_ * chunk) {
    if (columns && (group_ >= walk.groups || channel_ >= walk.channels)) {
      left_ = kNothing;
    }
    const int64_t item = place.begin + group_;
    const int64_t row = columns ? item : static_cast<int64_t>(walk.run_divisor.divide(item));
    in_run_ = columns ? 0 : item - row * walk.run;
    element_ = line_ + row * walk.row + in_run_ * chunk;
    mask_byte_ = place.stretch * walk.mask_stretch + place.line * walk.mask_line + row * walk.mask_row +
        (lane_ + in_run_) * chunk / kMaskBits;
  }

  /// Whether the item has elements.
  __device__ __forceinline__ bool valid() const {
    return left_ > 0 && (columns || chunk > 1 || in_run_ < walk_.width);
  }
  /// Its first element.
  __device__ __forceinline__ int64_t element() const {
    return element_;
  }
  __device__ __forceinline__ int64_t mask_byte() const {
    return mask_byte_;
  }
  __device__ __forceinline__ void advance() {
    left_ -= walk_.groups;
    element_ += walk_.step;
    mask_byte_ += walk_.mask_step;
    if (!columns) {
      in_run_ += walk_.step_in_run;
      if (in_run_ >= walk_.run) {
        in_run_ -= walk_.run;
        element_ += walk_.wrap;
        mask_byte_ += walk_.mask_wrap;
      }
    }
  }

  /// Of the line's element number `number`, at this thread's lane.
  __device__ __forceinline__ int64_t element_of_line(int64_t number) const {
    const auto row = static_cast<int64_t>(walk_.width_divisor.divide(number));
    return line_ + row * walk_.row + (number - row * walk_.width);
  }

  __device__ __forceinline__ int lane() const {
    return lane_;
  }
  __device__ __forceinline__ int group() const {
    return group_;
  }
  /// The first element's.
  __device__ __forceinline__ int64_t channel() const {
    return channel_;
  }
  /// Whether the thread has channels at all.
  __device__ __forceinline__ bool active() const {
    return left_ > kNothing / 2;
  }
  /// The first element's place in its mask byte.
  __device__ __forceinline__ int bit() const {
    return static_cast<int>(threadIdx.x) % kTeam * chunk;
  }

 private:
  static constexpr int kNothing = -(1 << 30);

  const NormWalk& walk_;
  int lane_;
  int group_;
  int left_; // items, from here to the split's end
  int64_t channel_;
  int64_t line_;
  int64_t in_run_;
  int64_t element_;
  int64_t mask_byte_;
};

} // namespace leakyrelu_ext::cuda
