// Threads of an emulated block, as fibers or as threads of the system. See cuda_runtime.h.
#include <algorithm>
#include <memory>
#include <random>
#include <vector>

#include "cuda_runtime.h"

#ifdef MAMBAPRO_EMULATION_THREADS
#include <pthread.h>
#include <sched.h>

#include <thread>
#else
#include <ucontext.h>
#endif

namespace mambapro {
namespace cuda {
alignas(16) unsigned char shared_memory[kMaxSharedBytes + 64];
}

namespace {

constexpr int kWarp = 32;
constexpr unsigned char kPoison = 0xFF;  // as floats: NaN
EmulationOptions options;
const char* error = "";
dim3 block_index;

struct Thread {
  dim3 index;
  int barriers = 0;  // __syncthreads met so far
};

void Fail(const char* why) {
  if (!*error) error = why;
}

#ifdef MAMBAPRO_EMULATION_THREADS

thread_local Thread* current;

class Barrier {
 public:
  explicit Barrier(int size) { pthread_barrier_init(&barrier_, nullptr, size); }
  ~Barrier() { pthread_barrier_destroy(&barrier_); }
  void Wait() { pthread_barrier_wait(&barrier_); }

 private:
  pthread_barrier_t barrier_;
};

// Waits without ThreadSanitizer's knowledge: a shuffle does not order the memory of its warp, so
// that threads which rely on it for that shall be reported.
class ShuffleBarrier {
 public:
  __attribute__((no_sanitize("thread"))) void Wait() {
    const int round = __atomic_load_n(&round_, __ATOMIC_SEQ_CST);
    if (__atomic_add_fetch(&arrived_, 1, __ATOMIC_SEQ_CST) == kWarp) {
      __atomic_store_n(&arrived_, 0, __ATOMIC_SEQ_CST);
      __atomic_store_n(&round_, round + 1, __ATOMIC_SEQ_CST);
      return;
    }
    while (__atomic_load_n(&round_, __ATOMIC_SEQ_CST) == round) sched_yield();
  }

 private:
  int arrived_ = 0, round_ = 0;
};

void RunThreads(std::vector<Thread>& threads, void (*body)(void*), void* context) {
  std::vector<std::thread> running;
  for (Thread& thread : threads) {
    running.emplace_back([&thread, body, context] {
      current = &thread;
      body(context);
    });
  }
  for (std::thread& thread : running) thread.join();
}

#else

Thread* current;

struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool done = false;
};
constexpr size_t kStackBytes = 256 * 1024;
ucontext_t scheduler;
std::vector<Fiber> fibers;
size_t running;
bool progress;  // since the scheduler's round began
void (*fiber_body)(void*);
void* fiber_context;

void Yield() { swapcontext(&fibers[running].context, &scheduler); }

class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void Wait() {
    const int round = round_;
    progress = true;
    if (++arrived_ == size_) {
      arrived_ = 0;
      ++round_;
      return;
    }
    while (round_ == round) Yield();
  }

 private:
  int size_, arrived_ = 0, round_ = 0;
};

class ShuffleBarrier : public Barrier {
 public:
  ShuffleBarrier() : Barrier(kWarp) {}
};

void FiberMain() {
  fiber_body(fiber_context);
  fibers[running].done = progress = true;
}

std::vector<size_t> Turns(size_t count) {
  std::vector<size_t> turns(count);
  for (size_t i = 0; i < count; ++i)
    turns[i] = options.order == Order::kBackward ? count - 1 - i : i;
  return turns;
}

