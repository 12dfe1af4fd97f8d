// Windows sliding over the images of a batch, cut into blocks that a core can keep in its cache,
// and the zero-padded copy of a block's images that spares the tiles every border case. When no
// window reaches into the padding there is no copy: the images are read where they are.
namespace convlet::CONVLET_ISA {

// Window (i,j) of an image spans source rows i*step_h + origin_h, ... (extent_h of them), and
// columns likewise. The origin is negative where windows start in the padding.
struct Windows {
  std::int64_t images, height, width, channels;  // the source, NHWC
  std::int64_t rows, columns;                    // windows per image
  std::int64_t origin_h, origin_w;
  std::int64_t step_h, step_w;
  std::int64_t extent_h, extent_w;

  std::int64_t span_h(std::int64_t count) const { return (count - 1) * step_h + extent_h; }
  std::int64_t span_w() const { return (columns - 1) * step_w + extent_w; }
  bool padded() const {
    return origin_h < 0 || origin_w < 0 || origin_h + span_h(rows) > height ||
           origin_w + span_w() > width;
  }
};

// The cut: every block has `images` images of `rows` rows of windows each (fewer in the last ones);
// one of the two is 1 or all.
struct Blocks {
  std::int64_t images, rows;
  std::int64_t bands;  // per image
  std::int64_t count;
};

struct Block {
  std::int64_t image, images;
  std::int64_t row, rows;
};

// Blocks of about `bytes` of source and result, and at least `least` of them where the work can be
// cut that far without tiny pieces; of a whole multiple of `unit` rows, as w has.
constexpr std::int64_t kBlockBytes = 256 * 1024;
constexpr std::int64_t kLeastPixels = 24;

// At most so many images for a block, down to half of that where the largest share of `least`
// workers is smaller then.
inline std::int64_t images_of_blocks(std::int64_t images, std::int64_t most, std::int64_t least) {
  const auto share = [&](std::int64_t n) { return n * ceil_div(ceil_div(images, n), least); };
  most = larger(1, smaller(most, ceil_div(images, least)));
  std::int64_t best = most;
  for (std::int64_t n = most - 1; 2 * n >= most && n > 0; --n)
    if (share(n) < share(best)) best = n;
  return best;
}

inline Blocks cut_into_blocks(const Windows& w, std::int64_t result_channels, std::int64_t bytes,
                              std::int64_t least, std::int64_t unit = 1) {
  std::int64_t row_bytes =
      4 * (w.step_h * w.span_w() * w.channels + w.columns * result_channels) + 16 * w.columns;
  Blocks blocks;
  blocks.rows = larger(1, smaller(w.rows, bytes / row_bytes));
  blocks.images = 1;
  if (w.images < least) {
    std::int64_t finest = larger(1, ceil_div(w.rows * w.images, least));
    const std::int64_t fewest = ceil_div(kLeastPixels, w.columns);
    blocks.rows = smaller(blocks.rows, larger(finest, fewest));
    // Rather smaller ones, down to the half, than unequal shares.
    for (std::int64_t rows = blocks.rows; rows >= fewest && 2 * rows > blocks.rows; --rows)
      if (rows % unit == 0 && w.rows % (rows * least) == 0) {
        blocks.rows = rows;
        break;
      }
  } else if (blocks.rows == w.rows) {
    blocks.images = images_of_blocks(w.images, larger(1, bytes / (row_bytes * w.rows)), least);
  }
  blocks.bands = ceil_div(w.rows, blocks.rows);
  blocks.rows = ceil_div(ceil_div(w.rows, blocks.bands), unit) * unit;
  blocks.bands = ceil_div(w.rows, blocks.rows);
  blocks.count = ceil_div(w.images, blocks.images) * blocks.bands;
  return blocks;
}

// A gradient of the weights, of `size` floats, is cut into parts with a dw of their own: at most so
// many, and so much memory, and each of pixels enough to pay for one. A power of two, of which
// workers have equal shares more often than of 3 or 5.
constexpr std::int64_t kMostParts = 8, kPartsBytes = 8 << 20, kPartPixels = 128;
inline std::int64_t most_parts(std::int64_t pixels, std::int64_t size,
                               std::int64_t bytes = kPartsBytes) {
  const std::int64_t worth = smaller(kMostParts, pixels / kPartPixels);
  const std::int64_t most = smaller(worth, bytes / (4 * size));
  std::int64_t parts = 1;
  while (2 * parts <= most) parts *= 2;
  return parts;
}

// Into how many chunks the panels of each part are cut: none where the parts alone are equal
// shares.
inline std::int64_t chunks_of_parts(std::int64_t parts, std::int64_t panels, int threads) {
  const bool enough = parts >= 2 * threads || parts % threads == 0;
  return enough ? 1 : smaller(panels, ceil_div(2 * threads, parts));
}

inline Block block_at(const Windows& w, const Blocks& blocks, std::int64_t index) {
  Block block;
  block.image = index / blocks.bands * blocks.images;
  block.images = smaller(blocks.images, w.images - block.image);
  block.row = index % blocks.bands * blocks.rows;
  block.rows = smaller(blocks.rows, w.rows - block.row);
  return block;
}

// Where the windows of a block lie, relative to the first element of its first window.
struct Pitch {
  std::int64_t pixel, row, image;  // floats from one source pixel, row, image to the next

  std::int64_t window(const Windows& w, std::int64_t image_index, std::int64_t i,
                      std::int64_t j) const {
    return image_index * image + i * w.step_h * row + j * w.step_w * pixel;
  }
};

// The pitch in the source, and in a block's padded copy with `channels` channels.
inline Pitch source_pitch(const Windows& w) {
  return {w.channels, w.width * w.channels, w.height * w.width * w.channels};
}
inline Pitch copy_pitch(const Windows& w, const Blocks& blocks, std::int64_t channels) {
  std::int64_t row = w.span_w() * channels;
  return {channels, row, w.span_h(blocks.rows) * row};
}

// Copies the source rows of a block to `to`, with zeros outside the images. copy_pixels(from, to,
// pixels) copies neighbouring pixels; usually they are just memory.
template <class CopyPixels>
inline void copy_block(const Windows& w, const Block& block, const Pitch& pitch,
                       const float* source, float* to, CopyPixels&& copy_pixels) {
  const std::int64_t columns = w.span_w();
  const std::int64_t left = smaller(columns, larger(0, -w.origin_w));
  const std::int64_t end = larger(left, smaller(columns, w.width - w.origin_w));
  for (std::int64_t n = 0; n < block.images; ++n)
    for (std::int64_t i = 0; i < w.span_h(block.rows); ++i) {
      float* row = to + n * pitch.image + i * pitch.row;
      std::int64_t h = block.row * w.step_h + w.origin_h + i;
      if (h < 0 || h >= w.height) {
        clear(row, columns * pitch.pixel);
        continue;
      }
      clear(row, left * pitch.pixel);
      if (end > left)
        copy_pixels(source + (((block.image + n) * w.height + h) * w.width + left + w.origin_w) *
                                 w.channels,
                    row + left * pitch.pixel, end - left);
      clear(row + end * pitch.pixel, (columns - end) * pitch.pixel);
    }
}

}  // namespace convlet::CONVLET_ISA
