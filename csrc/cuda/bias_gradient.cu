// The gradient of a bias, db[c] = sum over rows n of dy[n,c]: a reduction along the first axis.
#include "ops/kernels.h"

namespace convlet::cuda {

std::remove_pointer_t<decltype(Kernels::reduce_workspace)> reduce_workspace;
std::remove_pointer_t<decltype(Kernels::reduce)> reduce;

namespace {

ReduceShape over_rows(const RowsShape& s) {
  ReduceShape r = {};
  r.inputs = s.N * s.C;
  r.outputs = s.C;
  r.count = s.N;
  r.rank = 2;
  r.size[0] = s.N;
  r.size[1] = s.C;
  r.reduced[0] = true;
  return r;
}

}  // namespace

std::size_t bias_gradient_workspace(const RowsShape& s) {
  return reduce_workspace(over_rows(s));
}

void bias_gradient(Context& context, const RowsShape& s, const float* dy, float* db,
                   void* workspace) {
  reduce(context, over_rows(s), ReduceFunction::sum, dy, db, workspace);
}

}  // namespace convlet::cuda
