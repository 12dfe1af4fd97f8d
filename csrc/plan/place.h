// The memory planner: gives every buffer of a program, and every step's workspace, its place in one
// arena.
#pragma once
#include <vector>

#include "plan/program.h"

namespace convlet {

struct Placement {
  // One piece of the arena, in use from step `first` to step `last` (-1: before the first step; the
  // number of steps: after the last). Buffers that take over each other's memory share a block.
  struct Block {
    int first, last;
    std::int64_t offset, bytes;
  };
  std::vector<Block> blocks;
  std::vector<int> block_of_buffer;    // -1 when it is not in the arena or never used
  std::vector<int> workspace_of_step;  // -1 when it has none
  std::int64_t activations_bytes = 0;  // of an arena without workspace
  std::int64_t arena_bytes = 0;
  std::int64_t live_set_bytes = 0;  // the most bytes, workspace apart, in use at one step
};

// `workspace` has the bytes that each step needs.
Placement place(const Program& program, std::int64_t batch,
                const std::vector<std::int64_t>& workspace);

}  // namespace convlet
