// What conv2d and its gradient with respect to the input have in common: windows over a source
// image, whose taps, weighted, make one pixel of a result image.
//
// Forward: the source is x and a window makes an output pixel.
//
// Gradient with respect to the input: the source is dy. Input row h, t = h + pad_top, gets
//   dx[h] = sum over r with (t - r*dilation_h) % stride_h == 0 of dy[(t - r*dilation_h) / stride_h]
//   w[r]
// and columns likewise. Input rows with the same t % stride_h meet the same taps: those r that are
// equal modulo stride_h / gcd(stride_h, dilation_h). With i = t / stride_h, tap r reads source row
// i - (r*dilation_h) / stride_h: an ordinary correlation of stride 1 for each remainder, and no
// zero between strided rows is ever multiplied. Remainders that meet no tap are zero.
//
// Along each axis neighbouring windows that meet the same taps form a band; a band of rows and one
// of columns make a region. Taps that fall into the padding are left out at the border (trimmed),
// which gives the border windows bands of their own; or, where those would be too thin for the
// tiles, the source is copied with its padding and all windows meet all taps. A Product that
// converts copies in any case; "channels" of the source are then its elements.
namespace convlet::CONVLET_ISA {

// Windows [begin, end) along an axis. They meet the taps tap, tap + tap_step, ... (in the order of
// the source's memory); window i makes result row or column first + i * step.
struct Band {
  std::int64_t begin, end;
  std::int64_t tap, taps, tap_step;
  std::int64_t first;
};

struct Axis {
  bool forward;
  std::int64_t source, windows, origin, step, extent;  // as in Windows
  std::int64_t taps, dilation, stride;
  std::int64_t result, result_origin, result_step;
  std::int64_t period;  // taps that are equal modulo this belong together

  // Where a tap reads, relative to its window.
  std::int64_t offset_of(std::int64_t tap) const {
    return forward ? tap * dilation : extent - 1 - tap * dilation / stride;
  }
  // How many remainders meet taps; when all of result_step do, every result row belongs to a band.
  std::int64_t remainders() const { return smaller(period, taps); }
  bool covered() const { return remainders() == result_step; }
};

inline std::int64_t gcd(std::int64_t a, std::int64_t b) {
  return b == 0 ? a : gcd(b, a % b);
}

inline Axis make_axis(bool forward, std::int64_t x, std::int64_t y, std::int64_t taps,
                      std::int64_t stride, std::int64_t dilation, std::int64_t pad) {
  if (forward)
    return {true,   x, y, -pad, stride, dilation * (taps - 1) + 1, taps, dilation,
            stride, y, 0, 1,    1};
  const std::int64_t extent = dilation * (taps - 1) / stride + 1;
  const std::int64_t first = pad / stride, last = (x - 1 + pad) / stride;
  return {false,
          y,
          last - first + 1,
          first - extent + 1,
          1,
          extent,
          taps,
          dilation,
          stride,
          x,
          first * stride - pad,
          stride,
          stride / gcd(stride, dilation)};
}

// The first window i >= 0 with i * step >= distance.
inline std::int64_t first_window(std::int64_t distance, std::int64_t step) {
  return distance > 0 ? ceil_div(distance, step) : 0;
}

// f(band) for all bands of an axis.
template <class F>
inline void for_each_band(const Axis& axis, bool trim, F&& f) {
  for (std::int64_t remainder = 0; remainder < axis.remainders(); ++remainder) {
    Band all;
    all.taps = ceil_div(axis.taps - remainder, axis.period);
    all.tap_step = axis.forward ? axis.period : -axis.period;
    all.tap = axis.forward ? remainder : remainder + (all.taps - 1) * axis.period;
    all.first = axis.forward ? 0 : axis.result_origin + remainder * axis.dilation % axis.stride;
    all.begin = first_window(-all.first, axis.result_step);
    all.end = smaller(axis.windows, first_window(axis.result - all.first, axis.result_step));
    if (!trim) {
      if (all.begin < all.end) f(all);
      continue;
    }
    while (all.begin < all.end) {
      Band band = all;
      band.taps = 0;
      for (std::int64_t t = 0; t < all.taps; ++t) {
        const std::int64_t tap = all.tap + t * all.tap_step;
        const std::int64_t at = axis.origin + axis.offset_of(tap);
        const std::int64_t enters = first_window(-at, axis.step);
        const std::int64_t leaves = first_window(axis.source - at, axis.step);
        if (enters <= all.begin && all.begin < leaves && band.taps++ == 0) band.tap = tap;
        if (enters > all.begin) band.end = smaller(band.end, enters);
        if (leaves > all.begin) band.end = smaller(band.end, leaves);
      }
      f(band);
      all.begin = band.end;
    }
  }
}

// A larger window would have very many regions.
constexpr std::int64_t kMostTrimmedTaps = 7;

// After sums of so few terms storing them sets the pace: then all panels take some rows at a time,
// and a pixel's results reach its cache lines one after the other.
constexpr std::int64_t kFewTerms = 64, kFewTermsRows = 96;

struct Region {
  Band rows, columns;
  const Run* runs;
  std::int64_t run_count;

