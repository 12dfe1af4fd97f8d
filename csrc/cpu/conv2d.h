// conv2d forward and its gradient with respect to the input: see correlation.h. (The gradient with
// respect to the weights is in conv2d_backward_weight.h.)
namespace convlet::CONVLET_ISA {

// Packs the weights w (R,S,C/G,K) as the panels that the tiles read. Forward, a panel's rows are
// taps and input channels and its columns output channels; backward the two kinds of channels
// change places.
template <class Product>
inline void pack_weights(Context& context, const Conv2dShape& s, const Correlation& k,
                         const float* w, float* packed) {
  const std::int64_t panels = k.panels.count(), taps = s.R * s.S, depth = taps * k.terms;
  const std::int64_t group_size = depth * k.panels.padded_columns();
  const std::int64_t terms = k.source_channels / s.groups;
  parallel_for(
      context, taps * k.groups * panels, grain_of(k.terms * smaller(kPanel, k.panels.columns)),
      [&](std::int64_t begin, std::int64_t end, int) {
        for (std::int64_t item = begin; item < end; ++item) {
          const std::int64_t tap = item % taps, group = item / taps / panels;
          const std::int64_t panel = item / taps % panels;
          const int columns = k.panels.columns_of(panel), width = k.panels.width_of(panel);
          const float* from = w + tap * (s.C / s.groups) * s.K + group * (s.K / s.groups);
          float* to = packed + group * group_size + k.panels.offset_of(panel, depth) +
                      k.tap_index(tap / s.S, tap % s.S) * k.terms * width;
          if (k.h.forward)
            Product::pack(from + panel * kPanel, s.K, terms, columns, width, to);
          else
            Product::pack_turned(from + panel * kPanel * s.K, s.K, terms, columns, width, to);
        }
      });
}

// What for_each_region computes, from packed weights: sum over taps, bias, residual, activation.
// The residual, which may be null, lies as the whole result y does. The first region, which meets
// most taps, asks for what comes next: a share of the next block's images for each panel, or many
// weights.
template <class Product>
inline auto weighted_sums(const Conv2dShape& s, const Correlation& k, const float* packed,
                          const float* bias, Activation activation, const float* residual = nullptr,
                          const float* y = nullptr) {
  const std::int64_t panels = k.panels.count(), depth = s.R * s.S * k.terms;
  const std::int64_t weights = depth * k.panels.columns;
  const bool fetches_images =
      !k.copied &&
      worth_fetching_images(s.N * k.h.source * k.w.source * k.source_channels, weights * k.groups);
  const bool fetches_weights = !fetches_images && worth_fetching(weights);
  const std::int64_t block_floats =
      k.blocks.images * k.blocks.rows * k.windows.step_h * k.pitch.row;
  const std::int64_t each = fetches_images ? ceil_div(block_floats, k.groups * panels * depth) : 0;
  return [=, &k](const float* images, const Region& region, const Row* rows, std::int64_t row_count,
                 std::int64_t index, float* result) {
    const std::int64_t group = index / panels, panel = index % panels;
    const std::int64_t channel = group * k.panels.columns + panel * kPanel;
    const int width = k.panels.width_of(panel);
    const float* b =
        packed + group * depth * k.panels.padded_columns() + k.panels.offset_of(panel, depth);
    const bool asks = &region == k.regions && region.run_count > 0;
    for_each_stretch(
        region.runs, region.run_count,
        [&](const Run* runs, std::int64_t run_count, bool first, bool last) {
          Ahead ahead;
          if (asks && fetches_images)
            ahead = {images + block_floats + each * (index * depth + runs->b), each};
          else if (asks && fetches_weights)
            ahead = {b + (runs[run_count - 1].b + runs[run_count - 1].count) * width, width};
          multiply<Product>(images + group * k.terms, rows, row_count, runs, run_count, b, width,
                            result + channel, k.panels.columns_of(panel),
                            {first && bias ? bias + channel : nullptr, !first,
                             last ? activation : Activation::none,
                             last && residual ? residual + (result - y) + channel : nullptr},
                            ahead);
        });
  };
}

template <class Product>
inline void correlate(Context& context, const Conv2dShape& s, bool forward, const float* source,
                      const float* w, const float* bias, Activation activation, float* result,
                      void* memory) {
  if (s.N == 0) return;
  if constexpr (!Product::converts)
    if (is_depthwise(s))
      return depthwise(context, s, forward ? Pass::forward : Pass::backward_input, source, w, bias,
                       activation, result, memory);
  const Correlation k = make_correlation<Product>(s, forward, context.threads(), memory);
  pack_weights<Product>(context, s, k, w, k.weights);
  for_each_region<Product>(context, k, source, result,
                           weighted_sums<Product>(s, k, k.weights, bias, activation));
}

inline void conv2d(Context& context, const Conv2dShape& shape, const float* x, const float* w,
                   const float* bias, Activation activation, float* y, void* workspace) {
  correlate<Float32>(context, shape, true, x, w, bias, activation, y, workspace);
}

inline void conv2d_backward_input(Context& context, const Conv2dShape& shape, const float* dy,
                                  const float* w, float* dx, void* workspace) {
  correlate<Float32>(context, shape, false, dy, w, nullptr, Activation::none, dx, workspace);
}

}  // namespace convlet::CONVLET_ISA
