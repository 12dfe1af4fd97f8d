// conv2d's gradient with respect to the weights:
//   dw[r,s,c,k] = sum over n,p,q of x[n, p*stride_h + r*dilation_h - pad_top, ..., c] * dy[n,p,q,k]
// With the tile of gemm.h: its rows are the taps (r,s,c), its terms the pixels of a block of x, and
// b is dy, packed per block. The accumulators stay in registers for a stretch of pixels over
// several image rows. The blocks are cut into parts that depend on the shape alone; each part has a
// dw of its own, and the parts are added in order. Where an element holds two terms, they are the
// same pixel of two neighbouring images: "images" are pairs of them then.
namespace convlet::CONVLET_ISA {

struct WeightGradient {
  Windows windows;
  Blocks blocks;
  Pitch pitch;
  // Where there is padding: trimmed, each tap (r,s) has a list of the pixels that it meets; or else
  // x is copied with its padding, and all taps meet all pixels.
  bool trimmed, copied;
  // A window of one pixel: x is packed as dy is, as panels of channels, each with the pixels that
  // windows start at one after the other.
  bool pointwise;
  std::int64_t copy_floats, block_pixels, block_runs;
  std::int64_t groups;
  Panels panels;  // output channels of a group

  std::int64_t parts, panel_chunks;
  std::int64_t row_count;  // R*S*(C/G)
  std::int64_t dw_size;

