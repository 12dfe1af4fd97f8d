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

// Large windows of many channels, as of a pooling over whole images, are taken pixel by pixel, as
// they lie in memory; others as sums in registers.
inline bool pixel_by_pixel(const Pool2dShape& s, std::int64_t pixels) {
  constexpr std::int64_t kPixels = 16, kChannels = 128;
  return pixels >= kPixels && s.C >= kChannels;
}

// y = the sum of a window's pixels / divisor; y holds the sums meanwhile.
template <class Count>
inline void sum_pixel_by_pixel(const Grid<Count>& grid, std::int64_t channels, const float* x,
                               V divisor, float* y) {
  clear(y, channels);
  for_pixels(grid, [=](std::int64_t offset) {
    for_vectors(0, channels, [=](std::int64_t c, auto lanes) {
      store(y + c, load(y + c, lanes) + load(x + offset + c, lanes), lanes);
    });
  });
  for_vectors(0, channels, [=](std::int64_t c, auto lanes) {
    store(y + c, load(y + c, lanes) / divisor, lanes);
  });
}

inline void avg_pool2d(Context& context, const Pool2dShape& s, const float* x, float* y) {
  pool2d_forward(
      context, s, x, y,
      [&s](const auto& grid, std::int64_t p, std::int64_t q, const float* from, float* to) {
        const V divisor = broadcast(average_divisor(s, p, q, grid.rows, grid.columns));
        if (pixel_by_pixel(s, grid.rows * grid.columns))
          return sum_pixel_by_pixel(grid, s.C, from, divisor, to);
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

// How much of a window the windows before it have reached: `rows` rows and `columns` columns. There
// gradients are added up; the other pixels are written for the first time. As in Grid, numbers or
// constants.
template <class Count>
struct Reached {
  Count rows, columns;
};
using NotReached = Reached<std::integral_constant<std::int64_t, 0>>;
template <class F>
inline void with_reached(std::int64_t rows, std::int64_t columns, F f) {
  using One = std::integral_constant<std::int64_t, 1>;
  if (rows == 0 && columns == 0)
    f(NotReached());
  else if (rows == 1 && columns == 1)
    f(Reached<One>());
  else
    f(Reached<std::int64_t>{rows, columns});
}

// Gives every pixel of a window, whose first is at dx, its part: part(number of the pixel).
template <class Count, class ReachedCount, class Lanes, class F>
inline void give(const Grid<Count>& grid, const Reached<ReachedCount>& reached, float* dx,
                 Lanes lanes, F part) {
  for (std::int64_t r = 0; r < grid.rows; ++r)
    for (std::int64_t c = 0; c < grid.columns; ++c) {
      float* to = dx + r * grid.row_stride + c * grid.column_stride;
      V a = part(r * grid.columns + c);
      if (r < reached.rows || c < reached.columns) a = load(to, lanes) + a;
      store(to, a, lanes);
    }
}

// Channels [channel, channel + channels) of image n, rows [begin, end), become zero from column
// `column` on.
inline void clear_rows(const Pool2dShape& s, std::int64_t n, std::int64_t begin, std::int64_t end,
                       std::int64_t column, std::int64_t channel, std::int64_t channels,
                       float* dx) {
  for (std::int64_t h = begin; h < end; ++h) {
    float* row = dx + ((n * s.H + h) * s.W + column) * s.C + channel;
    if (channels == s.C) {
      clear(row, (s.W - column) * channels);
      continue;
    }
    for (std::int64_t w = column; w < s.W; ++w, row += s.C) clear(row, channels);
  }
}

inline std::int64_t end_of(const Taps& taps) {
  return taps.first + taps.count;
}

// The windows of output row (n,p), for `channels` channels from `channel` on: window(grid, reached,
// p, q, y_offset, x_offset, channels). Writes what rows of windows before have not reached of the
// rows of dx up to the last of its own, the last one all that is left. Dilated windows leave gaps:
// there dx has been cleared, and everything is added. kApart: no window reaches into another one.
template <bool kApart, class F>
inline void backward_row(const Pool2dShape& s, std::int64_t n, std::int64_t p, std::int64_t channel,
                         std::int64_t channels, float* dx, F window) {
  const bool dilated = s.dilation_h > 1 || s.dilation_w > 1;
  const Taps rows = row_taps(s, p);
  const std::int64_t before = p > 0 ? end_of(row_taps(s, p - 1)) : 0;
  if (!dilated) {
    const std::int64_t end = end_of(rows), first = larger(before, rows.first);
    const std::int64_t covered = s.stride_w > s.S ? 0 : end_of(column_taps(s, s.Q - 1));
    clear_rows(s, n, before, first, 0, channel, channels, dx);
    clear_rows(s, n, first, end, covered, channel, channels, dx);
    if (p + 1 == s.P) clear_rows(s, n, end, s.H, 0, channel, channels, dx);
  }
  const std::int64_t x_row = (n * s.H + rows.first) * s.W * s.C + channel;
  const std::int64_t y_row = (n * s.P + p) * s.Q * s.C + channel;
  const std::int64_t rows_reached = dilated ? rows.count : larger(0, before - rows.first);
  std::int64_t left = 0;
  for (std::int64_t q = 0; q < s.Q; ++q) {
    const Taps columns = column_taps(s, q);
    auto at = [&](const auto& grid, const auto& reached) {
      window(grid, reached, p, q, y_row + q * s.C, x_row + columns.first * s.C, channels);
    };
    with_grid(s, rows.count, columns.count, [&](const auto& grid) {
      if constexpr (kApart)
        at(grid, NotReached());
      else
        with_reached(rows_reached, larger(0, left - columns.first),
                     [&](const auto& reached) { at(grid, reached); });
    });
    left = end_of(columns);
  }
}

// Rows of windows that do not overlap are shared out among the threads; otherwise samples and
// blocks of channels.
template <class F>
inline void pool2d_backward(Context& context, const Pool2dShape& s, float* dx, F window) {
  const bool dilated = s.dilation_h > 1 || s.dilation_w > 1;
  if (!dilated && s.stride_h >= s.R && s.stride_w >= s.S) {
    parallel_for(context, s.N * s.P, grain_of(s.stride_h * s.W * s.C),
                 [&](std::int64_t begin, std::int64_t end, int) {
                   for (std::int64_t i = begin; i < end; ++i)
                     backward_row<true>(s, i / s.P, i % s.P, 0, s.C, dx, window);
                 });
    return;
  }
  constexpr std::int64_t kBlock = 64;
  const std::int64_t blocks = ceil_div(s.C, kBlock);
  parallel_for(context, s.N * blocks, grain_of(s.H * s.W * smaller(kBlock, s.C)),
               [&](std::int64_t begin, std::int64_t end, int) {
                 for (std::int64_t i = begin; i < end; ++i) {
                   const std::int64_t n = i / blocks, channel = i % blocks * kBlock;
                   const std::int64_t channels = smaller(kBlock, s.C - channel);
                   if (dilated) clear_rows(s, n, 0, s.H, 0, channel, channels, dx);
                   for (std::int64_t p = 0; p < s.P; ++p)
                     backward_row<false>(s, n, p, channel, channels, dx, window);
                 }
               });
}

inline void max_pool2d_backward(Context& context, const Pool2dShape& s, const float* dy,
                                const float* x, float* dx) {
  pool2d_backward(context, s, dx,
                  [=](const auto& grid, const auto& reached, std::int64_t, std::int64_t,
                      std::int64_t y_offset, std::int64_t x_offset, std::int64_t channels) {
                    for_vectors(0, channels, [=](std::int64_t c, auto lanes) {
                      const V chosen = choose(grid, x + x_offset + c, lanes).pixel;
                      const V gradient = load(dy + y_offset + c, lanes);
                      give(grid, reached, dx + x_offset + c, lanes, [=](std::int64_t pixel) {
                        return select(chosen == broadcast(static_cast<float>(pixel)), gradient,
                                      zero());
                      });
                    });
                  });
}

// Every pixel of a window becomes dy / divisor.
template <class Count>
inline void give_pixel_by_pixel(const Grid<Count>& grid, std::int64_t channels, const float* dy,
                                V divisor, float* dx) {
  constexpr std::int64_t kBlock = 2048;
  float share[kBlock];
  for (std::int64_t first = 0; first < channels; first += kBlock) {
    const std::int64_t n = smaller(kBlock, channels - first);
    for_vectors(0, n, [=, &share](std::int64_t c, auto lanes) {
      store(share + c, load(dy + first + c, lanes) / divisor, lanes);
    });
    for_pixels(grid, [=, &share](std::int64_t offset) {
      for_vectors(0, n, [=, &share](std::int64_t c, auto lanes) {
        store(dx + first + offset + c, load(share + c, lanes), lanes);
      });
    });
  }
}

inline void avg_pool2d_backward(Context& context, const Pool2dShape& s, const float* dy,
                                float* dx) {
  pool2d_backward(
      context, s, dx,
      [=, &s](const auto& grid, const auto& reached, std::int64_t p, std::int64_t q,
              std::int64_t y_offset, std::int64_t x_offset, std::int64_t channels) {
        const V divisor = broadcast(average_divisor(s, p, q, grid.rows, grid.columns));
        if (reached.rows == 0 && reached.columns == 0 &&
            pixel_by_pixel(s, grid.rows * grid.columns))
          return give_pixel_by_pixel(grid, channels, dy + y_offset, divisor, dx + x_offset);
        for_vectors(0, channels, [=](std::int64_t c, auto lanes) {
          const V share = load(dy + y_offset + c, lanes) / divisor;
          give(grid, reached, dx + x_offset + c, lanes, [=](std::int64_t) { return share; });
        });
      });
}

}  // namespace convlet::CONVLET_ISA
