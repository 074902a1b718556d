from decimal import Decimal

from handler.billing.buckets import Bucket, Group, Sums, cost, line_item, merged

A, B = Group("key_a", "bge-m3", "bge-m3, input_tokens"), Group("key_b", "bge-m3", "bge-m3, batch input_tokens")


def test_the_cost_of_tokens_is_exact() -> None:
    assert cost(5, Decimal("0.01")) == Decimal("0.00000005")
    assert cost(1, Decimal("0.000001")) == Decimal("1E-12")
    assert cost(10**12, Decimal("999999999.000000000001")) == Decimal("999999999000000.000001")
    assert sum((cost(1, Decimal("0.1")) for _ in range(10_000_000 // 1000)), Decimal(0)) == Decimal("0.001")


def test_a_batchs_tokens_have_a_line_of_their_own() -> None:
    assert line_item("bge-m3", "http") == line_item("bge-m3", "message") == A.line_item
    assert line_item("bge-m3", "batch") == B.line_item


def test_buckets_add_up_group_by_group() -> None:
    first = Bucket(60, 2, {A: Sums(5, 2, Decimal("0.1"))})
    second = Bucket(120, 3, {A: Sums(7, 1, Decimal("0.2")), B: Sums(1, 1, Decimal("0.4"))})
    whole = merged(0, [first, second])
    assert whole == Bucket(0, 5, {A: Sums(12, 3, Decimal("0.3")), B: Sums(1, 1, Decimal("0.4"))})
    assert whole.total == Sums(13, 4, Decimal("0.7"))
    assert merged(0, []) == Bucket(0, 0, {})