  std::int64_t taps() const { return rows.taps * columns.taps; }
};

struct Correlation {
  Axis h, w;
  Windows windows;
  Blocks blocks;
  Pitch pitch;  // of the images that the tiles read: the source's, or a padded copy's
  bool trimmed, copied;
  std::int64_t copy_floats, block_pixels;  // per worker
  // Of conv2d_pool: forward, the rows of a pooling window, else 0; blocks are whole windows then,
  // and a block's results stay in memory of the worker's own.
  std::int64_t pool_rows;
  std::int64_t block_results;  // per worker

  std::int64_t source_channels;  // as values, however many elements hold them
  std::int64_t groups, terms;    // terms: source channels of a group
  Panels panels;                 // result channels of a group
  std::int64_t panel_chunks;     // into which every block's panels are cut (see chunks_of)
  std::int64_t rows_together;    // that all panels take before the next ones

  std::int64_t result_channels;

  Region* regions;
  std::int64_t region_count;
  float* weights;  // packed: [group][panel][tap, source channel][panel width]
  float* copies;
  float* results;  // with pool_rows only
  Row* rows;
  std::int64_t* row_ends;  // of each region, in the rows of a block
  std::size_t bytes;       // of workspace

  std::int64_t packed_floats() const {
    return h.taps * w.taps * terms * groups * panels.padded_columns();
  }
  // The place of a tap in the packed weights: taps that are neighbours in the source are
  // neighbours.
  std::int64_t tap_index(std::int64_t r, std::int64_t s) const {
    const std::int64_t index = r * w.taps + s;
    return h.forward ? index : h.taps * w.taps - 1 - index;
  }
};

// Beside a panel's stretch this stays in a second-level cache of 512 KB, and two images of 8x8x256
// fit, whose border windows then fill tiles together.
constexpr std::int64_t kCorrelationBytes = 320 * 1024;

// The time of an image's blocks in a large batch, in terms per tile row: a tile of fewer than 4
// rows takes as long as one of 4. Neither the batch nor the threads matter, so that they do not
// change the bits.
inline std::int64_t cost_of(const Axis& h, const Axis& w, const Blocks& blocks, bool trim) {
  std::int64_t cost = 0;
  for_each_band(h, trim, [&](const Band& rows) {
    for_each_band(w, trim, [&](const Band& columns) {
      const std::int64_t last = (rows.end - 1) / blocks.rows;
      for (std::int64_t block = rows.begin / blocks.rows; block <= last; ++block) {
        const std::int64_t begin = larger(rows.begin, block * blocks.rows);
        const std::int64_t end = smaller(rows.end, (block + 1) * blocks.rows);
        const std::int64_t pixels = blocks.images * (end - begin) * (columns.end - columns.begin);
        cost += rows.taps * columns.taps * larger(4, pixels);
      }
    });
  });
  return cost;
}

inline bool worth_trimming(const Axis& h, const Axis& w, Windows windows, std::int64_t results) {
  if (!windows.padded() || h.taps > kMostTrimmedTaps || w.taps > kMostTrimmedTaps) return false;
  windows.images = 64;
  const Blocks blocks = cut_into_blocks(windows, results, kCorrelationBytes, 1);
  return cost_of(h, w, blocks, true) <= cost_of(h, w, blocks, false);
}

// Lists the regions and their runs, one that meets most taps first, or only counts them. Returns
// the number of runs.
inline std::int64_t list_regions(Correlation& k, Run* runs) {
  std::int64_t run_count = 0;
  k.region_count = 0;
  for_each_band(k.h, k.trimmed, [&](const Band& rows) {
    for_each_band(k.w, k.trimmed, [&](const Band& columns) {
      RunList list(runs ? runs + run_count : nullptr);
      for (std::int64_t a = 0; a < rows.taps; ++a)
        for (std::int64_t b = 0; b < columns.taps; ++b) {
          const std::int64_t r = rows.tap + a * rows.tap_step,
                             s = columns.tap + b * columns.tap_step;
          const std::int64_t offset =
              k.h.offset_of(r) * k.pitch.row + k.w.offset_of(s) * k.pitch.pixel;
          list.add({offset, k.terms, 1, k.tap_index(r, s) * k.terms});
        }
      if (runs) k.regions[k.region_count] = {rows, columns, runs + run_count, list.count()};
      run_count += list.count();
      ++k.region_count;
    });
  });
  std::int64_t most = 0;
  for (std::int64_t i = 1; runs && i < k.region_count; ++i)
    if (k.regions[i].taps() > k.regions[most].taps()) most = i;
  if (most > 0) {
    const Region first = k.regions[0];
    k.regions[0] = k.regions[most];
    k.regions[most] = first;
  }
  return run_count;
}

// Each chunk of panels lists the rows of its blocks anew, so it should have a few.
constexpr std::int64_t kLeastPanels = 4;

// Whether the threads share the panels of a few images rather than their pixels, each panel being
// read once then: where there are more weights than values of an image. Most of the second-level
// cache may keep the image then.
constexpr std::int64_t kImageBytes = 448 * 1024;
inline bool shares_panels(const Windows& w, std::int64_t weights, std::int64_t panels,
                          int threads) {
  return w.images < threads && panels >= kLeastPanels * threads &&
         weights > w.height * w.width * w.channels;
}

// Into how many chunks all panels are cut for the threads to have enough work, and equal shares of
// it where the blocks of a few images are not equal and there are panels enough.
inline std::int64_t chunks_of(const Windows& w, const Blocks& blocks, std::int64_t panels,
                              int threads) {
  if (blocks.count < threads)
    return smaller(panels, ceil_div(2 * threads, larger(1, blocks.count)));
  const bool equal = blocks.count % threads == 0 && w.rows % blocks.rows == 0;
  return w.images >= threads || equal || panels < kLeastPanels * threads ? 1 : threads;
}

// Lays out the work and its workspace; with no memory, only its size. pool_rows: 0, or those of the
// windows of a conv2d_pool. Weights that were packed before need no place.
template <class Product>
inline Correlation make_correlation(const Conv2dShape& s, bool forward, int threads, void* memory,
                                    std::int64_t pool_rows = 0, bool packed = false) {
  Correlation k = {};
  k.pool_rows = forward ? pool_rows : 0;
  k.h = make_axis(forward, s.H, s.P, s.R, s.stride_h, s.dilation_h, s.pad_top);
  k.w = make_axis(forward, s.W, s.Q, s.S, s.stride_w, s.dilation_w, s.pad_left);
  k.source_channels = forward ? s.C : s.K;
  const std::int64_t source_channels = s.groups * Product::elements(k.source_channels / s.groups);
  k.result_channels = forward ? s.K : s.C;
  k.windows = {s.N,        k.h.source, k.w.source, source_channels, k.h.windows, k.w.windows,
               k.h.origin, k.w.origin, k.h.step,   k.w.step,        k.h.extent,  k.w.extent};
  k.groups = s.groups;
  k.terms = source_channels / s.groups;
  k.panels = {k.result_channels / s.groups};
  const std::int64_t remainders = k.h.remainders() * k.w.remainders();
  const std::int64_t results = remainders * k.result_channels;
  const std::int64_t all_panels = k.groups * k.panels.count();
  const std::int64_t weights = k.h.taps * k.w.taps * k.terms * k.result_channels;
  if (pool_rows == 0 && shares_panels(k.windows, weights, all_panels, threads)) {
    k.blocks = cut_into_blocks(k.windows, 0, kImageBytes, 1);
    k.panel_chunks = threads;
  } else {
    k.blocks =
        cut_into_blocks(k.windows, results, k.pool_rows > 0 ? kBlockBytes : kCorrelationBytes,
                        threads, larger(1, k.pool_rows));
    k.panel_chunks = chunks_of(k.windows, k.blocks, all_panels, threads);
  }
  k.block_pixels = remainders * k.blocks.images * k.blocks.rows * k.windows.columns;
  k.block_results = k.pool_rows > 0 ? k.block_pixels * k.result_channels : 0;

  // The pooling of short sums wants all pixels to have the same taps.
  const bool short_sums = k.pool_rows > 0 && s.R * s.S * k.terms <= kStretch;
  k.trimmed = !short_sums && worth_trimming(k.h, k.w, k.windows, results);
  const bool pooled_source = !forward && pool_rows > 0;
  k.copied = Product::converts || pooled_source || (k.windows.padded() && !k.trimmed);
  k.pitch = source_pitch(k.windows);
  if (k.copied) {
    k.pitch = copy_pitch(k.windows, k.blocks, source_channels);
    k.copy_floats = k.blocks.images * k.pitch.image;
  }
  k.rows_together = s.R * s.S * k.terms <= kFewTerms ? kFewTermsRows : k.block_pixels;

  const std::int64_t run_count = list_regions(k, nullptr);
  Workspace workspace(memory);
  k.regions = workspace.take<Region>(k.region_count);
  Run* runs = workspace.take<Run>(run_count);
  k.weights = workspace.take<float>(packed ? 0 : k.packed_floats());
  k.copies = workspace.take<float>(k.copy_floats * threads);
  k.results = workspace.take<float>(k.block_results * threads);
  k.rows = workspace.take<Row>(k.block_pixels * threads);
  k.row_ends = workspace.take<std::int64_t>(k.region_count * threads);
  k.bytes = workspace.bytes();
  if (memory) list_regions(k, runs);
  return k;
}

// The rows of a block, region by region: where each window starts and which result pixel it makes,
// relative to the block's first image, or to the block itself where its results are its own.
inline void list_rows(const Correlation& k, const Block& block, Row* rows, std::int64_t* row_ends) {
  const std::int64_t height = k.pool_rows > 0 ? block.rows : k.h.result;
  const std::int64_t top = k.pool_rows > 0 ? block.row : 0;
  std::int64_t count = 0;
  for (std::int64_t index = 0; index < k.region_count; ++index) {
    const Band &r = k.regions[index].rows, &c = k.regions[index].columns;
    const std::int64_t begin = larger(r.begin, block.row),
                       end = smaller(r.end, block.row + block.rows);
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t h = r.first + i * k.h.result_step;
        const std::int64_t line = (n * height + h - top) * k.w.result;
        Row row = {k.pitch.window(k.windows, n, i - block.row, c.begin),
                   (line + c.first + c.begin * k.w.result_step) * k.result_channels};
        for (std::int64_t j = c.begin; j < c.end; ++j) {
          rows[count++] = row;
          row.a += k.windows.step_w * k.pitch.pixel;
          row.c += k.w.result_step * k.result_channels;
        }
      }
    row_ends[index] = count;
  }
}