  Row* rows;
  float* parts_dw;  // of parts 1, 2, ...
  float* copies;
  float* gradients;  // dy, packed
  Run* runs;
  std::size_t bytes;
};

// Rows that pass by all panels together: their values stay in the second-level cache meanwhile.
constexpr std::int64_t kRowsTogether = 96;
// At most so many rows, those of first layers, read dy where it is; so do more of a pointwise x.
constexpr std::int64_t kFewRows = 32, kFewPointwiseRows = 64;

// Blocks of at most kStretch pixels, as many as a tile takes at once, whatever lies between them.
inline Blocks cut_into_pixels(Windows w, std::int64_t result_channels, std::int64_t least) {
  w.step_h = w.step_w = 1;
  const std::int64_t pixel_bytes = 4 * (w.channels + result_channels) + 16;
  return cut_into_blocks(w, result_channels, kStretch * pixel_bytes, least);
}

// The windows of x that the pixels of dy see.
inline Windows windows_of_images(const Conv2dShape& s) {
  return {s.N,
          s.H,
          s.W,
          s.C,
          s.P,
          s.Q,
          -s.pad_top,
          -s.pad_left,
          s.stride_h,
          s.stride_w,
          s.dilation_h * (s.R - 1) + 1,
          s.dilation_w * (s.S - 1) + 1};
}

template <class Product>
inline WeightGradient make_weight_gradient(const Conv2dShape& s, int threads, void* memory) {
  WeightGradient g;
  g.windows = windows_of_images(s);
  g.windows.images = Product::elements(s.N);
  g.groups = s.groups;
  g.panels = {s.K / s.groups};
  g.row_count = s.R * s.S * (s.C / s.groups);
  g.dw_size = g.row_count * s.K;
  // A pass over dw must not cost more than the pixels of a part, or of a block, are worth.
  const std::int64_t dw_bytes = g.dw_size * static_cast<std::int64_t>(sizeof(float));
  const std::int64_t parts = most_parts(g.windows.images * s.P * s.Q, g.dw_size);
  g.pointwise = s.R == 1 && s.S == 1 && s.groups == 1 && !g.windows.padded();
  g.blocks = g.pointwise
                 ? cut_into_pixels(g.windows, s.K, parts)
                 : cut_into_blocks(g.windows, s.K, larger(kBlockBytes, dw_bytes / 4), parts);
  g.parts = smaller(parts, larger(1, g.blocks.count));

  // Pixels at a distance of many cache lines, a power of two, compete for the same few places in
  // the cache: then they are copied to a distance of an odd number of lines.
  g.trimmed = g.windows.padded() && s.C / s.groups >= 4;
  const bool spread = s.C % 128 == 0;
  g.copied = Product::converts || spread || (g.windows.padded() && !g.trimmed);
  g.pitch =
      g.copied ? copy_pitch(g.windows, g.blocks, s.C + (spread ? 16 : 0)) : source_pitch(g.windows);
  g.copy_floats = g.copied ? g.blocks.images * g.pitch.image : 0;
  g.block_pixels = g.blocks.images * g.blocks.rows * s.Q;
  if (g.pointwise) g.copy_floats = Panels{s.C}.count() * kPanel * g.block_pixels;
  g.block_runs = RunList::most(g.blocks.images * g.blocks.rows, g.block_pixels);

  const std::int64_t all_panels = g.groups * g.panels.count();
  g.panel_chunks = chunks_of_parts(g.parts, all_panels, threads);

  const std::int64_t chunk_columns =
      ceil_div(all_panels, g.panel_chunks) * smaller(kPanel, g.panels.padded_columns());
  Workspace workspace(memory);
  g.rows = workspace.take<Row>(g.row_count);
  g.parts_dw = workspace.take<float>((g.parts - 1) * g.dw_size);
  g.copies = workspace.take<float>(g.copy_floats * threads);
  g.gradients = workspace.take<float>(g.block_pixels * chunk_columns * threads);
  g.runs = workspace.take<Run>(g.block_runs * threads);
  g.bytes = workspace.bytes();

  if (memory && g.pointwise) {
    for (std::int64_t c = 0; c < s.C; ++c)
      g.rows[c] = {c / kPanel * kPanel * g.block_pixels + c % kPanel, c * s.K};
  } else if (memory) {
    Row* row = g.rows;
    const std::int64_t terms = s.C / s.groups;
    for (std::int64_t r = 0; r < s.R; ++r)
      for (std::int64_t c = 0; c < s.S; ++c)
        for (std::int64_t i = 0; i < terms; ++i, ++row)
          *row = {r * s.dilation_h * g.pitch.row + c * s.dilation_w * g.pitch.pixel + i,
                  ((r * s.S + c) * terms + i) * s.K};
  }
  return g;
}

// The pixels of a block whose tap (r,s) reads inside the image.
inline std::int64_t list_pixels(const WeightGradient& g, const Block& block, std::int64_t tap_h,
                                std::int64_t tap_w, Run* runs) {
  const Windows& w = g.windows;
  std::int64_t top = 0, bottom = w.rows, left = 0, right = w.columns;
  if (g.trimmed) {
    top = first_window(-(w.origin_h + tap_h), w.step_h);
    bottom = smaller(bottom, first_window(w.height - (w.origin_h + tap_h), w.step_h));
    left = first_window(-(w.origin_w + tap_w), w.step_w);
    right = smaller(right, first_window(w.width - (w.origin_w + tap_w), w.step_w));
  }
  top = larger(top, block.row) - block.row;
  bottom = smaller(bottom, block.row + block.rows) - block.row;
  RunList list(runs);
  if (g.pointwise) {
    list.add({0, block.images * block.rows * w.columns, kPanel, 0});
    return list.count();
  }
  for (std::int64_t n = 0; n < block.images; ++n)
    for (std::int64_t i = top; i < bottom; ++i)
      list.add({g.pitch.window(w, n, i, left), right - left, w.step_w * g.pitch.pixel,
                (n * block.rows + i) * w.columns + left});
  return list.count();
}

// Packs `count` pixels, `stride` floats apart, for all panels that for_panels names; neighbouring
// pixels are read together, whole. `next` are the same pixels of the next image, or null.
template <class Product, class ForPanels>
inline void pack_pixels(const float* from, const float* next, std::int64_t stride,
                        std::int64_t count, std::int64_t first, ForPanels&& for_panels) {
  constexpr std::int64_t kPixels = 4;
  for (std::int64_t i = 0; i < count; i += kPixels)
    for_panels([&](std::int64_t channel, int columns, int width, float* to) {
      const std::int64_t at = i * stride + channel;
      Product::pack_pixels(from + at, next ? next + at : nullptr, stride,
                           smaller(kPixels, count - i), columns, width, to + (first + i) * width);
    });
}

// What the tiles of a block ask for while they multiply: dy of the next block, then, with stride 1,
// its x. No dy asks for nothing.
class NextBlock {
 public:
  // It is shared out among `calls` calls of take, each for all pixels of the block.
  NextBlock(const Conv2dShape& s, const Block& block, const float* x, const float* dy,
            std::int64_t calls) {
    const std::int64_t values = s.N * (s.H * s.W * s.C + s.P * s.Q * s.K);
    if (!dy || !worth_fetching_images(values, s.R * s.S * (s.C / s.groups) * s.K)) return;
    const std::int64_t pixels = block.images * block.rows * s.Q;
    const std::int64_t row = (block.image + block.images - 1) * s.H + block.row + block.rows;
    dy_floats_ = pixels * s.K;
    dy_ = dy + dy_floats_;
    x_ = x + row * s.W * s.C;
    each_ = ceil_div(s.K + (s.stride_h * s.stride_w == 1 ? s.C : 0), calls);
  }

  // For the next `pixels` terms.
  Ahead take(std::int64_t pixels) {
    const float* from = at_ < dy_floats_ ? dy_ + at_ : x_ + (at_ - dy_floats_);
    at_ += each_ * pixels;
    return {from, each_};
  }

