// How a range of elements is cut: into vectors, and among threads.
namespace convlet::CONVLET_ISA {

// Which lanes of a vector are in use: all, or the first n at the end of a range. Other lanes are
// read as zero and not written.
struct All {};
struct First {
  int n;
};
inline V load(const float* p, All) {
  return load(p);
}
inline V load(const float* p, First lanes) {
  return load_first(p, lanes.n);
}
inline void store(float* p, V a, All) {
  store(p, a);
}
inline void store(float* p, V a, First lanes) {
  store_first(p, a, lanes.n);
}
inline V load_from_bytes(const std::uint8_t* p, All) {
  return load_from_bytes(p);
}
inline V load_from_bytes(const std::uint8_t* p, First lanes) {
  return load_first_from_bytes(p, lanes.n);
}
inline void store_as_bytes(std::uint8_t* p, V a, All) {
  store_as_bytes(p, a);
}
inline void store_as_bytes(std::uint8_t* p, V a, First lanes) {
  store_first_as_bytes(p, a, lanes.n);
}
// a in the lanes in use, `other` in the rest.
inline V keep(V a, V, All) {
  return a;
}
inline V keep(V a, V other, First lanes) {
  constexpr float kLane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return select(load(kLane) < broadcast(static_cast<float>(lanes.n)), a, other);
}

// Of a line of the cache.
constexpr std::int64_t kLineFloats = 16;

// Whether a result of so many floats, in rows of `row` that each is written in whole lines, is
// better stored past the cache. A large one has left it before anyone reads it, and a line that is
// stored past the cache need not be read before.
inline bool worth_streaming(const float* result, std::int64_t floats, std::int64_t row) {
  constexpr std::int64_t kLargeFloats = 4 << 20;
  return floats > kLargeFloats && row % kLineFloats == 0 &&
         reinterpret_cast<std::uintptr_t>(result) % (kLineFloats * sizeof(float)) == 0;
}
inline void store(float* p, V a, All, bool past_cache) {
  past_cache ? stream(p, a) : store(p, a);
}
inline void store(float* p, V a, First lanes, bool) {
  store(p, a, lanes);
}

// f(i, lanes) for the vectors that start at i = begin, begin + width, ... and end at `end`.
template <class F>
inline void for_vectors(std::int64_t begin, std::int64_t end, F f) {
  std::int64_t i = begin;
  for (; i + V::width <= end; i += V::width) f(i, All());
  if (i < end) f(i, First{static_cast<int>(end - i)});
}

// f(c, count, lanes) for groups of `count` vectors of channels, 4 or 1, that start at c: so that
// whole cache lines are used where what follows c is far away.
template <class F>
inline void for_channels(std::int64_t channels, F f) {
  constexpr int kVectors = 4;
  std::int64_t c = 0;
  for (; c + kVectors * V::width <= channels; c += kVectors * V::width)
    f(c, std::integral_constant<int, kVectors>(), All());
  for_vectors(c, channels,
              [&](std::int64_t i, auto lanes) { f(i, std::integral_constant<int, 1>(), lanes); });
}

inline void copy(float* to, const float* from, std::int64_t n) {
  std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}
inline void clear(float* to, std::int64_t n) {
  std::memset(to, 0, static_cast<std::size_t>(n) * sizeof(float));
}

// Less work than this many elements is not worth waking a thread for.
constexpr std::int64_t kGrainElements = 16384;

// The grain, in items, when one item costs as much as `elements` elements.
inline std::int64_t grain_of(std::int64_t elements) {
  return elements < kGrainElements ? kGrainElements / (elements > 0 ? elements : 1) : 1;
}

// f(begin, end) over [0, n), cut only at multiples of a block: whether an element falls into a
// whole vector or into the tail does not depend on the threads.
template <class F>
inline void for_elements(Context& context, std::int64_t n, F f) {
  constexpr std::int64_t kBlock = 1024;
  parallel_for(context, (n + kBlock - 1) / kBlock, kGrainElements / kBlock,
               [&](std::int64_t begin, std::int64_t end, int) {
                 f(begin * kBlock, end * kBlock < n ? end * kBlock : n);
               });
}

// y[i] = f(x[i]) and y[i] = f(a[i], b[i]) for a function of vectors; y may be an input.
template <class F>
inline void transform(Context& context, std::int64_t n, const float* x, float* y, F f) {
  for_elements(context, n, [=](std::int64_t begin, std::int64_t end) {
    for_vectors(begin, end,
                [=](std::int64_t i, auto lanes) { store(y + i, f(load(x + i, lanes)), lanes); });
  });
}
template <class F>
inline void transform(Context& context, std::int64_t n, const float* a, const float* b, float* y,
                      F f) {
  for_elements(context, n, [=](std::int64_t begin, std::int64_t end) {
    for_vectors(begin, end, [=](std::int64_t i, auto lanes) {
      store(y + i, f(load(a + i, lanes), load(b + i, lanes)), lanes);
    });
  });
}

}  // namespace convlet::CONVLET_ISA
