// conv2d, its activation and max pooling in one (see ops/conv2d_pool.h). Forward, a block of the
// convolution's results is pooled while it is in the cache, or, of short sums, in registers.
// Backward, the gradient of the convolution is made of dy and the choice of each window where it is
// read: in the copy of a block for the gradient of the input, in packed panels for that of the
// weights.
namespace convlet::CONVLET_ISA {

// Pools channels [channel, end) of a block whose convolution is in z (images, rows, Q, K).
inline void pool_block(const Conv2dPoolShape& s, const Block& block, const float* z,
                       std::int64_t channel, std::int64_t end, bool relu, float* y,
                       std::uint8_t* choices) {
  const Pool2dShape& pool = s.pool;
  const std::int64_t rows = block.rows / pool.R;
  for (std::int64_t i = 0; i < block.images * rows; ++i) {
    const std::int64_t line = (block.image + i / rows) * pool.P + block.row / pool.R + i % rows;
    for (std::int64_t q = 0; q < pool.Q; ++q) {
      const float* from = z + (i * pool.R * pool.W + q * pool.S) * pool.C;
      const std::int64_t to = (line * pool.Q + q) * pool.C;
      with_grid(pool, pool.R, pool.S, [&](const auto& grid) {
        for_vectors(channel, end, [&](std::int64_t c, auto lanes) {
          if (!choices) {
            const V maximum = window_maximum(grid, from + c, lanes);
            return store(y + to + c, relu ? activate(Activation::relu, maximum) : maximum, lanes);
          }
          Choice choice = choose(grid, from + c, lanes);
          const V maximum = choice.maximum;
          if (relu)
            choice = {
                activate(Activation::relu, maximum),
                select((maximum > zero()) | is_nan(maximum), choice.pixel, broadcast(kClosed))};
          store(y + to + c, choice.maximum, lanes);
          store_as_bytes(choices + to + c, choice.pixel, lanes);
        });
      });
    }
  }
}

// The maximum of four values and its place, as `choose` of pool2d.h; relu closes windows.
inline Choice choose_of_four(const V* value, bool relu) {
  Choice choice = {value[0], zero()};
  V sum = value[0];
  CONVLET_UNROLL
  for (int i = 1; i < 4; ++i) {
    choice.pixel =
        select(value[i] > choice.maximum, broadcast(static_cast<float>(i)), choice.pixel);
    choice.maximum = max(value[i], choice.maximum);
    sum = sum + value[i];
  }
  if (any(is_nan(sum))) {
    using Two = std::integral_constant<std::int64_t, 2>;
    float memory[4 * V::width];
    for (int i = 0; i < 4; ++i) store(memory + i * V::width, value[i]);
    choice = choose(Grid<Two>{Two(), Two(), 2 * V::width, V::width}, memory, All());
  }
  if (!relu) return choice;
  const Mask open = (choice.maximum > zero()) | is_nan(choice.maximum);
  return {activate(Activation::relu, choice.maximum),
          select(open, choice.pixel, broadcast(kClosed))};
}

// A row of windows of 2x2 pixels, which begin `step` apart, and a panel of output channels.
struct PooledRow {
  std::int64_t windows, step;  // windows lie `step` apart
  std::int64_t right, below;   // from a pixel to its neighbours
  const std::int64_t* terms;   // offsets of a sum's terms from its pixel
  std::int64_t count;          // of terms
  const float* bias;           // null is zero
  bool relu;
  std::int64_t K;  // from a result to the next
};
// How many windows are taken at a time: their sums and values are in registers, beside a vector of
// b. One window of few channels would wait for its own sums and load a vector of b for each four.
constexpr int windows_at_once(int vectors) {
  return 2 * 4 * (vectors + 1) + 1 <= kVectorRegisters ? 2 : 1;
}

// Not inlined: what a row keeps in registers for all windows would displace sums.
template <class Product, int kVectors, int kWindows>
__attribute__((noinline)) void pooled_windows(const PooledRow& r, const V* start, const float* a,
                                              const float* b, int columns, float* y,
                                              std::uint8_t* choices) {
  constexpr int kPixels = 4 * kWindows;
  V sum[kVectors][kPixels];
  const float* p[kPixels];
  CONVLET_UNROLL
  for (int i = 0; i < kPixels; ++i) {
    p[i] = a + i / 4 * r.step + i / 2 % 2 * r.below + i % 2 * r.right;
    CONVLET_UNROLL
    for (int j = 0; j < kVectors; ++j) sum[j][i] = start[j];
  }
  const float* row = b;
  for (std::int64_t t = 0; t < r.count; ++t, row += kVectors * V::width) {
    const std::int64_t term = r.terms[t];
    V value[kPixels];
    CONVLET_UNROLL
    for (int i = 0; i < kPixels; ++i) value[i] = broadcast(p[i][term]);
    CONVLET_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const V v = load(row + j * V::width);
      CONVLET_UNROLL
      for (int i = 0; i < kPixels; ++i) sum[j][i] = Product::multiply_add(value[i], v, sum[j][i]);
    }
  }
  auto finish = [&](const V* four, std::int64_t at, auto lanes) {
    const Choice choice = choose_of_four(four, r.relu);
    store(y + at, choice.maximum, lanes);
    if (choices) store_as_bytes(choices + at, choice.pixel, lanes);
  };
  CONVLET_UNROLL
  for (int w = 0; w < kWindows; ++w) {
    CONVLET_UNROLL
    for (int j = 0; j < kVectors; ++j) {
      const int lanes = columns - j * V::width;
      if (lanes >= V::width)
        finish(sum[j] + 4 * w, w * r.K + j * V::width, All());
      else
        finish(sum[j] + 4 * w, w * r.K + j * V::width, First{lanes});
    }
  }
}