void RunThreads(std::vector<Thread>& threads, void (*body)(void*), void* context) {
  fiber_body = body;
  fiber_context = context;
  fibers.resize(std::max(fibers.size(), threads.size()));  // stacks are kept for the next block
  for (size_t i = 0; i < threads.size(); ++i) {
    if (!fibers[i].stack) fibers[i].stack.reset(new char[kStackBytes]);
    fibers[i].done = false;
    getcontext(&fibers[i].context);
    fibers[i].context.uc_stack.ss_sp = fibers[i].stack.get();
    fibers[i].context.uc_stack.ss_size = kStackBytes;
    fibers[i].context.uc_link = &scheduler;
    makecontext(&fibers[i].context, FiberMain, 0);
  }
  std::vector<size_t> turns = Turns(threads.size());
  std::mt19937 random(options.seed);
  for (size_t left = threads.size(); left > 0;) {
    if (options.order == Order::kShuffled) std::shuffle(turns.begin(), turns.end(), random);
    progress = false;
    for (size_t i : turns) {
      if (fibers[i].done) continue;
      running = i;
      current = &threads[i];
      swapcontext(&scheduler, &fibers[i].context);
      if (fibers[i].done) --left;
    }
    if (!progress) return Fail("threads wait at a barrier that the others never reach");
  }
}

#endif

struct Warp {
  ShuffleBarrier barrier;
  uint32_t slots[kWarp] = {};
};

struct Block {
  explicit Block(int size) : all(size), warps(new Warp[size / kWarp]) {}
  Barrier all;
  std::unique_ptr<Warp[]> warps;
};
Block* block;

void RunBlock(int size, size_t shared_bytes, void (*body)(void*), void* context) {
  Block own(size);
  block = &own;
  std::memset(cuda::shared_memory, kPoison, sizeof(cuda::shared_memory));
  std::vector<Thread> threads(size);
  for (int i = 0; i < size; ++i)
    threads[i].index.x = i, threads[i].index.y = threads[i].index.z = 0;
  RunThreads(threads, body, context);
  const unsigned char* end = cuda::shared_memory + sizeof(cuda::shared_memory);
  if (std::any_of(cuda::shared_memory + shared_bytes, const_cast<unsigned char*>(end),
                  [](unsigned char byte) { return byte != kPoison; })) {
    Fail("a thread wrote behind the block's shared memory");
  }
}

}  // namespace

EmulationOptions& Emulation() { return options; }
const char* EmulationError() { return error; }
cudaStream_t& EmulatedStream() {
  static cudaStream_t stream;
  return stream;
}
const dim3& EmulatedThread() { return current->index; }
const dim3& EmulatedBlock() { return block_index; }

void EmulatedSyncThreads() {
  if (current->barriers++ != options.skipped_barrier) block->all.Wait();
}

__attribute__((no_sanitize("thread"))) uint32_t EmulatedShuffle(uint32_t mask, uint32_t bits,
                                                                int source_mask) {
  if (mask != 0xFFFFFFFFu) Fail("a shuffle names less than its whole warp");
  const unsigned thread = current->index.x, lane = thread % kWarp;
  Warp& warp = block->warps[thread / kWarp];
  warp.slots[lane] = bits;
  warp.barrier.Wait();
  const uint32_t got = warp.slots[lane ^ source_mask];
  warp.barrier.Wait();
  return got;
}

cudaError_t EmulateLaunch(dim3 grid, dim3 size, size_t shared_bytes, void (*body)(void*),
                          void* context) {
  error = "";
  if (options.launch_error != cudaSuccess) return options.launch_error;
  const bool flat = grid.y == 1 && grid.z == 1 && size.y == 1 && size.z == 1;
  if (!flat || grid.x == 0 || size.x == 0 || size.x > 1024 || size.x % kWarp != 0 ||
      shared_bytes > cuda::kMaxSharedBytes) {
    Fail("the device, or the emulation, takes no such launch");
    return cudaErrorInvalidConfiguration;
  }
  for (unsigned i = 0; i < grid.x && !*error; ++i) {
    block_index = dim3(i, 0, 0);
    RunBlock(static_cast<int>(size.x), shared_bytes, body, context);
  }
  return *error ? cudaErrorLaunchFailure : cudaSuccess;
}

}  // namespace mambapro