 private:
  const float *dy_ = nullptr, *x_ = nullptr;
  std::int64_t dy_floats_ = 0, each_ = 0, at_ = 0;
};

// Adds one block to a part's dw, for the panels [first_panel, last_panel) of all groups. dy is that
// of the block, or null where it is not in memory; pack(block, for_panels) packs it, where
// for_panels(f) calls f(first channel, columns, width, to) for each of the panels.
template <class Product, class Pack>
inline void add_block(const Conv2dShape& s, const WeightGradient& g, const Block& block,
                      const float* x, const float* images, const float* dy, Pack&& pack,
                      std::int64_t first_panel, std::int64_t last_panel, Run* runs, float* packed,
                      float* dw, bool first_block) {
  const std::int64_t pixels = block.images * block.rows * s.Q;
  const std::int64_t panels = g.panels.count(), terms = s.C / s.groups;
  const std::int64_t panel_size = smaller(kPanel, g.panels.padded_columns()) * pixels;
  auto channel_of = [&](std::int64_t p) {
    return p / panels * g.panels.columns + p % panels * kPanel;
  };
  // So few rows read it too few times for packing to pay.
  const bool in_place = !Product::converts && dy && g.panels.columns % V::width == 0 &&
                        g.row_count <= (g.pointwise ? kFewPointwiseRows : kFewRows);
  if (!in_place)
    pack(block, [&](auto&& f) {
      for (std::int64_t p = first_panel; p < last_panel; ++p)
        f(channel_of(p), g.panels.columns_of(p % panels), g.panels.width_of(p % panels),
          packed + (p - first_panel) * panel_size);
    });

  const std::int64_t tap_lists = g.trimmed ? s.R * s.S : 1;
  const std::int64_t rows_per_list = g.row_count / tap_lists;
  NextBlock next(s, block, x, Product::converts ? nullptr : dy,
                 tap_lists * ceil_div(rows_per_list, kRowsTogether) * (last_panel - first_panel));
  for (std::int64_t tap = 0; tap < tap_lists; ++tap) {
    const Row* rows = g.rows + tap * rows_per_list;
    const std::int64_t run_count =
        list_pixels(g, block, tap / s.S * s.dilation_h, tap % s.S * s.dilation_w, runs);
    for (std::int64_t row = 0; row < rows_per_list; row += kRowsTogether)
      for_each_stretch(
          runs, run_count, [&](const Run* stretch, std::int64_t count, bool first, bool) {
            const std::int64_t pixels_together = terms_of(stretch, count);
            for (std::int64_t p = first_panel; p < last_panel; ++p)
              multiply<Product>(
                  images + p / panels * terms, rows + row,
                  smaller(kRowsTogether, rows_per_list - row), stretch, count,
                  in_place ? dy + channel_of(p) : packed + (p - first_panel) * panel_size,
                  in_place ? s.K : g.panels.width_of(p % panels), dw + channel_of(p),
                  g.panels.columns_of(p % panels),
                  {nullptr, !first_block || !first, Activation::none}, next.take(pixels_together));
          });
  }
}

// The pixels of a block of a pointwise x, as panels.
template <class Product>
inline void pack_images(const WeightGradient& g, const Block& block, std::int64_t N, const float* x,
                        float* to) {
  const Windows& w = g.windows;
  const std::int64_t row = w.width * w.channels, image = w.height * row;
  const Panels panels = {w.channels};
  for (std::int64_t n = 0; n < block.images; ++n)
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const std::int64_t first = Product::terms * (block.image + n);
      const float* from = x + first * image + (block.row + i) * w.step_h * row;
      pack_pixels<Product>(from, first + 1 < N ? from + image : nullptr, w.step_w * w.channels,
                           w.columns, (n * block.rows + i) * w.columns, [&](auto&& f) {
                             for (std::int64_t p = 0; p < panels.count(); ++p)
                               f(p * kPanel, panels.columns_of(p), kPanel,
                                 to + p * kPanel * g.block_pixels);
                           });
    }
}

