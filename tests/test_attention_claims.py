"""What attention can do: each test checks the claim of docs/attention.md with the same number."""

import numpy as np
import pytest

N, D = 8, 32  # keys, features
A, B = 2, 5  # the two keys that the query asks for


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def orthonormal(rng: np.random.Generator, n: int) -> np.ndarray:
    """n orthonormal rows of D features."""
    return np.linalg.qr(rng.normal(size=(D, n)))[0].T


def test_claim_1_weights_are_a_distribution_and_a_margin_copies(rng):
    keys, values = rng.normal(size=(N, D)), rng.normal(size=(N, D))
    for margin in (0.0, 2.0, 5.0, 20.0):
        q = rng.normal(size=D)
        others = np.delete(keys @ q, A).max()
        q += keys[A] * (others + margin - keys[A] @ q) / (keys[A] @ keys[A])  # raises the score of A
        scores = keys @ q
        reached = scores[A] - np.delete(scores, A).max()
        weights = softmax(scores)
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1)
        assert weights[A] >= 1 / (1 + (N - 1) * np.exp(-reached)) - 1e-12
        bound = 2 * (N - 1) * np.exp(-reached) * np.linalg.norm(values, axis=1).max()
        assert np.linalg.norm(weights @ values - values[A]) <= bound + 1e-12


def test_claim_2_one_query_averages_two_values(rng):
    keys, values = orthonormal(rng, N), rng.normal(size=(N, D))
    for t in (1.0, 5.0, 20.0):
        weights = softmax(keys @ (t * (keys[A] + keys[B])))
        assert weights[A] == pytest.approx(np.exp(t) / (2 * np.exp(t) + N - 2))
        assert weights[B] == pytest.approx(weights[A])
    np.testing.assert_allclose(weights @ values, (values[A] + values[B]) / 2, atol=1e-7)


def test_claim_3_orthogonal_subspaces_survive_their_sum(rng):
    basis = orthonormal(rng, 7)
    in_a, in_b = basis[:3], basis[3:]  # rows span A and B
    v_a, v_b = rng.normal(size=3) @ in_a, rng.normal(size=4) @ in_b
    M = in_a.T @ in_a
    np.testing.assert_allclose(M @ (v_a + v_b), v_a, atol=1e-12)
    np.testing.assert_allclose(2 * M @ ((v_a + v_b) / 2), v_a, atol=1e-12)


def sampled_keys(rng: np.random.Generator, means: np.ndarray, stretch: float, samples: int = 4000) -> np.ndarray:
    """(samples, N, D): keys near their means, key A also stretched along its mean with variance `stretch`."""
    keys = means + 1e-4 * rng.normal(size=(samples, N, D))
    keys[:, A] += np.sqrt(stretch) * rng.normal(size=(samples, 1)) * means[A]
    return keys


def test_claim_4_small_noise_leaves_the_average(rng):
    means = orthonormal(rng, N)
    weights = softmax(sampled_keys(rng, means, 0.0) @ (20 * (means[A] + means[B])))
    assert np.abs(weights[:, [A, B]] - 0.5).max() < 0.01


def test_claim_5_one_head_flips_when_a_key_varies_in_length(rng):
    means, t = orthonormal(rng, N), 30.0
    weights = softmax(sampled_keys(rng, means, 0.5) @ (t * (means[A] + means[B])))[:, A]
    assert (weights > 0.99).mean() > 0.4 and (weights < 0.01).mean() > 0.4  # rarely near one half
    assert weights.mean() == pytest.approx(0.5, abs=0.03)
    assert weights.std() > 0.45  # of at most 0.5


def test_claim_6_two_heads_keep_the_average_when_a_key_varies_in_length(rng):
    means, t = orthonormal(rng, N), 30.0
    keys = sampled_keys(rng, means, 0.5)
    one, two = softmax(keys @ (t * means[A])), softmax(keys @ (t * means[B]))
    weights = ((one + two) / 2)[:, [A, B]]
    usual = keys[:, A] @ means[A] > 0.3  # the handouts ignore keys that point backwards
    assert usual.mean() > 0.8
    assert np.abs(weights[usual] - 0.5).max() < 0.01
    assert two[:, B].min() > 0.99  # the second head is not affected


def self_attention(x: np.ndarray, Q: np.ndarray, K: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Unscaled, unmasked, one head; rows of x are positions."""
    return softmax((x @ Q.T) @ (x @ K.T).T) @ (x @ V.T)


@pytest.fixture
def words(rng) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """u_a, u_b, u_c, u_d: orthogonal, of length 6, so that e^(length^2) is large."""
    return tuple(6 * orthonormal(rng, 4))


def test_claim_7_without_matrices_a_position_finds_itself(words):
    a, b, c, d = words
    identity = np.eye(D)
    for second in (a, a + d, a + c):
        found = self_attention(np.stack((d + b, second, c + b)), identity, identity, identity)[1]
        np.testing.assert_allclose(found, second, atol=1e-6)
        assert np.linalg.norm(found - b) > 6  # nowhere near u_b


def test_claim_8_matrices_separate_where_to_look_from_what_to_copy(words):
    a, b, c, d = words
    length = a @ a
    V = (np.outer(b, b) - np.outer(c, c)) / length
    Q = (np.outer(d, a) + np.outer(c, d)) / length
    out = self_attention(np.stack((d + b, a, c + b)), Q, np.eye(D), V)
    np.testing.assert_allclose(out[1], b, atol=1e-6)
    np.testing.assert_allclose(out[0], b - c, atol=1e-6)
