import torch

from audioprep.encoders.rvq import ResidualVQ, half_norms, nearest


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_nearest_agrees_with_all_distances():
    rows, codewords = random(200, 16), random(50, 16)
    expected = (rows[:, None] - codewords).square().sum(-1).argmin(1)
    assert torch.equal(nearest(rows, codewords, half_norms(codewords)), expected)


def test_of_equal_codewords_the_first_wins():
    codewords = torch.eye(4).repeat(3, 1)
    rows = torch.eye(4)[[2, 0, 3]]
    assert nearest(rows, codewords, half_norms(codewords)).tolist() == [2, 0, 3]


def test_codes_and_leftover_add_up_to_the_rows():
    vq, rows = ResidualVQ(random(3, 20, 8)), random(100, 8)
    left = rows.clone()
    ids = vq.encode(left)
    assert ids.shape == (100, 3)
    torch.testing.assert_close(vq.decode(ids) + left, rows)


def test_fewer_codebooks_give_the_first_columns():
    books, rows = random(4, 20, 8), random(100, 8)
    assert torch.equal(ResidualVQ(books[:2]).encode(rows.clone()), ResidualVQ(books).encode(rows.clone())[:, :2])
