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

template <class Count, class Lanes>
inline V window_sum(const Grid<Count>& grid, const float* x, Lanes lanes) {
  V sum = zero();
  for_pixels(grid, [&](std::int64_t offset) { sum = sum + load(x + offset, lanes); });
  return sum;
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
        for_vectors(0, s.C, [&](std::int64_t c, auto lanes) {
          store(to + c, window_sum(grid, from + c, lanes) / divisor, lanes);
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
                   for (std::int64_t pixel = 0; pixel < s.H * s.W; ++pixel)
                     clear(dx + (n * s.H * s.W + pixel) * s.C + channel, channels);
                   for (std::int64_t p = 0; p < s.P; ++p)
                     backward_row<Accumulate>(s, n, p, channel, channels, window);
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
                      const float* from = x + x_offset + c;
                      float* to = dx + x_offset + c;
                      const V maximum = window_maximum(grid, from, lanes);
                      V gradient = load(dy + y_offset + c, lanes);
                      // The first pixel that is the maximum takes all of it.
                      for_pixels(grid, [&](std::int64_t offset) {
                        const V a = load(from + offset, lanes);
                        const Mask hit = (a == maximum) | is_nan(a);
                        decltype(how)::put(to + offset, select(hit, gradient, zero()), lanes);
                        gradient = select(hit, zero(), gradient);
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
                    for_vectors(0, channels, [&](std::int64_t c, auto lanes) {
                      const V share = load(dy + y_offset + c, lanes) / divisor;
                      for_pixels(grid, [&](std::int64_t offset) {
                        decltype(how)::put(dx + x_offset + c + offset, share, lanes);
                      });
                    });
                  });
}

}  // namespace convlet::CONVLET_ISA
