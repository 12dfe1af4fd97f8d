// Max and average pooling over NHWC images, in vectors of channels (formulas in ops/pool2d.h).
namespace convlet::CONVLET_ISA {

// One window as a grid of pixels in memory. The counts are numbers, or constants for the commonest
// windows so that their loops unroll.
template <class Count>
struct Grid {
  Count rows, columns;
  std::int64_t row_stride, column_stride;
};
template <class F>
inline void with_grid(const Pool2dShape& s, std::int64_t rows, std::int64_t columns, F f) {
  const std::int64_t row_stride = s.dilation_h * s.W * s.C, column_stride = s.dilation_w * s.C;
  using Two = std::integral_constant<std::int64_t, 2>;
  using Three = std::integral_constant<std::int64_t, 3>;
  if (rows == 2 && columns == 2)
    f(Grid<Two>{Two(), Two(), row_stride, column_stride});
  else if (rows == 3 && columns == 3)
    f(Grid<Three>{Three(), Three(), row_stride, column_stride});
  else
    f(Grid<std::int64_t>{rows, columns, row_stride, column_stride});
}
// f(offset) for every pixel, row by row.
template <class Count, class F>
inline void for_pixels(const Grid<Count>& grid, F f) {
  for (std::int64_t r = 0; r < grid.rows; ++r)
    for (std::int64_t c = 0; c < grid.columns; ++c) f(r * grid.row_stride + c * grid.column_stride);
}

// Every maximum is NaN where a tap is.
template <class Count, class Lanes>
inline V window_maximum(const Grid<Count>& grid, const float* x, Lanes lanes) {
  V best = broadcast(-__builtin_inff());
  Mask nan = is_nan(zero());
  for_pixels(grid, [&](std::int64_t offset) {
    const V a = load(x + offset, lanes);
    best = max(best, a);
    nan = nan | is_nan(a);
  });
  return select(nan, broadcast(__builtin_nanf("")), best);
}

// window(grid, p, q, x, y) for every window: x at its first pixel, y at its result. Rows of the
// output are shared out among the threads.
template <class F>
inline void pool2d_forward(Context& context, const Pool2dShape& s, const float* x, float* y,
                           F window) {
  const std::int64_t work = s.Q * s.C * (s.R * s.S < 64 ? s.R * s.S : 64);
  parallel_for(context, s.N * s.P, grain_of(work), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / s.P, p = i % s.P;
      const Taps rows = row_taps(s, p);
      const float* x_row = x + (n * s.H + rows.first) * s.W * s.C;
      float* y_row = y + i * s.Q * s.C;
      for (std::int64_t q = 0; q < s.Q; ++q) {
        const Taps columns = column_taps(s, q);
        with_grid(s, rows.count, columns.count, [&](const auto& grid) {
          window(grid, p, q, x_row + columns.first * s.C, y_row + q * s.C);
        });
      }
    }
  });
}

// The maximum of a window, and which of its pixels it is: the first, row by row.
struct Choice {
  V maximum, pixel;
};
template <class Count, class Lanes>
inline Choice choose(const Grid<Count>& grid, const float* x, Lanes lanes) {
  Choice choice = {broadcast(-__builtin_inff()), zero()};
  V sum = zero(), i = zero();
  for_pixels(grid, [&](std::int64_t offset) {
    const V a = load(x + offset, lanes);
    choice.pixel = select(a > choice.maximum, i, choice.pixel);
    choice.maximum = max(a, choice.maximum);
    sum = sum + a;
    i = i + broadcast(1.0f);
  });
  if (!any(is_nan(sum))) return choice;
  // With a NaN (or two infinities) in a window: backwards, what hits last is the first.
  choice = {window_maximum(grid, x, lanes), zero()};
  for (std::int64_t r = grid.rows - 1; r >= 0; --r)
    for (std::int64_t c = grid.columns - 1; c >= 0; --c) {
      const V a = load(x + r * grid.row_stride + c * grid.column_stride, lanes);
      const Mask hit = (a == choice.maximum) | is_nan(a);
      choice.pixel = select(hit, broadcast(static_cast<float>(r * grid.columns + c)), choice.pixel);
    }
  return choice;
}

inline void max_pool2d(Context& context, const Pool2dShape& s, const float* x, float* y) {
  const std::int64_t C = s.C;
  pool2d_forward(context, s, x, y,
                 [C](const auto& grid, std::int64_t, std::int64_t, const float* from, float* to) {
                   for_vectors(0, C, [&](std::int64_t c, auto lanes) {
                     store(to + c, window_maximum(grid, from + c, lanes), lanes);
                   });
                 });
}

inline void avg_pool2d(Context& context, const Pool2dShape& s, const float* x, float* y) {
  pool2d_forward(
      context, s, x, y,
      [&s](const auto& grid, std::int64_t p, std::int64_t q, const float* from, float* to) {
        const V divisor = broadcast(average_divisor(s, p, q, grid.rows, grid.columns));
        for_channels(s.C, [&](std::int64_t c, auto count, auto lanes) {
          V sum[decltype(count)::value];
          for (int j = 0; j < count; ++j) sum[j] = zero();
          for_pixels(grid, [&](std::int64_t offset) {
            for (int j = 0; j < count; ++j)
              sum[j] = sum[j] + load(from + offset + c + j * V::width, lanes);
          });
          for (int j = 0; j < count; ++j) store(to + c + j * V::width, sum[j] / divisor, lanes);
        });
      });
}

// How a window's gradient reaches dx: it is the only one there, or it is added to those of the
// windows before it.
struct Write {
  template <class Lanes>
  static void put(float* dx, V a, Lanes lanes) {
    store(dx, a, lanes);
  }
};
struct Accumulate {
  template <class Lanes>
  static void put(float* dx, V a, Lanes lanes) {
    store(dx, load(dx, lanes) + a, lanes);
  }
};