template <class Product, int kVectors>
inline void pooled_row(const PooledRow& r, const float* a, const float* b, int columns, float* y,
                       std::uint8_t* choices) {
  V start[kVectors];
  for (int j = 0; j < kVectors; ++j) {
    const int lanes = columns - j * V::width;
    start[j] = !r.bias            ? zero()
               : lanes < V::width ? load_first(r.bias + j * V::width, lanes)
                                  : load(r.bias + j * V::width);
  }
  auto windows = [&](std::int64_t w, auto count) {
    pooled_windows<Product, kVectors, count>(r, start, a + w * r.step, b, columns, y + w * r.K,
                                             choices ? choices + w * r.K : nullptr);
  };
  constexpr int kAtOnce = windows_at_once(kVectors);
  std::int64_t w = 0;
  for (; w + kAtOnce <= r.windows; w += kAtOnce) windows(w, std::integral_constant<int, kAtOnce>());
  if (w < r.windows) windows(w, std::integral_constant<int, 1>());
}

// Whether the windows are 2x2, all pixels have the same taps, and these are so few that a pixel's
// sum never leaves the registers.
inline bool pools_in_registers(const Conv2dPoolShape& s, const Correlation& k) {
  return s.pool.R == 2 && s.pool.S == 2 && k.region_count == 1 &&
         s.conv.R * s.conv.S * k.terms <= kStretch;
}

