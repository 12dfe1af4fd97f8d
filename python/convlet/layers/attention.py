"""MultiHeadAttention."""

from typing import Any

from convlet import initializers, regularizers
from convlet.layers import arguments
from convlet.layers.base import GraphBuilder, Layer, Shape
from convlet.layers.core import weight_config
from convlet.layers.variable import Variable


class MultiHeadAttention(Layer):
    """Attention of queries to keys, several heads side by side, between linear projections
    (Vaswani et al. 2017): ``mha(query, value)``, or ``mha(x, x)`` for self-attention.

    With q, k and v the projections of query (T, d), key and value (S, d'):

        y = concat over heads of (softmax(q_h @ k_h.T / sqrt(key_dim)) @ v_h) @ output kernel

    The (T, S) matrix of probabilities is never stored, neither in inference nor in training.
    Weights, in Keras' order: query/kernel (d, num_heads, key_dim), query/bias (num_heads, key_dim),
    the same for key and value (value_dim), attention_output/kernel (num_heads, value_dim, output)
    and attention_output/bias (output,).

    Args:
        num_heads: how many heads.
        key_dim: the size of each head's queries and keys.
        value_dim: the size of each head's values; key_dim when None.
        dropout: in training, the share of the attention probabilities that is set to 0; the others
            are divided by 1 - dropout.
        use_bias: whether the projections have biases.
        output_shape: the size of the result's last axis; the query's when None.
        attention_axes, flash_attention, seed: accepted as in Keras where they ask for nothing else:
            attention is over the tokens, always in blocks, and the model's seed decides.
    """

    def __init__(
        self,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dropout: float = 0.0,
        use_bias: bool = True,
        output_shape: int | None = None,
        attention_axes: Any = None,
        flash_attention: bool | None = None,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        owner = self.owner
        arguments.unsupported(
            owner, kernel_constraint=kernel_constraint, bias_constraint=bias_constraint
        )
        if attention_axes not in (None, 1, (1,), [1]):
            raise arguments.expected(owner, "attention_axes", "None or 1", attention_axes)
        self.num_heads = arguments.integer(owner, "num_heads", num_heads)
        self.key_dim = arguments.integer(owner, "key_dim", key_dim)
        self.value_dim = (
            self.key_dim if value_dim is None else arguments.integer(owner, "value_dim", value_dim)
        )
        self.dropout = arguments.number(owner, "dropout", dropout)
        if not 0 <= self.dropout < 1:
            raise arguments.expected(owner, "dropout", "a number in [0, 1)", dropout)
        self.use_bias = arguments.flag(owner, "use_bias", use_bias)
        self.output_shape = (
            None if output_shape is None else arguments.integer(owner, "output_shape", output_shape)
        )
        self.seed = seed
        self.kernel_initializer = initializers.get(
            kernel_initializer, f"{owner}: kernel_initializer"
        )
        self.bias_initializer = initializers.get(bias_initializer, f"{owner}: bias_initializer")
        self.kernel_regularizer = regularizers.get(
            kernel_regularizer, f"{owner}: kernel_regularizer"
        )
        self.bias_regularizer = regularizers.get(bias_regularizer, f"{owner}: bias_regularizer")

    def __call__(
        self,
        query: Any,
        value: Any,
        key: Any = None,
        query_mask: Any = None,
        value_mask: Any = None,
        key_mask: Any = None,
        attention_mask: Any = None,
        return_attention_scores: bool = False,
        training: bool | None = None,
        use_causal_mask: bool = False,
    ) -> Any:
        """(N, T, output) for query (N, T, d), value (N, S, d') and key (N, S, d''), which is value
        when None. Masks and scores are refused: all tokens of an image are seen."""
        arguments.unsupported(
            self.owner,
            query_mask=query_mask,
            value_mask=value_mask,
            key_mask=key_mask,
            attention_mask=attention_mask,
            return_attention_scores=return_attention_scores or None,
            use_causal_mask=use_causal_mask or None,
        )
        inputs = [query, value] if key is None else [query, value, key]
        return super().__call__(inputs, training=training)

    def build(self, shapes: list[Shape]) -> None:
        if len(shapes) not in (2, 3):
            raise arguments.expected(
                self.owner, "inputs", "query, value and maybe key", f"{len(shapes)} tensors"
            )
        for name, shape in zip(("query", "value", "key"), shapes, strict=False):
            if len(shape) != 2:
                raise arguments.expected(
                    self.owner, name, "tokens (N,T,d)", "(N," + ",".join(map(str, shape)) + ")"
                )
        query, value, key = shapes[0][-1], shapes[1][-1], shapes[-1][-1]
        output = query if self.output_shape is None else self.output_shape
        self._projection("query", (query,), (self.num_heads, self.key_dim))
        self._projection("key", (key,), (self.num_heads, self.key_dim))
        self._projection("value", (value,), (self.num_heads, self.value_dim))
        self._projection("attention_output", (self.num_heads, self.value_dim), (output,))

    def _projection(self, name: str, inputs: Shape, outputs: Shape) -> None:
        """The weights of a dense layer whose sizes are products."""

        def product(shape: Shape) -> int:
            return shape[0] * shape[-1] if len(shape) > 1 else shape[0]

        rows, columns = product(inputs), product(outputs)
        self.add_weight(
            f"{name}/kernel",
            (*inputs, *outputs),
            self.kernel_initializer,
            self.kernel_regularizer,
            graph_shape=(rows, columns),
        )
        if self.use_bias:
            self.add_weight(
                f"{name}/bias",
                outputs,
                self.bias_initializer,
                self.bias_regularizer,
                graph_shape=(columns,),
            )

    def lower(self, graph: GraphBuilder, inputs: list[int]) -> list[int]:
        query, value, key = inputs[0], inputs[1], inputs[-1]
        each = 2 if self.use_bias else 1
        weights = [self.weights[i : i + each] for i in range(0, 4 * each, each)]

        def dense(x: int, variables: list[Variable]) -> int:
            parameters = [graph.parameter(self, variable) for variable in variables]
            return graph.node("dense", self, [x], parameters)

        dropout = self.dropout if graph.training else 0.0
        attributes: dict[str, Any] = {"heads": self.num_heads, "dropout": dropout}
        projections = [dense(x, w) for x, w in zip((query, key, value), weights[:3], strict=True)]
        return [dense(graph.node("attention", self, projections, (), attributes), weights[3])]

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | {
            "num_heads": self.num_heads,
            "key_dim": self.key_dim,
            "value_dim": self.value_dim,
            "dropout": self.dropout,
            "use_bias": self.use_bias,
            "output_shape": self.output_shape,
            "seed": self.seed,
            **weight_config(self, "kernel"),
            **weight_config(self, "bias"),
        }