// The windows of output row (n,p), for `channels` channels from `channel` on:
// window(how, grid, p, q, y_offset, x_offset, channels).
template <class How, class F>
inline void backward_row(const Pool2dShape& s, std::int64_t n, std::int64_t p, std::int64_t channel,
                         std::int64_t channels, F window) {
  const Taps rows = row_taps(s, p);
  const std::int64_t x_row = (n * s.H + rows.first) * s.W * s.C + channel;
  const std::int64_t y_row = (n * s.P + p) * s.Q * s.C + channel;
  for (std::int64_t q = 0; q < s.Q; ++q) {
    const Taps columns = column_taps(s, q);
    with_grid(s, rows.count, columns.count, [&](const auto& grid) {
      window(How(), grid, p, q, y_row + q * s.C, x_row + columns.first * s.C, channels);
    });
  }
}

// Windows that do not overlap: each output row owns the rows of dx from its window's first to the
// next window's first, and writes every element there once.
template <class F>
inline void backward_apart(Context& context, const Pool2dShape& s, float* dx, F window) {
  const std::int64_t row_size = s.W * s.C;
  const Taps last = column_taps(s, s.Q - 1);
  const std::int64_t covered = s.stride_w > s.S ? 0 : (last.first + last.count) * s.C;
  const std::int64_t work = s.stride_h * row_size;
  parallel_for(context, s.N * s.P, grain_of(work), [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i) {
      const std::int64_t n = i / s.P, p = i % s.P;
      const Taps rows = row_taps(s, p);
      const std::int64_t next = p + 1 < s.P ? row_taps(s, p + 1).first : s.H;
      for (std::int64_t h = rows.first; h < next; ++h) {
        const std::int64_t from = h < rows.first + rows.count ? covered : 0;
        clear(dx + (n * s.H + h) * row_size + from, row_size - from);
      }
      backward_row<Write>(s, n, p, 0, s.C, window);
    }
  });
}

// Overlapping windows are added one after the other; samples and blocks of channels are shared out.
template <class F>
inline void backward_overlapping(Context& context, const Pool2dShape& s, float* dx, F window) {
  constexpr std::int64_t kBlock = 64;
  const std::int64_t blocks = (s.C + kBlock - 1) / kBlock;
  const std::int64_t work = s.H * s.W * (s.C < kBlock ? s.C : kBlock);
  parallel_for(context, s.N * blocks, grain_of(work),
               [&](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   const std::int64_t n = i / blocks, channel = i % blocks * kBlock;
                   const std::int64_t channels = s.C - channel < kBlock ? s.C - channel : kBlock;
                   // Rows are cleared just before the first window that reaches them.
                   std::int64_t row = 0;
                   auto clear_until = [&](std::int64_t end) {
                     for (; row < end; ++row)
                       for (std::int64_t w = 0; w < s.W; ++w)
                         clear(dx + ((n * s.H + row) * s.W + w) * s.C + channel, channels);
                   };
                   for (std::int64_t p = 0; p < s.P; ++p) {
                     const Taps rows = row_taps(s, p);
                     clear_until(rows.first + (rows.count - 1) * s.dilation_h + 1);
                     backward_row<Accumulate>(s, n, p, channel, channels, window);
                   }
                   clear_until(s.H);
                 }
               });
}

template <class F>
inline void pool2d_backward(Context& context, const Pool2dShape& s, float* dx, F window) {
  const bool apart =
      s.dilation_h == 1 && s.dilation_w == 1 && s.stride_h >= s.R && s.stride_w >= s.S;
  if (apart)
    backward_apart(context, s, dx, window);
  else
    backward_overlapping(context, s, dx, window);
}

inline void max_pool2d_backward(Context& context, const Pool2dShape& s, const float* dy,
                                const float* x, float* dx) {
  pool2d_backward(context, s, dx,
                  [=](auto how, const auto& grid, std::int64_t, std::int64_t, std::int64_t y_offset,
                      std::int64_t x_offset, std::int64_t channels) {
                    for_vectors(0, channels, [&](std::int64_t c, auto lanes) {
                      const V pixel = choose(grid, x + x_offset + c, lanes).pixel;
                      const V gradient = load(dy + y_offset + c, lanes);
                      float* to = dx + x_offset + c;
                      V i = zero();
                      for_pixels(grid, [&](std::int64_t offset) {
                        decltype(how)::put(to + offset, select(pixel == i, gradient, zero()),
                                           lanes);
                        i = i + broadcast(1.0f);
                      });
                    });
                  });
}

inline void avg_pool2d_backward(Context& context, const Pool2dShape& s, const float* dy,
                                float* dx) {
  pool2d_backward(context, s, dx,
                  [=, &s](auto how, const auto& grid, std::int64_t p, std::int64_t q,
                          std::int64_t y_offset, std::int64_t x_offset, std::int64_t channels) {
                    const V divisor = broadcast(average_divisor(s, p, q, grid.rows, grid.columns));
                    for_channels(channels, [&](std::int64_t c, auto count, auto lanes) {
                      V share[decltype(count)::value];
                      for (int j = 0; j < count; ++j)
                        share[j] = load(dy + y_offset + c + j * V::width, lanes) / divisor;
                      for_pixels(grid, [&](std::int64_t offset) {
                        for (int j = 0; j < count; ++j)
                          decltype(how)::put(dx + x_offset + c + j * V::width + offset, share[j],
                                             lanes);
                      });
                    });
                  });
}

}  // namespace convlet::CONVLET_ISA