template <class Product>
inline void pool_in_registers(Context& context, const Conv2dPoolShape& s, const Correlation& k,
                              const float* x, const float* packed, const float* bias,
                              Activation activation, float* y, std::uint8_t* choice) {
  const Windows& w = k.windows;
  std::int64_t terms[kStretch], count = 0;
  for (std::int64_t i = 0; i < k.regions[0].run_count; ++i)
    for (std::int64_t t = 0; t < k.regions[0].runs[i].count; ++t)
      terms[count++] = k.regions[0].runs[i].offset + t * k.regions[0].runs[i].stride;
  parallel_for(context, k.blocks.count * k.panel_chunks, 1,
               [&](std::int64_t begin, std::int64_t end, int worker) {
                 for (std::int64_t item = begin; item < end; ++item) {
                   const std::int64_t chunk = item % k.panel_chunks, panels = k.panels.count();
                   const Block block = block_at(w, k.blocks, item / k.panel_chunks);
                   const float* images =
                       images_of<Product>(k, block, x, k.copies + worker * k.copy_floats);
                   const std::int64_t rows = block.rows / s.pool.R;
                   for (std::int64_t panel = panels * chunk / k.panel_chunks;
                        panel < panels * (chunk + 1) / k.panel_chunks; ++panel) {
                     const std::int64_t channel = panel * kPanel;
                     const PooledRow row = {s.pool.Q,
                                            2 * w.step_w * k.pitch.pixel,
                                            w.step_w * k.pitch.pixel,
                                            w.step_h * k.pitch.row,
                                            terms,
                                            count,
                                            bias ? bias + channel : nullptr,
                                            activation == Activation::relu,
                                            s.conv.K};
                     for (std::int64_t i = 0; i < block.images * rows; ++i) {
                       const float* a = images + k.pitch.window(w, i / rows, 2 * (i % rows), 0);
                       const std::int64_t line =
                           (block.image + i / rows) * s.pool.P + block.row / s.pool.R + i % rows;
                       const std::int64_t at = line * s.pool.Q * s.conv.K + channel;
                       with_vectors(k.panels.columns_of(panel), [&](auto vectors) {
                         pooled_row<Product, vectors>(
                             row, a, packed + k.panels.offset_of(panel, count),
                             k.panels.columns_of(panel), y + at, choice ? choice + at : nullptr);
                       });
                     }
                   }
                 }
               });
}

// From packed weights.
template <class Product>
inline void convolve_and_pool(Context& context, const Conv2dPoolShape& s, const Correlation& k,
                              const float* x, const float* packed, const float* bias,
                              Activation activation, float* y, std::uint8_t* choice) {
  if (pools_in_registers(s, k))
    return pool_in_registers<Product>(context, s, k, x, packed, bias, activation, y, choice);
  for_each_region(
      context, k, nullptr,
      [&](const Block& block, float* copy) { return images_of<Product>(k, block, x, copy); },
      weighted_sums<Product>(s.conv, k, packed, bias, Activation::none),
      [&](const Block& block, const float* z, std::int64_t first_panel, std::int64_t last_panel) {
        pool_block(s, block, z, first_panel * kPanel, smaller(last_panel * kPanel, s.conv.K),
                   activation == Activation::relu, y, choice);
      });
}

template <class Product>
inline void correlate_pool(Context& context, const Conv2dPoolShape& s, const float* x,
                           const float* w, const float* bias, Activation activation, float* y,
                           std::uint8_t* choice, void* memory) {
  if (s.conv.N == 0) return;
  const Correlation k =
      make_correlation<Product>(s.conv, true, context.threads(), memory, s.pool.R);
  pack_weights<Product>(context, s.conv, k, w, k.weights);
  convolve_and_pool<Product>(context, s, k, x, k.weights, bias, activation, y, choice);
}

// The gradient of the convolution, of which only dy and the choices are in memory.
struct PooledGradient {
  const Pool2dShape& pool;
  const float* dy;
  const std::uint8_t* choice;

  // Pixels [begin, end) of row h of image n, `columns` channels from `channel` on; the pixels are
  // `width` floats apart, of which those beyond the columns become 0.
  void row(std::int64_t n, std::int64_t h, std::int64_t begin, std::int64_t end,
           std::int64_t channel, std::int64_t columns, std::int64_t width, float* to) const {
    const std::int64_t S = pool.S;
    const std::int64_t line = ((n * pool.P + h / pool.R) * pool.Q) * pool.C + channel;
    const std::int64_t first_of_row = h % pool.R * S;
    for (std::int64_t q = begin / S; q * S < end; ++q) {
      const std::int64_t from = line + q * pool.C;
      float* at = to + (q * S - begin) * width;
      if (S == 2 && q * S >= begin && (q + 1) * S <= end)
        window<2>(from, columns, first_of_row, 0, width, at);
      else
        for (std::int64_t j = larger(0, begin - q * S); j < smaller(S, end - q * S); ++j)
          window<1>(from, columns, first_of_row, j, width, at);
    }
  }

