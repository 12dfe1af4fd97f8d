// conv2d, its activation and max pooling in one (see ops/conv2d_pool.h). Forward, a block of the
// convolution's results is pooled while it is in the cache. Backward, the gradient of the
// convolution is made of dy and the choice of each window where it is read: in the copy of a block
// for the gradient of the input, in packed panels for that of the weights.
namespace convlet::CONVLET_ISA {

constexpr float kClosed = kNoChoice;

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
          Choice choice = choose(grid, from + c, lanes);
          const V maximum = choice.maximum;
          if (relu)
            choice = {
                activate(Activation::relu, maximum),
                select((maximum > zero()) | is_nan(maximum), choice.pixel, broadcast(kClosed))};
          store(y + to + c, choice.maximum, lanes);
          if (choices) store_as_bytes(choices + to + c, choice.pixel, lanes);
        });
      });
    }
  }
}

inline void conv2d_pool(Context& context, const Conv2dPoolShape& s, const float* x, const float* w,
                        const float* bias, Activation activation, float* y, std::uint8_t* choice,
                        void* memory) {
  if (s.conv.N == 0) return;
  const Correlation k =
      make_correlation<Float32>(s.conv, true, context.threads(), memory, s.pool.R);
  pack_weights<Float32>(context, s.conv, k, w);
  for_each_region(
      context, k, nullptr,
      [&](const Block& block, float* copy) { return images_of<Float32>(k, block, x, copy); },
      weighted_sums<Float32>(s.conv, k, bias, Activation::none),
      [&](const Block& block, const float* z, std::int64_t first_panel, std::int64_t last_panel) {
        pool_block(s, block, z, first_panel * kPanel, smaller(last_panel * kPanel, s.conv.K),
                   activation == Activation::relu, y, choice);
      });
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

 private:
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
        dz.row(block.image + n, h, left + w.origin_w, end + w.origin_w, 0, w.channels, pixel,
               row + left * pixel);
      if (k.trimmed) continue;  // no tap reads the padding
      clear(row, (inside ? left : columns) * pixel);
      if (inside) clear(row + end * pixel, (columns - end) * pixel);
    }
  return to;
}

inline void conv2d_pool_backward_input(Context& context, const Conv2dPoolShape& s, const float* dy,
                                       const std::uint8_t* choice, const float* w, float* dx,
                                       void* memory) {
  if (s.conv.N == 0) return;
  const Correlation k =
      make_correlation<Float32>(s.conv, false, context.threads(), memory, s.pool.R);
  const PooledGradient dz = {s.pool, dy, choice};
  pack_weights<Float32>(context, s.conv, k, w);
  for_each_region(
      context, k, dx,
      [&](const Block& block, float* copy) { return gradient_of(k, block, dz, copy); },
      weighted_sums<Float32>(s.conv, k, nullptr, Activation::none),
      [](const Block&, const float*, std::int64_t, std::int64_t) {});
}

inline void conv2d_pool_backward_weight(Context& context, const Conv2dPoolShape& s, const float* dy,
                                        const std::uint8_t* choice, const float* x, float* dw,
                                        void* memory) {
  const PooledGradient dz = {s.pool, dy, choice};
  auto pack = [&](const Block& block, std::int64_t channel, int columns, int width, float* to) {
    for (std::int64_t i = 0; i < block.images * block.rows; ++i, to += s.conv.Q * width)
      dz.row(block.image + i / block.rows, block.row + i % block.rows, 0, s.conv.Q, channel,
             columns, width, to);
  };
  weight_gradient<Float32>(context, s.conv, nullptr, pack, x, dw, memory);
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

inline std::size_t conv2d_pool_workspace(const Conv2dPoolShape& s, Pass pass, int threads) {
  if (pass == Pass::backward_weight)
    return make_weight_gradient<Float32>(s.conv, threads, nullptr).bytes;
  return make_correlation<Float32>(s.conv, pass == Pass::forward, threads, nullptr, s.pool.R).bytes;
}

}  // namespace convlet::CONVLET_ISA
