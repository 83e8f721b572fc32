import itertools
from collections import Counter

import pytest

from mambapro.cli import InputError
from train.sampler import IdentitySampler

LABELS = [0] * 9 + [1] * 4 + [2] * 2 + [3] * 8 + [4] * 5


def sampler(seed=1, epoch=1, **changes):
    arguments = {"labels": LABELS, "batch_size": 8, "instances": 4, "seed": seed, **changes}
    made = IdentitySampler(**arguments)
    made.epoch = epoch
    return made


def test_batches_hold_p_identities_of_k():
    batches = list(sampler())
    assert len(batches) == len(sampler()) >= 2
    for batch in batches:
        counts = Counter(LABELS[draw.record] for draw in batch)
        assert sorted(counts.values()) == [4, 4]


def test_triplets_repeat_only_where_an_identity_has_too_few():
    counts = Counter(draw.record for batch in sampler() for draw in batch)
    assert {LABELS[record] for record, n in counts.items() if n > 1} <= {2}


def test_positions_number_the_draws_of_an_epoch():
    draws = [draw for batch in sampler(epoch=5) for draw in batch]
    assert [draw.position for draw in draws] == list(range(len(draws)))
    assert {draw.epoch for draw in draws} == {5}


def test_same_seed_and_epoch_same_batches():
    assert list(sampler()) == list(sampler())
    assert sampler().batches() != sampler(epoch=2).batches()
    assert sampler().batches() != sampler(seed=2).batches()


def test_going_on_in_the_middle_of_an_epoch():
    resumed = sampler()
    resumed.done = 1
    assert list(resumed) == list(sampler())[1:]
    assert len(resumed) == len(sampler()) - 1


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_processes_share_each_batch_by_identity(processes):
    whole = list(sampler(labels=LABELS * 2, batch_size=8, instances=2))
    parts = [
        list(sampler(labels=LABELS * 2, batch_size=8, instances=2, rank=r, processes=processes))
        for r in range(processes)
    ]
    together = [list(itertools.chain(*part)) for part in zip(*parts, strict=True)]
    assert together == whole
    for part in parts:
        for batch in part:
            counts = Counter((LABELS * 2)[draw.record] for draw in batch)
            assert set(counts.values()) == {2}


def test_processes_that_cannot_share_a_batch():
    with pytest.raises(InputError, match="3 processes cannot share the 4 identities of a batch"):
        sampler(batch_size=8, instances=2, processes=3)


def test_too_few_identities_for_a_batch():
    with pytest.raises(InputError, match="needs 8 identities, the training split has 5"):
        sampler(batch_size=32)