  // All channels of pixels [begin, end) of a row as elements; the pixels are `width` elements
  // apart.
  template <class Product>
  void elements(std::int64_t n, std::int64_t h, std::int64_t begin, std::int64_t end,
                std::int64_t width, float* to) const {
    if constexpr (!Product::converts) {
      row(n, h, begin, end, 0, pool.C, width, to);
    } else {
      float values[kPixels * kPanel];
      for (std::int64_t q = begin; q < end; q += kPixels)
        for (std::int64_t c = 0; c < pool.C; c += kPanel) {
          const std::int64_t last = smaller(q + kPixels, end),
                             columns = smaller(kPanel, pool.C - c);
          row(n, h, q, last, c, columns, columns, values);
          for (std::int64_t i = 0; i < last - q; ++i)
            Product::convert(values + i * columns, 1, columns,
                             to + (q - begin + i) * width + Product::elements(c));
        }
    }
  }

  // A panel of row h as rows of elements, for the gradient of weights: of image n, or of the pair
  // of images that starts there.
  template <class Product>
  void panel(std::int64_t n, std::int64_t h, std::int64_t channel, int columns, int width,
             float* to) const {
    if constexpr (!Product::converts) {
      row(n, h, 0, pool.W, channel, columns, width, to);
    } else {
      float values[2][kPixels * kPanel];
      const bool whole = n + 1 < pool.N;
      for (std::int64_t q = 0; q < pool.W; q += kPixels) {
        const std::int64_t last = smaller(q + kPixels, pool.W);
        row(n, h, q, last, channel, columns, columns, values[0]);
        if (whole) row(n + 1, h, q, last, channel, columns, columns, values[1]);
        Product::pack_pairs(values[0], whole ? values[1] : nullptr, columns, last - q, columns,
                            width, to + q * width);
      }
    }
  }

 private:
  static constexpr std::int64_t kPixels = 16;

  // Pixels [j, j + kCount) of a row of a window whose first is at `to`.
  template <int kCount>
  void window(std::int64_t from, std::int64_t columns, std::int64_t first_of_row, std::int64_t j,
              std::int64_t width, float* to) const {
    auto put = [&](std::int64_t c, auto read, auto write) {
      const V gradient = load(dy + from + c, read),
              chosen = load_from_bytes(choice + from + c, read);
      CONVLET_UNROLL
      for (int i = 0; i < kCount; ++i) {
        const Mask hit = chosen == broadcast(static_cast<float>(first_of_row + j + i));
        store(to + (j + i) * width + c, select(hit, gradient, zero()), write);
      }
    };
    std::int64_t c = 0;
    for (; c + V::width <= columns; c += V::width) put(c, All(), All());
    const First rest = {static_cast<int>(columns - c)};
    if (c < columns && c + V::width <= width)
      put(c, rest, All());
    else if (c < columns)
      put(c, rest, rest);
  }
};

// The rows of a block of that gradient, and zeros around it where windows read them.
template <class Product>
inline const float* gradient_of(const Correlation& k, const Block& block, const PooledGradient& dz,
                                float* to) {
  const Windows& w = k.windows;
  const std::int64_t columns = w.span_w(), pixel = k.pitch.pixel;
  const std::int64_t left = smaller(columns, larger(0, -w.origin_w));
  const std::int64_t end = larger(left, smaller(columns, w.width - w.origin_w));
  for (std::int64_t n = 0; n < block.images; ++n)
    for (std::int64_t i = 0; i < w.span_h(block.rows); ++i) {
      float* row = to + n * k.pitch.image + i * k.pitch.row;
      const std::int64_t h = block.row * w.step_h + w.origin_h + i;
      const bool inside = h >= 0 && h < w.height;
      if (inside)
        dz.elements<Product>(block.image + n, h, left + w.origin_w, end + w.origin_w, pixel,
                             row + left * pixel);
      if (k.trimmed) continue;  // no tap reads the padding
      clear(row, (inside ? left : columns) * pixel);
      if (inside) clear(row + end * pixel, (columns - end) * pixel);
    }
  return to;
}

