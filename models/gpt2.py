"""GPT-2 with random weights: transformers' own class, at any size."""

from transformers import GPT2Config, GPT2LMHeadModel

from models.sizes import check_divides, check_positive, check_scale


def build(
    *,
    vocab_size: int,
    layers: int,
    heads: int,
    width: int,
    positions: int,
    tied: bool = True,
    sparse_embedding: bool = False,
    initial_scale: float = 0.02,
) -> GPT2LMHeadModel:
    """A GPT-2 without dropout, in fp32.

    It takes `input_ids` and `labels`, both (batch, sequence <= positions) int64, and shifts the
    labels itself. Weights follow torch's global random state.
    tied: the output head is the token table, as in the published GPT-2.
    sparse_embedding: the token table's gradient has only the rows of the batch's tokens.
    initial_scale: standard deviation of new weights (at the end of a block, divided by the root of
    twice the layers). GPT-2's own 0.02 is about 1/sqrt(width) at its width of 768 and above.
    Raises ValueError for a size below 1, for heads that do not divide the width, for a scale that
    is not above 0, and for a sparse table that is tied: the head's gradient has every row.
    """
    check_positive("model", vocab_size=vocab_size, layers=layers, heads=heads)
    check_positive("model", width=width, positions=positions)
    check_divides("model.heads", heads, "model.width", width)
    check_scale("model.initial_scale", initial_scale)
    if tied and sparse_embedding:
        raise ValueError(
            "model.sparse_embedding=true: needs model.tied=false, as the head makes the gradient "
            "of a tied table dense"
        )
    config = GPT2Config(  # type: ignore[call-arg]  # its stub hides the keywords of every config
        vocab_size=vocab_size,
        n_layer=layers,
        n_head=heads,
        n_embd=width,
        n_positions=positions,
        # The function that GPT-2 calls gelu_new, as one fused kernel: saves a quarter of a step.
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        summary_first_dropout=0.0,
        # Both mark the end of a document with the last id, as in GPT-2's own vocabulary.
        bos_token_id=vocab_size - 1,
        eos_token_id=vocab_size - 1,
        attn_implementation="sdpa",
        use_cache=False,
        initializer_range=initial_scale,
        tie_word_embeddings=tied,
    )
    model = GPT2LMHeadModel(config)
    model.transformer.wte.sparse = sparse_embedding
    model.loss_type = "ForCausalLM"  # the class's name does not tell; avoids a warning
    return model
