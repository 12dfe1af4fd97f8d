// Products of warpgroups: they are queued by thread and done when they are waited for. After the
// PTX manual, section "Asynchronous warpgroup level matrix instructions".
#include "internal.h"
#include "ptx_sm90.h"

namespace simt {

namespace {

struct Product {
  float* d;
  int columns;
  std::uint64_t a, b;
  bool transposed_a, transposed_b;
  const void* place;

  bool same_instruction(const Product& o) const {
    return columns == o.columns && a == o.a && b == o.b && transposed_a == o.transposed_a &&
           transposed_b == o.transposed_b && place == o.place;
  }
};

struct Queue {
  std::vector<std::vector<Product>> groups;
  std::vector<Product> open;
  bool fenced;  // since the registers were last free to be used
};
Queue queues[kMostThreads];

// Where 8 elements lie next to each other: of row or column `line` from term 8 * `piece` on, or, of
// a transposed matrix, of term `line` from row or column 8 * `piece` on. The canonical layouts.
char* matrix_piece(std::uint64_t matrix, bool transposed, int line, int piece) {
  const int code = static_cast<int>(matrix >> 62), swizzle = (4 - code) % 4;
  const auto leading = static_cast<std::ptrdiff_t>(matrix >> 16 & 0x3fff) * 16;
  const auto stride = static_cast<std::ptrdiff_t>(matrix >> 32 & 0x3fff) * 16;
  const int width = 1 << swizzle;  // pieces of 16 bytes in a line
  std::ptrdiff_t at = static_cast<std::ptrdiff_t>(matrix & 0x3fff) * 16 + line % 8 * width * 16;
  if (transposed)
    at += line / 8 * (swizzle ? stride : leading) + piece % width * 16 +
          piece / width * (swizzle ? leading : stride);
  else
    at += line / 8 * stride + (swizzle ? piece * 16 : piece * leading);
  return swizzled(shared_base() + at, swizzle);
}

// Each lane looks at its share of what its warp reads: 16 rows of a and all columns of b. Swizzled,
// an even piece and the next are neighbours.
void check_product(const Product& p, const void* place) {
  const int lane = running->index % 32, warp = running->index / 32 % 4;
  auto look = [&](std::uint64_t matrix, bool transposed, int first, int count) {
    const int at_once = matrix >> 62 ? 2 : 1;
    const int lines = transposed ? 16 : count, pieces = (transposed ? count / 8 : 2) / at_once;
    for (int i = lane; i < lines * pieces; i += 32) {
      const int line = i / pieces + (transposed ? 0 : first);
      const int piece = i % pieces * at_once + (transposed ? first / 8 : 0);
      engine_reads(std::min(matrix_piece(matrix, transposed, line, piece),
                            matrix_piece(matrix, transposed, line, piece + at_once - 1)),
                   static_cast<std::size_t>(at_once) * 16, place);
    }
  };
  look(p.a, p.transposed_a, warp * 16, 16);
  look(p.b, p.transposed_b, 0, p.columns);
}

// values[term][i]
void read_matrix(std::uint64_t matrix, bool transposed, int count, float (*values)[256]) {
  const int lines = transposed ? 16 : count, pieces = transposed ? count / 8 : 2;
  for (int line = 0; line < lines; ++line)
    for (int piece = 0; piece < pieces; ++piece) {
      std::uint16_t bits[8];
      std::memcpy(bits, matrix_piece(matrix, transposed, line, piece), sizeof bits);
      for (int j = 0; j < 8; ++j) {
        const float value = __uint_as_float(static_cast<unsigned>(bits[j]) << 16);
        if (transposed)
          values[line][piece * 8 + j] = value;
        else
          values[piece * 8 + j][line] = value;
      }
    }
}

// One product of all 128 threads.
void multiply(Product* const* threads) {
  static float a[16][256], b[16][256];
  const Product& p = *threads[0];
  read_matrix(p.a, p.transposed_a, 64, a);
  read_matrix(p.b, p.transposed_b, p.columns, b);
  for (int i = 0; i < 64; ++i) {
    float sum[256] = {};
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < p.columns; ++j) sum[j] += a[k][i] * b[k][j];
    for (int j = 0; j < p.columns; ++j)
      threads[i / 16 * 32 + i % 8 * 4 + j % 8 / 2]->d[j / 8 * 4 + i % 16 / 8 * 2 + j % 2] += sum[j];
  }
}

// The oldest `count` groups of a warpgroup.
void finish_groups(void** arguments, int count) {
  Queue* const* members = reinterpret_cast<Queue**>(arguments);
  for (int g = 0; g < count; ++g)
    for (std::size_t n = 0; n < members[0]->groups[static_cast<std::size_t>(g)].size(); ++n) {
      Product* threads[128];
      for (int i = 0; i < 128; ++i) {
        auto& group = members[i]->groups[static_cast<std::size_t>(g)];
        threads[i] = &group[std::min(n, group.size() - 1)];
        if (group.size() != members[0]->groups[static_cast<std::size_t>(g)].size() ||
            !threads[i]->same_instruction(*threads[0]))
          fail("the threads of a warpgroup have started different products, one at %s",
               describe(threads[0]->place).c_str());
      }
      multiply(threads);
    }
}

}  // namespace

void wgmma_fence() {
  queues[running->index].fenced = true;
}

void wgmma(float* d, int columns, std::uint64_t a, std::uint64_t b, bool transposed_a,
           bool transposed_b, const void* place) {
  Queue& queue = queues[running->index];
  if (!queue.fenced)
    report("wgmma", place, "no wgmma.fence since the registers could last be used otherwise");
  queue.open.push_back({d, columns, a, b, transposed_a, transposed_b, place});
  check_product(queue.open.back(), place);
  running->has_products = true;
}

void wgmma_commit() {
  Queue& queue = queues[running->index];
  queue.groups.push_back(std::move(queue.open));
  queue.open.clear();
}

void wgmma_wait(int newest, const char* file, int line) {
  Queue& queue = queues[running->index];
  const int count = std::max(static_cast<int>(queue.groups.size()) - newest, 0);
  for (int g = 0; g < count; ++g)
    for (const Product& product : queue.groups[static_cast<std::size_t>(g)])
      check_product(product, place_of(file, line));
  warpgroup_meeting(&queue, count, finish_groups, file, line);
  queue.groups.erase(queue.groups.begin(), queue.groups.begin() + count);
  queue.fenced = queue.fenced && count == 0;
  running->has_products = !queue.groups.empty() || !queue.open.empty();
}

bool is_register_of_product(const void* p) {
  const Queue& queue = queues[running->index];
  auto holds = [&](const std::vector<Product>& products) {
    for (const Product& product : products)
      if (p >= product.d && p < product.d + product.columns / 2) return true;
    return false;
  };
  for (const auto& group : queue.groups)
    if (holds(group)) return true;
  return holds(queue.open);
}

void begin_block_products() {
  for (int i = 0; i < block_threads; ++i) queues[i] = {};
}

void end_thread_products() {
  if (!running->has_products) return;
  const Queue& queue = queues[running->index];
  const Product& product = queue.open.empty() ? queue.groups.back().back() : queue.open.back();
  report("wgmma", product.place, "a thread returns without a wait for this product");
}

}  // namespace simt