template <class Product>
inline void correlate_pool_input(Context& context, const Conv2dPoolShape& s, const float* dy,
                                 const std::uint8_t* choice, const float* w, float* dx,
                                 void* memory) {
  if (s.conv.N == 0) return;
  const Correlation k =
      make_correlation<Product>(s.conv, false, context.threads(), memory, s.pool.R);
  const PooledGradient dz = {s.pool, dy, choice};
  pack_weights<Product>(context, s.conv, k, w, k.weights);
  for_each_region(
      context, k, dx,
      [&](const Block& block, float* copy) { return gradient_of<Product>(k, block, dz, copy); },
      weighted_sums<Product>(s.conv, k, k.weights, nullptr, Activation::none),
      [](const Block&, const float*, std::int64_t, std::int64_t) {});
}

template <class Product>
inline void correlate_pool_weight(Context& context, const Conv2dPoolShape& s, const float* dy,
                                  const std::uint8_t* choice, const float* x, float* dw,
                                  void* memory) {
  if (!Product::converts && picks_weight_gradient(s))
    return picked_weight_gradient(context, s, dy, choice, x, dw, memory);
  const PooledGradient dz = {s.pool, dy, choice};
  auto pack = [&](const Block& block, auto&& for_panels) {
    for_panels([&](std::int64_t channel, int columns, int width, float* to) {
      for (std::int64_t i = 0; i < block.images * block.rows; ++i, to += s.conv.Q * width)
        dz.panel<Product>(Product::terms * (block.image + i / block.rows),
                          block.row + i % block.rows, channel, columns, width, to);
    });
  };
  weight_gradient<Product>(context, s.conv, nullptr, pack, x, dw, memory);
}

inline void conv2d_pool_backward_bias(Context& context, const Conv2dPoolShape& s, const float* dy,
                                      const std::uint8_t* choice, float* db, void* memory) {
  const RowsShape rows = {s.pool.N * s.pool.P * s.pool.Q, s.pool.C};
  sum_all_rows(context, rows, db, memory, [=](std::int64_t n, std::int64_t c, auto lanes) {
    const std::int64_t i = n * rows.C + c;
    const Mask open = load_from_bytes(choice + i, lanes) < broadcast(kClosed);
    return select(open, load(dy + i, lanes), zero());
  });
}

template <class Product>
inline std::size_t correlate_pool_workspace(const Conv2dPoolShape& s, Pass pass, int threads) {
  if (pass == Pass::backward_weight && !Product::converts && picks_weight_gradient(s))
    return make_picked_weights(s, threads, nullptr).bytes;
  if (pass == Pass::backward_weight)
    return make_weight_gradient<Product>(s.conv, threads, nullptr).bytes;
  return make_correlation<Product>(s.conv, pass == Pass::forward, threads, nullptr, s.pool.R).bytes;
}

inline std::size_t conv2d_pool_workspace(const Conv2dPoolShape& s, Pass pass, int threads) {
  return correlate_pool_workspace<Float32>(s, pass, threads);
}
inline void conv2d_pool(Context& context, const Conv2dPoolShape& s, const float* x, const float* w,
                        const float* bias, Activation activation, float* y, std::uint8_t* choice,
                        void* workspace) {
  correlate_pool<Float32>(context, s, x, w, bias, activation, y, choice, workspace);
}
inline void conv2d_pool_backward_input(Context& context, const Conv2dPoolShape& s, const float* dy,
                                       const std::uint8_t* choice, const float* w, float* dx,
                                       void* workspace) {
  correlate_pool_input<Float32>(context, s, dy, choice, w, dx, workspace);
}
inline void conv2d_pool_backward_weight(Context& context, const Conv2dPoolShape& s, const float* dy,
                                        const std::uint8_t* choice, const float* x, float* dw,
                                        void* workspace) {
  correlate_pool_weight<Float32>(context, s, dy, choice, x, dw, workspace);
}

}  // namespace convlet::CONVLET_ISA
