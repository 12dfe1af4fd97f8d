// Elementwise arithmetic over tensors of one shape.
namespace convlet::CONVLET_ISA {

inline void add(Context& context, std::int64_t n, const float* a, const float* b, float* y) {
  transform(context, n, a, b, y, [](V u, V v) { return u + v; });
}

inline void scale(Context& context, std::int64_t n, float factor, float offset, const float* x,
                  float* y) {
  transform(context, n, x, y, [=](V u) { return fma(u, broadcast(factor), broadcast(offset)); });
}

}  // namespace convlet::CONVLET_ISA