// A block's images as the tiles read them.
template <class Product>
inline const float* images_of(const WeightGradient& g, const Block& block, std::int64_t N,
                              const float* x, float* to) {
  const Windows& w = g.windows;
  const std::int64_t C = w.channels;
  if (g.pointwise) {
    pack_images<Product>(g, block, N, x, to);
    return to;
  }
  if constexpr (Product::converts) {
    const std::int64_t image = w.height * w.width * C;
    for (std::int64_t n = 0; n < block.images; ++n) {
      const std::int64_t index = block.image + n;
      const bool whole = 2 * index + 1 < N;
      copy_block(w, {index, 1, block.row, block.rows}, g.pitch, x + index * image,
                 to + n * g.pitch.image, [&](const float* from, float* at, std::int64_t pixels) {
                   const std::int64_t step = g.pitch.pixel == C ? pixels : 1;
                   for (std::int64_t p = 0; p < pixels; p += step)
                     pair_values(from + p * C, whole ? from + image + p * C : nullptr, step * C,
                                 at + p * g.pitch.pixel);
                 });
    }
    return to;
  }
  if (!g.copied)
    return x +
           ((block.image * w.height + block.row * w.step_h + w.origin_h) * w.width + w.origin_w) *
               C;
  copy_block(w, block, g.pitch, x, to, [&](const float* from, float* at, std::int64_t pixels) {
    if (g.pitch.pixel == C) return copy(at, from, pixels * C);
    for (std::int64_t p = 0; p < pixels; ++p, at += g.pitch.pixel, from += C) copy(at, from, C);
  });
  return to;
}

// dw from a dy that `pack` packs (see add_block); dy itself may be null.
template <class Product, class Pack>
inline void weight_gradient(Context& context, const Conv2dShape& s, const float* dy, Pack&& pack,
                            const float* x, float* dw, void* memory) {
  if (s.N == 0) return clear(context, dw, s.R * s.S * (s.C / s.groups) * s.K);
  const WeightGradient g = make_weight_gradient<Product>(s, context.threads(), memory);
  const std::int64_t all_panels = g.groups * g.panels.count();
  const std::int64_t chunk_floats = ceil_div(all_panels, g.panel_chunks) *
                                    smaller(kPanel, g.panels.padded_columns()) * g.block_pixels;
  parallel_for(
      context, g.parts * g.panel_chunks, 1, [&](std::int64_t begin, std::int64_t end, int worker) {
        float* copies = g.copies + worker * g.copy_floats;
        float* packed = g.gradients + worker * chunk_floats;
        for (std::int64_t item = begin; item < end; ++item) {
          const std::int64_t part = item / g.panel_chunks, chunk = item % g.panel_chunks;
          float* part_dw = part == 0 ? dw : g.parts_dw + (part - 1) * g.dw_size;
          const std::int64_t first_block = g.blocks.count * part / g.parts;
          const std::int64_t last_block = g.blocks.count * (part + 1) / g.parts;
          for (std::int64_t index = first_block; index < last_block; ++index) {
            const Block block = block_at(g.windows, g.blocks, index);
            const float* images = images_of<Product>(g, block, s.N, x, copies);
            const float* block_dy = dy ? dy + (block.image * s.P + block.row) * s.Q * s.K : nullptr;
            add_block<Product>(
                s, g, block, x, images, block_dy, pack, all_panels * chunk / g.panel_chunks,
                all_panels * (chunk + 1) / g.panel_chunks, g.runs + worker * g.block_runs, packed,
                part_dw, index == first_block);
          }
        }
      });
  add_parts(context, g.parts, g.dw_size, g.parts_dw, dw);
}

template <class Product>
inline void correlate_weight(Context& context, const Conv2dShape& s, const float* dy,
                             const float* x, float* dw, void* memory) {
  if constexpr (!Product::converts)
    if (is_depthwise(s)) return depthwise_backward_weight(context, s, dy, x, dw, memory);
  const std::int64_t image = s.P * s.Q * s.K;
  auto pack = [&](const Block& block, auto&& for_panels) {
    const std::int64_t pixels = block.rows * s.Q;
    for (std::int64_t n = 0; n < block.images; ++n) {
      const std::int64_t first = Product::terms * (block.image + n);
      const float* from = dy + first * image + block.row * s.Q * s.K;
      pack_pixels<Product>(from, first + 1 < s.N ? from + image : nullptr, s.K, pixels, n * pixels,
                           for_panels);
    }
  };
  weight_gradient<Product>(context, s, dy, pack, x, dw, memory);
}

inline void conv2d_backward_weight(Context& context, const Conv2dShape& shape, const float* dy,
                                   const float* x, float* dw, void* workspace) {
  correlate_weight<Float32>(context, shape, dy, x, dw, workspace);
}

template <class Product>
inline std::size_t correlation_workspace(const Conv2dShape& shape, Pass pass, int threads) {
  if constexpr (!Product::converts)
    if (is_depthwise(shape)) return make_depthwise(shape, pass, threads, nullptr).bytes;
  if (pass == Pass::backward_weight)
    return make_weight_gradient<Product>(shape, threads, nullptr).bytes;
  return make_correlation<Product>(shape, pass == Pass::forward, threads, nullptr).bytes;
}

inline std::size_t conv2d_workspace(const Conv2dShape& shape, Pass pass, int threads) {
  return correlation_workspace<Float32>(shape, pass, threads);
}

}  // namespace convlet::CONVLET_ISA
