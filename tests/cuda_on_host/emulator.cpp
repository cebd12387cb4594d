#include "emulator.h"

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <set>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <unordered_map>
#include <utility>

// Of the library that this is linked into: where its zero-initialised static data begins and ends. The linker defines them.
extern "C" __attribute__((visibility("hidden"))) char __bss_start[];
extern "C" __attribute__((visibility("hidden"))) char _end[];

namespace cuda_on_host {
namespace {

constexpr size_t kStackBytes = 64 * 1024;
constexpr size_t kPageBytes = 4096;
constexpr uintptr_t kSectorBytes = 32;

enum class State { kReady, kAtShuffle, kAtBarrier, kDone };

struct Fiber {
  ucontext_t context{};
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  State state = State::kReady;
  unsigned value = 0; // given to a shuffle or a barrier, then received from it
  int distance = 0;
  const void* site = nullptr;
  std::map<std::pair<const void*, int>, int> turns; // of each accessing instruction

  bool on_stack(uintptr_t address) const {
    const auto low = reinterpret_cast<uintptr_t>(stack.get());
    return address >= low && address < low + kStackBytes;
  }
};

/// Who has used the bytes of a page: the thread's number + 1, or kSeveral.
constexpr int64_t kSeveral = -1;
struct Page {
  std::array<int64_t, kPageBytes> reader{};
  std::array<int64_t, kPageBytes> writer{};
};

/// The same of a byte of shared memory, and since how many barriers.
struct SharedByte {
  int64_t reader = 0;
  int64_t writer = 0;
  int64_t read_at = 0;
  int64_t written_at = 0;
};

/// Whether a byte of a page was used by any launch of a call.
struct UsedPage {
  std::array<bool, kPageBytes> read{};
  std::array<bool, kPageBytes> written{};
};

struct RequestKey {
  int64_t warp;
  const void* site;
  int turn;
  bool store;

