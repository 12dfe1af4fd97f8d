// Activations on vectors, for the epilogues of other kernels, and over whole tensors.
namespace convlet::CONVLET_ISA {

// act(x). With a constant first argument the choice disappears in compilation.
inline V activate(Activation activation, V x) {
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return max(zero(), x);  // in this order NaN passes
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::tanh:
      return tanh(x);
    case Activation::gelu:
      return x * normal(x).lower_tail;
    case Activation::silu:
      return x * sigmoid(x);
  }
  return x;
}

// dy * act'(x), from y = act(x) where gradient_from_output holds, else from x.
inline V activation_gradient(Activation activation, V dy, V y_or_x) {
  const V one = broadcast(1.0f);
  switch (activation) {
    case Activation::none:
      return dy;
    case Activation::relu: {
      const V y = y_or_x;
      return select((y > zero()) | is_nan(y), dy, zero());
    }
    case Activation::sigmoid: {
      const V y = y_or_x;
      return dy * y * (one - y);
    }
    case Activation::tanh: {
      const V y = y_or_x;
      return dy * (one - y * y);
    }
    case Activation::gelu: {
      constexpr float kInverseSqrt2Pi = 0.398942280f;
      const V x = y_or_x;
      const Normal phi = normal(x);
      return dy * fma(x * broadcast(kInverseSqrt2Pi), phi.density, phi.lower_tail);
    }
    case Activation::silu: {
      const V x = y_or_x, s = sigmoid(x);
      return dy * s * fma(x, one - s, one);
    }
  }
  return dy;
}

// Calls f(std::integral_constant<Activation, a>) for the run-time value a.
template <class F>
inline void with_constant(Activation activation, F&& f) {
  using A = Activation;
  switch (activation) {
    case A::none:
      return f(std::integral_constant<A, A::none>());
    case A::relu:
      return f(std::integral_constant<A, A::relu>());
    case A::sigmoid:
      return f(std::integral_constant<A, A::sigmoid>());
    case A::tanh:
      return f(std::integral_constant<A, A::tanh>());
    case A::gelu:
      return f(std::integral_constant<A, A::gelu>());
    case A::silu:
      return f(std::integral_constant<A, A::silu>());
  }
}

inline void activation(Context& context, std::int64_t n, Activation kind, const float* x,
                       float* y) {
  with_constant(kind, [&](auto constant) {
    transform(context, n, x, y, [](V a) { return activate(decltype(constant)::value, a); });
  });
}

inline void activation_backward(Context& context, std::int64_t n, Activation kind, const float* dy,
                                const float* y_or_x, float* dx) {
  with_constant(kind, [&](auto constant) {
    transform(context, n, dy, y_or_x, dx,
              [](V g, V a) { return activation_gradient(decltype(constant)::value, g, a); });
  });
}

}  // namespace convlet::CONVLET_ISA
