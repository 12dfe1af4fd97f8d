// Activations and their gradients (ops/activation.h) on vectors.
namespace convlet::CONVLET_ISA {

// selu's factor, and the limit s*a that it approaches for large negative x.
constexpr float kSeluScale = 1.05070099f, kSeluLimit = 1.75809934f;

// act(x). With a constant first argument the choice disappears in compilation.
CONVLET_HOST_DEVICE inline V activate(Activation activation, V x, V alpha) {
  const V three = broadcast(3.0f), six = broadcast(6.0f);
  // Constants and bounds stand first in max and min: in this order NaN passes.
  switch (activation) {
    case Activation::none:
      return x;
    case Activation::relu:
      return max(zero(), x);
    case Activation::sigmoid:
      return sigmoid(x);
    case Activation::tanh:
      return tanh(x);
    case Activation::gelu: {  // with the tail, not with erf, nothing cancels for negative x
      const V tail = normal_tail(abs(x));
      return x * select(x > zero(), broadcast(1.0f) - tail, tail);
    }
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::relu6:
      return min(alpha, max(zero(), x));
    case Activation::leaky_relu:
      return select(x > zero(), x, x * alpha);
    case Activation::elu:
      return select(x > zero(), x, alpha * expm1_negative(min(zero(), x)));
    case Activation::selu:
      return select(x > zero(), x * broadcast(kSeluScale),
                    broadcast(kSeluLimit) * expm1_negative(min(zero(), x)));
    case Activation::softplus:
      return max(zero(), x) + log1p(exp_negative(zero() - abs(x)));
    case Activation::exponential:
      return exp(x);
    case Activation::hard_sigmoid:
      return min(six, max(zero(), x + three)) / six;
    case Activation::hard_swish:
      return x * min(six, max(zero(), x + three)) / six;
  }
  return x;
}

// The same with the activation's default alpha: what epilogues apply.
CONVLET_HOST_DEVICE inline V activate(Activation activation, V x) {
  return activate(activation, x, broadcast(default_alpha(activation)));
}

// f(std::integral_constant<Activation, a>) for an activation that batch_norm_applies.
template <class F>
CONVLET_HOST_DEVICE inline void with_applied(Activation activation, F&& f) {
  using A = Activation;
  switch (activation) {
    case A::relu:
      return f(std::integral_constant<A, A::relu>());
    case A::relu6:
      return f(std::integral_constant<A, A::relu6>());
    case A::silu:
      return f(std::integral_constant<A, A::silu>());
    case A::hard_swish:
      return f(std::integral_constant<A, A::hard_swish>());
    default:
      return f(std::integral_constant<A, A::none>());
  }
}

// dy * act'(x), from y = act(x) where gradient_from_output holds, else from x.
CONVLET_HOST_DEVICE inline V activation_gradient(Activation activation, V dy, V y_or_x, V alpha) {
  const V one = broadcast(1.0f), three = broadcast(3.0f);
  const V x = y_or_x, y = y_or_x;
  switch (activation) {
    case Activation::none:
      return dy;
    case Activation::relu:
      return select((y > zero()) | is_nan(y), dy, zero());
    case Activation::sigmoid:
      return dy * y * (one - y);
    case Activation::tanh:
      return dy * (one - y * y);
    case Activation::gelu: {
      const V z = abs(x), tail = normal_tail(z);
      const V left = fma(zero() - tail * z, normal_hazard(z), tail);  // the gradient at -z
      return dy * select(x > zero(), one - left, left);
    }
    case Activation::silu: {
      const V s = sigmoid(x);
      return dy * s * fma(x, one - s, one);
    }
    case Activation::relu6:
      return select((y > zero()) & (y < alpha), dy, zero());
    case Activation::leaky_relu:
      return select(y > zero(), dy, dy * alpha);
    case Activation::elu:
      return select(y > zero(), dy, dy * (y + alpha));
    case Activation::selu:
      return dy * select(y > zero(), broadcast(kSeluScale), y + broadcast(kSeluLimit));
    case Activation::softplus:
      return zero() - dy * expm1_negative(zero() - y);  // sigmoid(x) = 1 - e^-y
    case Activation::exponential:
      return dy * y;
    case Activation::hard_sigmoid:
      return select(abs(x) < three, dy / broadcast(6.0f), zero());
    case Activation::hard_swish: {
      const V inside = dy * fma(x, broadcast(1.0f / 3.0f), broadcast(0.5f));
      return select((abs(x) < three) | is_nan(x), inside, select(x > zero(), dy, zero()));
    }
  }
  return dy;
}

}  // namespace convlet::CONVLET_ISA