  bool operator<(const RequestKey& other) const {
    return std::tie(warp, site, turn, store) < std::tie(other.warp, other.site, other.turn, other.store);
  }
};

struct Request {
  std::set<uintptr_t> sectors;
  bool widest = false;
};

struct Call {
  std::function<std::vector<Region>()> make_regions;
  std::vector<Region> regions{};
  std::vector<Region> temporaries{};
  std::unordered_map<uintptr_t, Page> pages{}; // of the running launch
  std::unordered_map<uintptr_t, UsedPage> used_pages{};
  Report report{};
};

std::vector<int64_t> only_blocks;
unsigned warp_size = 32;
int current_device = -1;
bool next_launch_fails = false;

std::unique_ptr<Call> call;
std::vector<Fiber> fibers;
thread_local Fiber* running = nullptr; // other threads may run instrumented code meanwhile
thread_local bool checking = false;
ucontext_t scheduler;
const std::function<void()>* running_kernel = nullptr;
std::map<RequestKey, Request> requests; // of the running block
std::unordered_map<uintptr_t, SharedByte> shared_bytes;
int64_t barriers = 0;
std::string violation;
Dim3 grid_size, block_size, block_number;

unsigned number_in_block(const Fiber& fiber) {
  return static_cast<unsigned>(&fiber - fibers.data());
}

int64_t number_in_grid(const Fiber& fiber) {
  return static_cast<int64_t>(block_number.x) * block_size.x + number_in_block(fiber);
}

void leave() {
  swapcontext(&running->context, &scheduler);
}

/// Ends the launch; the running thread is not continued.
void report_violation(const std::string& what) {
  violation = what + ", by thread " + std::to_string(number_in_block(*running)) + " of block " +
      std::to_string(block_number.x) + " (of " + std::to_string(grid_size.x) + ")";
  leave();
}

std::string describe(uintptr_t address, size_t bytes, bool store) {
  std::ostringstream text;
  text << (store ? "a store of " : "a load of ") << bytes << " bytes at ";
  const Region* nearest = nullptr;
  for (const auto& region : call->regions) {
    const bool closer = nearest == nullptr ||
        std::min(address - region.begin, region.begin - address) <
            std::min(address - nearest->begin, nearest->begin - address);
    nearest = closer ? &region : nearest;
  }
  if (nearest == nullptr) {
    text << "unknown memory";
  } else {
    text << nearest->name << (address >= nearest->begin ? " + " : " - ")
         << (address >= nearest->begin ? address - nearest->begin : nearest->begin - address) << " (of "
         << nearest->bytes << ")";
  }
  return text.str();
}

bool allowed(const Region& region, uintptr_t address, size_t bytes, bool store) {
  if (address < region.begin || address + bytes > region.begin + region.bytes ||
      !(store ? region.writable : region.readable)) {
    return false;
  }
  for (size_t i = 0; i < bytes && !region.is_element.empty(); ++i) {
    if (!region.is_element[address - region.begin + i]) {
      return false;
    }
  }
  return true;
}

void check_access(uintptr_t address, size_t bytes, bool store, const void* site) {
  const auto inside = [&](const Region& region) { return allowed(region, address, bytes, store); };
  if (!call || std::none_of(call->regions.begin(), call->regions.end(), inside)) {
    report_violation(describe(address, bytes, store) + " is out of bounds");
  }
  const bool of_one_instruction = bytes <= 16 && (bytes & (bytes - 1)) == 0;
  if (of_one_instruction && address % bytes != 0) {
    report_violation(describe(address, bytes, store) + " is misaligned");
  }
  const int64_t me = number_in_grid(*running) + 1;
  for (uintptr_t byte = address; byte < address + bytes; ++byte) {
    Page& page = call->pages[byte / kPageBytes];
    int64_t& reader = page.reader[byte % kPageBytes];
    int64_t& writer = page.writer[byte % kPageBytes];
    if (store && writer != 0) {
      report_violation(describe(byte, bytes, store) + ": a byte is written twice");
    }
    if (store ? reader != 0 && reader != me : writer != 0 && writer != me) {
      report_violation(describe(byte, bytes, store) + ": one thread reads what another writes");
    }
    if (store) {
      writer = me;
    } else {
      reader = reader == 0 || reader == me ? me : kSeveral;
    }
  }
  const int turn = running->turns[{site, store}]++;
  Request& request = requests[{number_in_block(*running) / warp_size, site, turn, store}];
  request.sectors.insert(address / kSectorBytes);
  request.sectors.insert((address + bytes - 1) / kSectorBytes);
  request.widest = bytes == 16;
}

bool is_shared(uintptr_t address) {
  return address >= reinterpret_cast<uintptr_t>(__bss_start) && address < reinterpret_cast<uintptr_t>(_end);
}

void check_shared_access(uintptr_t address, size_t bytes, bool store) {
  const int64_t me = number_in_block(*running) + 1;
  const auto another = [&](int64_t user, int64_t at) { return user != 0 && user != me && at == barriers; };
  for (uintptr_t number = address; number < address + bytes; ++number) {
    SharedByte& byte = shared_bytes[number];
    if (!store && byte.writer == 0) {
      report_violation("a load of shared memory that is not written");
    }
    if (another(byte.writer, byte.written_at) || (store && another(byte.reader, byte.read_at))) {
      report_violation("shared memory used by two threads without a barrier in between");
    }
    if (store) {
      byte.writer = me;
      byte.written_at = barriers;
    } else {
      byte.reader = byte.read_at != barriers || byte.reader == 0 || byte.reader == me ? me : kSeveral;
      byte.read_at = barriers;
    }
  }
}

void on_access(uintptr_t address, size_t bytes, bool store, const void* site) {
  // The linker may give this file the instrumented copy of a standard function: not to be checked in turn.
  if (running != nullptr && !checking && !running->on_stack(address)) {
    checking = true;
    if (is_shared(address)) {
      check_shared_access(address, bytes, store);
    } else {
      check_access(address, bytes, store, site);
    }
    checking = false;
  }
}

void fiber_main() {
  (*running_kernel)();
  running->state = State::kDone;
  leave();
}

void start(Fiber& fiber) {
  fiber.state = State::kReady;
  fiber.turns.clear();
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
}

void resume(Fiber& fiber) {
  running = &fiber;
  swapcontext(&scheduler, &fiber.context);
  running = nullptr;
  checking = false;
  if (!violation.empty()) {
    throw std::runtime_error("CUDA on host: " + std::exchange(violation, {}));
  }
}

/// Hands the shuffled values on if all threads of the warp have come to the same shuffle. True if so.
bool release_shuffle(Fiber* first, Fiber* last) {
  const auto at_shuffle = [](const Fiber& fiber) { return fiber.state == State::kAtShuffle; };
  if (std::none_of(first, last, at_shuffle)) {
    return false;
  }
  const auto together = [&](const Fiber& fiber) {
    return at_shuffle(fiber) && fiber.site == first->site && fiber.distance == first->distance;
  };
  if (!std::all_of(first, last, together)) {
    throw std::runtime_error("CUDA on host: threads of a warp do not all come to the same shuffle");
  }
  std::vector<unsigned> given;
  std::transform(first, last, std::back_inserter(given), [](const Fiber& fiber) { return fiber.value; });
  for (size_t lane = 0; lane < given.size(); ++lane) {
    first[lane].value = given[lane ^ first->distance];
    first[lane].state = State::kReady;
  }
  return true;
}

/// Lets the threads go on if all have come to the same barrier. False if all are done.
bool release_barrier() {
  const auto at_barrier = [](const Fiber& fiber) { return fiber.state == State::kAtBarrier; };
  if (std::none_of(fibers.begin(), fibers.end(), at_barrier)) {
    return false;
  }
  const auto together = [&](const Fiber& fiber) { return at_barrier(fiber) && fiber.site == fibers[0].site; };
  if (!std::all_of(fibers.begin(), fibers.end(), together)) {
    throw std::runtime_error("CUDA on host: threads of a block do not all come to the same barrier");
  }
  const bool any = std::any_of(fibers.begin(), fibers.end(), [](const Fiber& fiber) { return fiber.value != 0; });
  for (auto& fiber : fibers) {
    fiber.value = any;
    fiber.state = State::kReady;
  }
  ++barriers;
  return true;
}

void run_block() {
  shared_bytes.clear();
  for (auto& fiber : fibers) {
    start(fiber);
  }
  for (bool going = true; going;) {
    for (auto& fiber : fibers) {
      if (fiber.state == State::kReady) {
        resume(fiber);
      }
    }
    going = false;
    for (size_t first = 0; first < fibers.size(); first += warp_size) {
      going |= release_shuffle(&fibers[first], &fibers[first] + std::min<size_t>(warp_size, fibers.size() - first));
    }
    going = going || release_barrier();
  }
  for (const auto& [key, request] : requests) {
    Traffic& traffic = key.store ? call->report.stores : call->report.loads;
    ++traffic.requests;
    traffic.request_sectors += static_cast<int64_t>(request.sectors.size());
    traffic.widest_requests += request.widest;
  }
  requests.clear();
}

size_t used_bytes(const Region& region, bool store) {
  size_t used = 0;
  for (uintptr_t number = region.begin / kPageBytes; number <= (region.begin + region.bytes) / kPageBytes; ++number) {
    const auto page = call->used_pages.find(number);
    if (page == call->used_pages.end()) {
      continue;
    }
    const auto& users = store ? page->second.written : page->second.read;
    for (size_t i = 0; i < kPageBytes; ++i) {
      const uintptr_t address = number * kPageBytes + i;
      used += address >= region.begin && address < region.begin + region.bytes && users[i];
    }
  }
  return used;
}

/// Counts what the launch has moved, and lets the next one use the same bytes anew.
void end_launch(Report& report) {
  for (const auto& [number, page] : call->pages) {
    UsedPage& used_page = call->used_pages[number];
    for (size_t i = 0; i < kPageBytes; ++i) {
      used_page.read[i] |= page.reader[i] != 0;
      used_page.written[i] |= page.writer[i] != 0;
    }
    for (size_t sector = 0; sector < kPageBytes; sector += kSectorBytes) {
      const auto used = [&](const auto& users) {
        return std::count_if(&users[sector], &users[sector] + kSectorBytes, [](int64_t user) { return user != 0; });
      };
      const auto read = used(page.reader), written = used(page.writer);
      report.loads.bytes += read;
      report.loads.sectors += read != 0;
      report.stores.bytes += written;
      report.stores.sectors += written != 0;
    }
  }
  call->pages.clear();
}

} // namespace

void begin_call(std::function<std::vector<Region>()> regions) {
  call = std::make_unique<Call>();
  call->make_regions = std::move(regions);
}

Report end_call() {
  const std::unique_ptr<Call, void (*)(Call*)> finally(call.get(), [](Call*) { call.reset(); });
  for (const auto& region : call->regions) {
    for (const bool store : {false, true}) {
      if (!(store ? region.writable && !region.is_temporary : region.readable && !region.is_optional) ||
          !only_blocks.empty()) {
        continue;
      }
      const size_t used = used_bytes(region, store);
      if (used != region.elements_bytes) {
        throw std::runtime_error(
            "CUDA on host: " + std::to_string(used) + " of the " + std::to_string(region.elements_bytes) +
            " bytes of " + region.name + " were " + (store ? "written" : "read"));
      }
    }
  }
  return call->report;
}

void abandon_call() {
  call.reset();
  requests.clear();
}

void allocated(const void* memory, size_t bytes) {
  if (call) {
    call->temporaries.push_back({"a temporary", reinterpret_cast<uintptr_t>(memory), bytes, true, true, bytes, true});
  }
}

void fail_next_launch() {
  next_launch_fails = true;
}

void set_only_blocks(std::vector<int64_t> blocks) {
  only_blocks = std::move(blocks);
}

void set_warp_size(int threads) {
  warp_size = static_cast<unsigned>(threads);
}

void set_device(int device) {
  current_device = device;
}

int device() {
  return current_device;
}

void* current_stream() {
  static int stream;
  return &stream;
}

bool run_grid(Dim3 grid, Dim3 block, size_t dynamic_bytes, void* stream, const std::function<void()>& kernel) {
  const auto require = [](bool condition, const char* what) {
    if (!condition) {
      throw std::runtime_error(std::string("CUDA on host: ") + what);
    }
  };
  require(call != nullptr, "a launch outside of an op");
  if (std::exchange(next_launch_fails, false)) {
    return false;
  }
  call->regions = call->make_regions();
  call->regions.insert(call->regions.end(), call->temporaries.begin(), call->temporaries.end());
  require(current_device >= 0, "a launch without a guard for the tensor's device");
  require(stream == current_stream(), "a launch on another stream than the current one");
  require(grid.x >= 1 && grid.x <= 2147483647u && grid.y == 1 && grid.z == 1, "invalid configuration: grid");
  require(block.x >= 1 && block.x <= 1024 && block.y == 1 && block.z == 1, "invalid configuration: block");
  require(block.x % warp_size == 0, "a block of incomplete warps");
  require(dynamic_bytes == 0, "dynamic shared memory is not emulated");
  grid_size = grid;
  block_size = block;
  running_kernel = &kernel;
  if (fibers.size() != block.x) {
    fibers = std::vector<Fiber>(block.x);
  }
  const int64_t blocks = only_blocks.empty() ? grid.x : static_cast<int64_t>(only_blocks.size());
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t number = only_blocks.empty() ? i : only_blocks[i] < 0 ? grid.x + only_blocks[i] : only_blocks[i];
    block_number = Dim3(static_cast<unsigned>(number));
    run_block();
  }
  end_launch(call->report);
  ++call->report.launches;
  call->report.blocks += blocks;
  call->report.threads += blocks * block.x;
  return true;
}

