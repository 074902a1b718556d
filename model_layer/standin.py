"""A graph for CUDA where there is no GPU: the very one, but that PackedMultiHeadAttention, which a CPU has no kernel
for, is a function of operators that it has. It does what the operator is documented to do: put the tokens where
`token_offset` says, attend with a mask, take them out again. It is for builds, `verify` and tests: it pays for padding.

A CPU makes fp16 products in fp32, and rounds where a norm reads them: the weights are rounded as on the GPU, the states
not each time that they are there.
"""

from onnx import ModelProto, helper, parser

from model_layer.cuda import ATTENTION

_DOMAIN = "emblet"
_FUNCTION = f"""
<domain: "{_DOMAIN}", opset_import: ["": 21, "com.microsoft": 1]>
{ATTENTION} <num_heads>
    (query, key, value, bias, token_offset, cumulative_sequence_length) => (output)
{{
    zero = Constant <value = int64[1] {{0}}> ()
    one = Constant <value = int64[1] {{1}}> ()
    end = Constant <value = int64[1] {{9223372036854775807}}> ()
    minus_one = Constant <value = int64[1] {{-1}}> ()
    tokens = Shape <start: int = 0, end: int = 1> (query)
    hidden = Shape <start: int = 1, end: int = 2> (query)
    texts_longest = Shape (token_offset)
    rows_shape = Concat <axis: int = 0> (minus_one, hidden)
    padded_shape = Concat <axis: int = 0> (texts_longest, hidden)

    offsets = Reshape (token_offset, minus_one)
    own = Slice (offsets, zero, tokens)
    own_64 = Cast <to: int = 7> (own)
    places = Unsqueeze (own_64, one)
    places_all = Shape (offsets)
    all_shape = Concat <axis: int = 0> (places_all, hidden)
    nothing = ConstantOfShape <value = float[1] {{0}}> (all_shape)
    query_32 = Cast <to: int = 1> (query)
    key_32 = Cast <to: int = 1> (key)
    value_32 = Cast <to: int = 1> (value)
    query_rows = ScatterND (nothing, places, query_32)
    key_rows = ScatterND (nothing, places, key_32)
    value_rows = ScatterND (nothing, places, value_32)
    query_padded = Reshape (query_rows, padded_shape)
    key_padded = Reshape (key_rows, padded_shape)
    value_padded = Reshape (value_rows, padded_shape)

    starts = Slice (cumulative_sequence_length, zero, minus_one)
    ends = Slice (cumulative_sequence_length, one, end)
    lengths = Sub (ends, starts)
    columns = Unsqueeze (lengths, one)
    longest_64 = Shape <start: int = 1, end: int = 2> (token_offset)
    longest = Cast <to: int = 6> (longest_64)
    limit = Squeeze (longest)
    first = Constant <value = int32 {{0}}> ()
    step = Constant <value = int32 {{1}}> ()
    inside = Range (first, limit, step)
    is_token = Less (inside, columns)
    mask = Cast <to: int = 6> (is_token)

    attended = com.microsoft.MultiHeadAttention <num_heads: int = @num_heads>
        (query_padded, key_padded, value_padded, , mask)
    rows = Reshape (attended, rows_shape)
    kept = Gather (rows, own)
    output = CastLike (kept, query)
}}
"""


def is_for_cuda(model: ModelProto) -> bool:
    return any(node.op_type == ATTENTION for node in model.graph.node)


def without_gpu(model: ModelProto) -> ModelProto:
    """The model, with a function in that operator's place."""
    found = ModelProto()
    found.CopyFrom(model)
    for node in found.graph.node:
        if node.op_type == ATTENTION:
            node.domain = _DOMAIN
    found.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    found.functions.append(parser.parse_function(_FUNCTION))
    return found
