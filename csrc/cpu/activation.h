// Activations over whole tensors (formulas in formulas/activation.h).
namespace convlet::CONVLET_ISA {

// Calls f(std::integral_constant<Activation, a>) for the run-time value a.
template <class F>
inline void with_constant(Activation activation, F&& f) {
  with_value<Activation, kLastActivation>(activation, f);
}

inline void activation(Context& context, std::int64_t n, Activation kind, float alpha,
                       const float* x, float* y) {
  with_constant(kind, [&](auto constant) {
    transform(context, n, x, y,
              [=](V a) { return activate(decltype(constant)::value, a, broadcast(alpha)); });
  });
}

inline void activation_backward(Context& context, std::int64_t n, Activation kind, float alpha,
                                const float* dy, const float* y_or_x, float* dx) {
  with_constant(kind, [&](auto constant) {
    transform(context, n, dy, y_or_x, dx, [=](V g, V a) {
      return activation_gradient(decltype(constant)::value, g, a, broadcast(alpha));
    });
  });
}

}  // namespace convlet::CONVLET_ISA