// The first window of a block, in the source (it may start in the padding, where no tap reads) or
// in a copy made here.
template <class Product>
inline const float* images_of(const Correlation& k, const Block& block, const float* source,
                              float* to) {
  const Windows& w = k.windows;
  if constexpr (Product::converts) {
    Windows values = w;
    values.channels = k.source_channels;
    copy_block(values, block, k.pitch, source, to,
               [&](const float* from, float* at, std::int64_t pixels) {
                 Product::convert(from, pixels, k.source_channels, at);
               });
    return to;
  }
  if (!k.copied)
    return source +
           ((block.image * w.height + block.row * w.step_h + w.origin_h) * w.width + w.origin_w) *
               w.channels;
  copy_block(w, block, k.pitch, source, to, [&](const float* from, float* at, std::int64_t pixels) {
    copy(at, from, pixels * w.channels);
  });
  return to;
}

// Zeros a whole tensor.
inline void clear(Context& context, float* p, std::int64_t n) {
  for_elements(context, n,
               [=](std::int64_t begin, std::int64_t end) { clear(p + begin, end - begin); });
}

// For all blocks, panels and regions: compute(images, region, rows, row count, panel, result), with
// `images` from images_at(block, room for a copy) and `result` where the offsets of rows begin; the
// panels of a block come one after the other, so that one stays in the cache for all regions (but
// see kFewTerms). Then finish(block, its result, first panel, last panel).
template <class Images, class Compute, class Finish>
inline void for_each_region(Context& context, const Correlation& k, float* result,
                            Images&& images_at, Compute&& compute, Finish&& finish) {
  const std::int64_t image = k.h.result * k.w.result * k.result_channels;
  if (!k.h.covered() || !k.w.covered()) clear(context, result, k.windows.images * image);
  const std::int64_t all_panels = k.groups * k.panels.count();
  parallel_for(
      context, k.blocks.count * k.panel_chunks, 1,
      [&](std::int64_t begin, std::int64_t end, int worker) {
        Row* rows = k.rows + worker * k.block_pixels;
        std::int64_t* row_ends = k.row_ends + worker * k.region_count;
        Block listed = {};  // the block whose rows are listed: of others of its kind they are equal
        for (std::int64_t item = begin; item < end; ++item) {
          // A worker has few chunks and meets them in all blocks: their weights stay in its cache.
          const std::int64_t chunk = item / k.blocks.count;
          const Block block = block_at(k.windows, k.blocks, item % k.blocks.count);
          const float* images = images_at(block, k.copies + worker * k.copy_floats);
          float* to =
              k.pool_rows > 0 ? k.results + worker * k.block_results : result + block.image * image;
          if (block.row != listed.row || block.rows != listed.rows || block.images != listed.images)
            list_rows(k, block, rows, row_ends);
          listed = block;
          const std::int64_t first_panel = all_panels * chunk / k.panel_chunks;
          const std::int64_t last_panel = all_panels * (chunk + 1) / k.panel_chunks;
          for (std::int64_t group = 0; group < k.block_pixels; group += k.rows_together)
            for (std::int64_t panel = first_panel; panel < last_panel; ++panel)
              for (std::int64_t r = 0; r < k.region_count; ++r) {
                const std::int64_t first = larger(group, r > 0 ? row_ends[r - 1] : 0);
                const std::int64_t last = smaller(group + k.rows_together, row_ends[r]);
                if (first < last)
                  compute(images, k.regions[r], rows + first, last - first, panel, to);
              }
          finish(block, to, first_panel, last_panel);
        }
      });
}

// The same from a source in memory, with nothing more to do to a block.
template <class Product, class Compute>
inline void for_each_region(Context& context, const Correlation& k, const float* source,
                            float* result, Compute&& compute) {
  for_each_region(
      context, k, result,
      [&](const Block& block, float* copy) { return images_of<Product>(k, block, source, copy); },
      compute, [](const Block&, const float*, std::int64_t, std::int64_t) {});
}

}  // namespace convlet::CONVLET_ISA