Dim3 thread_index() {
  return {number_in_block(*running), 0, 0};
}

Dim3 block_index() {
  return {block_number.x, 0, 0};
}

Dim3 block_dim() {
  return block_size;
}

Dim3 grid_dim() {
  return grid_size;
}

unsigned shuffle_xor(unsigned mask, unsigned value, int distance) {
  if (mask != 0xffffffffu) {
    report_violation("a shuffle of a part of a warp");
  }
  running->value = value;
  running->distance = distance;
  running->site = __builtin_return_address(0);
  running->state = State::kAtShuffle;
  leave();
  return running->value;
}

void sync_threads() {
  running->site = __builtin_return_address(0);
  running->state = State::kAtBarrier;
  leave();
}

int sync_threads_or(int condition) {
  running->value = condition != 0;
  running->site = __builtin_return_address(0);
  running->state = State::kAtBarrier;
  leave();
  return static_cast<int>(running->value);
}

} // namespace cuda_on_host

// What GCC calls before every load and store of the code that it instruments.
#define ACCESS(name, bytes, store)                                               \
  extern "C" void __asan_##name##bytes##_noabort(uintptr_t address) {            \
    cuda_on_host::on_access(address, bytes, store, __builtin_return_address(0)); \
  }

ACCESS(load, 1, false)
ACCESS(load, 2, false)
ACCESS(load, 4, false)
ACCESS(load, 8, false)
ACCESS(load, 16, false)
ACCESS(store, 1, true)
ACCESS(store, 2, true)
ACCESS(store, 4, true)
ACCESS(store, 8, true)
ACCESS(store, 16, true)

extern "C" void __asan_loadN_noabort(uintptr_t address, size_t bytes) {
  cuda_on_host::on_access(address, bytes, false, __builtin_return_address(0));
}

extern "C" void __asan_storeN_noabort(uintptr_t address, size_t bytes) {
  cuda_on_host::on_access(address, bytes, true, __builtin_return_address(0));
}

// What else it calls.
extern "C" void __asan_handle_no_return() {}
extern "C" void __asan_before_dynamic_init(const char*) {}
extern "C" void __asan_after_dynamic_init() {}
