// conv2d_backward_input: see input_gradient.cuh.
#include "cuda/input_gradient.cuh"

namespace convlet::cuda {

ProductShape backward_input_product(const Conv2dShape& s, std::int64_t batch) {
  const Axis h = vertical_axis(s), w = horizontal_axis(s);
  const std::int64_t phases = static_cast<std::int64_t>(h.phases()) * w.phases();
  return {s.N * h.most_pixels() * w.most_pixels(), s.C / s.groups,
          h.most_taps() * w.most_taps() * (s.K / s.groups),
          (s.groups == 1 ? batch : s.groups) * phases, s.N * s.H * s.W * s.C * batch};
}

template <Precision precision>
void convolve_backward_input(Context& context, const Conv2dShape& s, const Batch& batch,
                             const float* dy, const float* w, float* dx, void* workspace) {
  if (is_direct(s)) {
    for (std::int64_t i = 0; i < batch.count; ++i)
      direct_backward_input(context, s, dy + i * batch.y, w + i * batch.w, dx + i * batch.x);
    return;
  }
  multiply<precision>(context, input_gradient(s, batch, dy, w, dx),
                      backward_input_product(s, batch.count), s.C, workspace);
}

template <Precision precision>
void conv2d_backward_input(Context& context, const Conv2dShape& shape, const float* dy,
                           const float* w, float* dx, void* workspace) {
  convolve_backward_input<precision>(context, shape, kAlone, dy, w, dx, workspace);
}

#define CONVLET_CONVOLVE(precision)                                                            \
  template void convolve_backward_input<precision>(Context&, const Conv2dShape&, const Batch&, \
                                                   const float*, const float*, float*, void*); \
  template void conv2d_backward_input<precision>(Context&, const Conv2dShape&, const float*,   \
                                                 const float*, float*, void*);
CONVLET_CONVOLVE(Precision::float32)
CONVLET_CONVOLVE(Precision::tf32)
CONVLET_CONVOLVE(Precision::bfloat16)
#undef CONVLET_CONVOLVE

}  // namespace convlet::cuda
