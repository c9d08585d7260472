"""The external memory against the paper's equations written out row by row, and what makes it forget."""

import math

import pytest
import torch

from nlpmeta.learners.mann import BLANK, Memory

DECAY = 0.9


class ByHand:
    """One stream's memory in plain Python; every number is computed row by row."""

    def __init__(self, rows, dim):
        self.keys = [[0.0] * dim for _ in range(rows)]
        self.slots, self.strength, self.usage = [None] * rows, [0.0] * rows, [0.0] * rows

    def read(self, key, sharpness, power):
        def cosine(row):
            dot = sum(a * b for a, b in zip(key, row, strict=True))
            return dot / math.sqrt(sum(a * a for a in key)) / math.sqrt(sum(b * b for b in row))

        held = [i for i, slot in enumerate(self.slots) if slot is not None]
        each = {i: math.exp(sharpness * cosine(self.keys[i])) * self.strength[i] ** power for i in held}
        return [each.get(i, 0.0) / sum(each.values()) if held else 0.0 for i in range(len(self.slots))]

    def least_used(self):
        blank = [i for i, slot in enumerate(self.slots) if slot is None]
        if blank:
            return blank[0]
        spare = [i for i, slot in enumerate(self.slots) if self.slots.count(slot) > 1]
        return min(spare, key=lambda i: self.usage[i]) if spare else None

    def write(self, key, slot, merge, read):
        row = self.least_used()
        own = [weight if self.slots[i] == slot else 0.0 for i, weight in enumerate(read)]
        if merge:
            weights = [weight / sum(own) for weight in own]
        else:
            weights = [float(i == row) for i in range(len(read))]
            self.keys[row], self.strength[row], self.slots[row] = [0.0] * len(key), 0.0, slot
        for i, weight in enumerate(weights):
            self.keys[i] = [a + weight * b for a, b in zip(self.keys[i], key, strict=True)]
            self.strength[i] += weight
            self.usage[i] = DECAY * self.usage[i] + read[i] + weight
        return row


def run_both(*, rows, n_slots, n_writes, merge_every, seed):
    """The same writes into both; yields both after each, and the row that either would take."""
    generator = torch.Generator().manual_seed(seed)
    ours, theirs = Memory.blank(1, rows, 4), ByHand(rows, 4)
    for step in range(n_writes):
        key = torch.randn(4, generator=generator)
        slot = step if step < n_slots else int(torch.randint(n_slots, (1,), generator=generator))
        read = ours.read(key.view(1, 1, 4), torch.tensor([3.0]), torch.tensor(0.5))[:, 0]
        by_hand = theirs.read(key.tolist(), 3.0, 0.5)
        assert read[0].tolist() == pytest.approx(by_hand, abs=1e-5)
        row = ours.least_used()
        merge = (step % merge_every == 0 or int(row) == BLANK) and slot in theirs.slots
        assert int(row) == (BLANK if theirs.least_used() is None else theirs.least_used())
        ours = ours.write(key.view(1, 4), torch.tensor([slot]), row, torch.tensor([float(merge)]), read, decay=DECAY)
        theirs.write(key.tolist(), slot, merge, by_hand)
        yield ours, theirs


@pytest.mark.parametrize("seed", range(3))
def test_reads_writes_and_usage_are_those_of_the_equations_row_by_row(seed):
    for ours, theirs in run_both(rows=6, n_slots=3, n_writes=40, merge_every=3, seed=seed):
        assert [None if slot == BLANK else slot for slot in ours.slots[0].tolist()] == theirs.slots
        torch.testing.assert_close(ours.keys[0], torch.tensor(theirs.keys), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.strength[0], torch.tensor(theirs.strength), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours.usage[0], torch.tensor(theirs.usage), rtol=1e-4, atol=1e-4)


def test_usage_fades_by_the_decay_where_nothing_is_read_or_written():
    memory = Memory.blank(1, 3, 2)
    nothing, new = torch.zeros(1, 3), torch.zeros(1)
    for step, slot in enumerate((0, 1, 2)):
        key = torch.eye(2)[step % 2].view(1, 2)
        memory = memory.write(key, torch.tensor([slot]), memory.least_used(), new, nothing, decay=DECAY)
    assert memory.usage[0].tolist() == pytest.approx([DECAY**2, DECAY, 1.0])


def test_no_class_loses_its_last_row_however_often_the_others_are_written():
    for ours, _ in run_both(rows=4, n_slots=3, n_writes=200, merge_every=1000, seed=7):
        assert len(set(ours.slots[0].tolist()) - {BLANK}) == min(3, int((ours.strength > 0).sum()))
    assert set(ours.slots[0].tolist()) == {0, 1, 2}


def test_a_gradient_says_whether_merging_would_have_been_better():
    memory = Memory.blank(1, 2, 2)
    read = torch.zeros(1, 2)
    memory = memory.write(torch.eye(2)[:1], torch.tensor([0]), torch.tensor([0]), torch.zeros(1), read, decay=DECAY)
    merge = torch.zeros(1, requires_grad=True)
    read = memory.read(torch.ones(1, 1, 2), torch.tensor([1.0]), torch.tensor(0.0))[:, 0]
    after = memory.write(torch.ones(1, 2), torch.tensor([0]), memory.least_used(), merge, read, decay=DECAY)
    after.strength[0, 0].backward()
    assert merge.grad.item() == pytest.approx(1.0)  # all that is merged would go to the only row of the class


def test_a_class_that_is_dropped_leaves_blank_rows():
    *_, (memory, _) = run_both(rows=6, n_slots=3, n_writes=30, merge_every=3, seed=0)
    left = memory.without(1)
    gone = memory.slots == 1
    assert gone.any()
    assert (left.slots[gone] == BLANK).all()
    assert not left.keys[gone].any()
    torch.testing.assert_close(left.keys[~gone], memory.keys[~gone])
