#include "plan/place.h"

#include <algorithm>
#include <numeric>

namespace convlet {
namespace {

constexpr std::int64_t kAlignment = 64;

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// The first and last step that touch each buffer; first > last for one that is never touched.
std::vector<Placement::Block> lifetimes(const Program& program, std::int64_t batch) {
  const int end = static_cast<int>(program.steps.size());
  std::vector<Placement::Block> blocks;
  for (const Buffer& buffer : program.buffers) {
    Placement::Block block{end + 1, -2, 0, aligned(buffer.bytes(batch))};
    if (buffer.before) block.first = block.last = -1;
    if (buffer.kept) {
      block.first = std::min(block.first, end);
      block.last = end;
    }
    blocks.push_back(block);
  }
  for (int s = 0; s < end; ++s) {
    for (const auto* ids : {&program.steps[s].reads, &program.steps[s].writes}) {
      for (BufferId id : *ids) {
        if (id == kNone) continue;
        blocks[id].first = std::min(blocks[id].first, s);
        blocks[id].last = std::max(blocks[id].last, s);
      }
    }
  }
  return blocks;
}

bool in_arena(const Program& program, BufferId id) {
  return program.buffers[id].kind == Buffer::Kind::arena;
}

// Lets a step's output take over the memory of an input that dies there. `block` maps buffers to
// blocks.
void take_over(const Program& program, std::vector<Placement::Block>& blocks,
               std::vector<int>& block) {
  for (std::size_t s = 0; s < program.steps.size(); ++s) {
    for (const Step::Reuse& reuse : program.steps[s].reuses) {
      if (reuse.write == kNone || reuse.read == kNone) continue;
      if (!in_arena(program, reuse.write) || !in_arena(program, reuse.read)) continue;
      int from = block[reuse.read], to = block[reuse.write];
      if (from == to || blocks[from].last != static_cast<int>(s) ||
          blocks[to].first != static_cast<int>(s) || blocks[to].bytes != blocks[from].bytes)
        continue;
      blocks[from].last = blocks[to].last;
      for (int& b : block)
        if (b == to) b = from;
    }
  }
}

using Before = bool (*)(const Placement::Block&, const Placement::Block&);

bool is_larger(const Placement::Block& a, const Placement::Block& b) {
  return a.bytes > b.bytes;
}
bool lives_longer(const Placement::Block& a, const Placement::Block& b) {
  const int life_a = a.last - a.first, life_b = b.last - b.first;
  return life_a != life_b ? life_a > life_b : is_larger(a, b);
}

// Gives each block of `order`, sorted, the tightest gap that is free for its whole life, among
// those placed already.
void place_best_fit(std::vector<Placement::Block>& blocks, std::vector<int> order, Before before,
                    std::vector<int>& placed) {
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return before(blocks[a], blocks[b]); });
  for (int id : order) {
    Placement::Block& block = blocks[id];
    std::vector<const Placement::Block*> neighbours;
    for (int other : placed)
      if (blocks[other].first <= block.last && block.first <= blocks[other].last)
        neighbours.push_back(&blocks[other]);
    std::sort(neighbours.begin(), neighbours.end(),
              [](auto* a, auto* b) { return a->offset < b->offset; });
    std::int64_t top = 0, best = -1, best_gap = 0;
    for (const Placement::Block* other : neighbours) {
      std::int64_t gap = other->offset - top;
      if (gap >= block.bytes && (best < 0 || gap < best_gap)) best = top, best_gap = gap;
      top = std::max(top, other->offset + other->bytes);
    }
    block.offset = best < 0 ? top : best;
    placed.push_back(id);
  }
}

std::int64_t top_of(const std::vector<Placement::Block>& blocks, const std::vector<int>& placed) {
  std::int64_t top = 0;
  for (int id : placed) top = std::max(top, blocks[id].offset + blocks[id].bytes);
  return top;
}

std::int64_t largest_live_set(const std::vector<Placement::Block>& blocks,
                              const std::vector<int>& placed, int steps) {
  std::int64_t largest = 0;
  for (int s = 0; s < steps; ++s) {
    std::int64_t live = 0;
    for (int id : placed)
      if (blocks[id].first <= s && s <= blocks[id].last) live += blocks[id].bytes;
    largest = std::max(largest, live);
  }
  return largest;
}

}  // namespace

Placement place(const Program& program, std::int64_t batch,
                const std::vector<std::int64_t>& workspace) {
  std::vector<Placement::Block> blocks = lifetimes(program, batch);
  std::vector<int> block(blocks.size());
  std::iota(block.begin(), block.end(), 0);
  take_over(program, blocks, block);

  std::vector<int> order, placed;
  for (std::size_t id = 0; id < blocks.size(); ++id) {
    bool used = blocks[id].first <= blocks[id].last;
    if (!used || !in_arena(program, static_cast<BufferId>(id))) block[id] = -1;
    if (block[id] == static_cast<int>(id)) order.push_back(block[id]);
  }
  place_best_fit(blocks, order, is_larger, placed);
  Placement placement;
  placement.activations_bytes = top_of(blocks, placed);
  placement.live_set_bytes =
      largest_live_set(blocks, placed, static_cast<int>(program.steps.size()));

  placement.workspace_of_step.assign(program.steps.size(), -1);
  std::vector<int> spaces;
  for (std::size_t s = 0; s < workspace.size(); ++s) {
    if (workspace[s] == 0) continue;
    int step = static_cast<int>(s), id = static_cast<int>(blocks.size());
    blocks.push_back({step, step, 0, aligned(workspace[s])});
    spaces.push_back(id);
    placement.workspace_of_step[s] = id;
  }
  // The workspace goes where the activations leave room, or all find their places together: small
  // activations may leave no gap that holds it.
  const std::vector<Placement::Block> unplaced = blocks;
  order.insert(order.end(), spaces.begin(), spaces.end());
  place_best_fit(blocks, spaces, is_larger, placed);
  for (Before before : {is_larger, lives_longer}) {
    std::vector<Placement::Block> together = unplaced;
    std::vector<int> placed_together;
    place_best_fit(together, order, before, placed_together);
    if (top_of(together, placed_together) < top_of(blocks, placed)) blocks = together;
  }
  placement.arena_bytes = top_of(blocks, placed);
  placement.activations_bytes = std::min(placement.activations_bytes, placement.arena_bytes);
  if (placement.arena_bytes > kMaxBytes)
    value_error("plan: a batch of ", batch, " needs ", placement.arena_bytes, " bytes of memory");

  // Keep the blocks in use only.
  std::vector<int> number(blocks.size(), -1);
  for (int id : placed) {
    number[id] = static_cast<int>(placement.blocks.size());
    placement.blocks.push_back(blocks[id]);
  }
  for (int id : block) placement.block_of_buffer.push_back(id < 0 ? -1 : number[id]);
  for (int& id : placement.workspace_of_step) id = id < 0 ? -1 : number[id];
  return placement;
}

}  // namespace convlet
