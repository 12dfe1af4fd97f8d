// Zeros that a pad2d node puts around an image, as padding of the node that reads them: they are
// then neither stored nor multiplied.
#pragma once
#include "plan/graph.h"

namespace convlet {

// The graph with every conv2d after a pad2d, and every max_pool2d after one of what a relu makes
// (there a zero never wins, and where it ties no gradient passes the relu), reading what was padded
// and padding it itself. Values keep their numbers; a pad2d that nobody reads any more is not live.
Graph with_merged_padding(Graph graph);

}  // namespace convlet
