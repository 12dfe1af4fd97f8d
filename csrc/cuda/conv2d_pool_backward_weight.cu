// The gradient of a pooled convolution's weights. Where a window has four pixels they are four
// terms that follow each other, and a thread multiplies four at a time (arithmetic.cuh): so the
// gradient of the convolution is not made in memory. dy and the choices come to shared memory, and
// a thread makes its four factors of one value and one byte.
#include "cuda/conv2d_pool.cuh"
#include "cuda/first_layer_gradient.cuh"

namespace convlet::cuda {
namespace {

constexpr int kWindow = 4;                  // pixels
constexpr int kWindows = kDepth / kWindow;  // of a step

// dy and the choices of max pooling: line = window, column = channel. Columns are multiples of 4.
struct PooledGradient {
  const float* dy;
  const std::uint8_t* choice;
  std::int64_t lines, columns;
};

// A tile of them: kWindows lines of dy, then as many of the choices. Pieces of 8 are exchanged so
// that the four lines which a warp reads at once are in different banks.
template <int columns>
struct PooledLayout {
  CONVLET_DEVICE static int offset(int line, int column) {
    return line * columns + (column ^ (line * 8));
  }
  CONVLET_DEVICE static const std::uint8_t* choices(const float* tile) {
    return reinterpret_cast<const std::uint8_t*>(tile + kWindows * columns);
  }
  // Terms 4t to 4t+3 of column i: the pixels of window t.
  CONVLET_DEVICE static void read(const float* tile, int i, int t, float (&value)[4]) {
    const float dy = tile[offset(t, i)];
    const int chosen = choices(tile)[offset(t, i)];
#pragma unroll
    for (int j = 0; j < 4; ++j) value[j] = chosen == j ? dy : 0.0f;
  }
};

// A step of them for the first layer.
template <int columns>
struct ChosenGradient {
  using Layout = PooledLayout<columns>;
  using Source = PooledGradient;
  static constexpr int kFloats = kWindows * columns * 5 / 4;
  CONVLET_DEVICE static int pixel(int t, int j) { return kWindow * t + j; }

  PooledGradient dy;
  CONVLET_DEVICE Source results(std::int64_t first, int count) const {
    PooledGradient of_tile = dy;
    of_tile.lines = (first + count) / kWindow;
    return of_tile;
  }
};

FirstLayerGradient first_layer_of(const Conv2dPoolShape& s, const Images& x) {
  return first_layer_gradient(s.conv, static_cast<int>(s.pool.R), static_cast<int>(s.pool.S), x);
}
struct ChosenPixels {
  static constexpr bool kColumnsOfAAreTerms = false;

  WindowPatches a;
  PooledGradient b;
  Result y;
  std::int64_t terms;

  CONVLET_DEVICE Product<WindowPatches, PooledGradient> slice(std::int64_t) const {
    return {a, b, y, terms};
  }
};

template <class Tile_, Precision precision>
struct ByChosen {
  using Tile = Tile_;
  static constexpr int depth = kDepth;
  using LayoutA = TileLayout<ChosenPixels::kColumnsOfAAreTerms, Tile::rows>;
  using LayoutB = PooledLayout<Tile::columns>;
  using Sums = WarpSums<Tile, LayoutA, LayoutB, precision>;
};

}  // namespace

// A thread copies a piece of four channels of one window, if there is one for it.
template <int columns, int threads>
class Feed<PooledGradient, PooledLayout<columns>, threads> {
 public:
  CONVLET_DEVICE Feed(const PooledGradient& source, std::int64_t column, std::int64_t term)
      : source_(source),
        line_(static_cast<int>(threadIdx.x) / kPieces),
        column_(static_cast<int>(threadIdx.x) % kPieces * 4),
        window_(term / kWindow + line_),
        channel_(column + column_) {}

  CONVLET_DEVICE void copy(float* tile) const {
    auto* bytes = reinterpret_cast<std::uint8_t*>(tile + kWindows * columns);
    for (int line = line_; line < kWindows; line += kAtOnce) {
      const std::int64_t window = window_ + line - line_;
      const bool valid = window < source_.lines && channel_ < source_.columns;
      const std::int64_t from = valid ? window * source_.columns + channel_ : 0;
      const int to = PooledLayout<columns>::offset(line, column_);
      copy_async_16(tile + to, source_.dy + from, valid);
      copy_async_4(bytes + to, source_.choice + from, valid);
    }
  }
  CONVLET_DEVICE void advance() { window_ += kWindows; }

 private:
  static constexpr int kPieces = columns / 4;
  static constexpr int kAtOnce = threads / kPieces;  // lines

  const PooledGradient& source_;
  const int line_, column_;
  std::int64_t window_;
  const std::int64_t channel_;
};

// A plan's buffers are aligned to 16 bytes.
bool multiplies_choices(const Conv2dPoolShape& s) {
  return s.pool.R * s.pool.S == kWindow && s.pool.C % 4 == 0 && !is_direct(s.conv);
}

bool multiplies_choices_of_first_layer(const Conv2dPoolShape& s) {
  return has_few_channels(s.conv) && fits<ChosenGradient>(first_layer_of(s, nullptr));
}

std::size_t choices_workspace(const Conv2dPoolShape& s, Precision precision) {
  if (multiplies_choices_of_first_layer(s))
    return first_layer_gradient_workspace(first_layer_of(s, nullptr), s.conv.K);
  return product_workspace(backward_weight_product(s.conv, 1), precision);
}

template <Precision precision>
void multiply_choices(Context& context, const Conv2dPoolShape& s, const float* dy,
                      const std::uint8_t* choice, const Images& x, float* dw, void* workspace) {
  const PooledGradient gradient = {dy, choice, s.pool.N * s.pool.P * s.pool.Q, s.pool.C};
  if (multiplies_choices_of_first_layer(s)) {
    multiply_first_layer_gradient<ChosenGradient, precision>(context, first_layer_of(s, x),
                                                             s.conv.K, dw, workspace, gradient);
    return;
  }
  const ProductShape shape = backward_weight_product(s.conv, 1);
  const Cut cut = cut_product(shape, precision);
  ChosenPixels problem;
  problem.a = window_patches(s, x.floats);
  problem.b = gradient;
  problem.y = matrix_result(dw, shape.rows, shape.columns, s.conv.K, 0);
  problem.terms = shape.terms;
  multiply_parts(context, problem, cut, shape.elements, s.conv.K, workspace,
                 [&](const ChosenPixels& p) {
                   if (cut.tile == TileKind::wide)
                     launch_blocks<ByChosen<WideTile<precision>, precision>>(context, p, cut);
                   else if (cut.tile == TileKind::square)
                     launch_blocks<ByChosen<SquareTile, precision>>(context, p, cut);
                   else if (cut.tile == TileKind::narrow)
                     launch_blocks<ByChosen<NarrowTile, precision>>(context, p, cut);
                   else
                     launch_blocks<ByChosen<SmallTile, precision>>(context, p, cut);
                 });
}

#define CONVLET_MULTIPLY_CHOICES(precision)                                                 \
  template void multiply_choices<precision>(Context&, const Conv2dPoolShape&, const float*, \
                                            const std::uint8_t*, const Images&, float*, void*);
CONVLET_MULTIPLY_CHOICES(Precision::float32)
CONVLET_MULTIPLY_CHOICES(Precision::tf32)
CONVLET_MULTIPLY_CHOICES(Precision::bfloat16)
#undef CONVLET_MULTIPLY_CHOICES

}  // namespace convlet::cuda
