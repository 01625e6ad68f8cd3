from __future__ import annotations

import itertools
import textwrap
import threading

import numpy as np
import pytest
import torch

from gsfl_tune.data import (
    Augment,
    Views,
    center_crop,
    epoch_batches,
    eval_batches,
    prepare,
)
from gsfl_tune.data.batch_share import BatchShare
from gsfl_tune.data.loader import epoch_order, view_batches
from gsfl_tune.data.prefetch import prefetch
from gsfl_tune.experiment.data_config import AugmentConfig
from tests import warm
from tests.data.conftest import configure, fill

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
PLAIN = Augment(AugmentConfig(), 16, MEAN, STD)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = fill(tmp_path_factory.mktemp("images"), {"a": 30, "b": 30})
    return root, tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def dataset(folders):
    root, cache = folders
    return prepare(configure("folder", root), cache_dir=cache)


def epoch_iterator(dataset, *, seed=0, number=1, batch_size=8, color=0.0, **values):
    return epoch_batches(
        dataset.pool,
        dataset.train_index,
        batch_size,
        seed=seed,
        epoch=number,
        transform=Augment(AugmentConfig(color=color), 16, MEAN, STD),
        device="cpu",
        **values,
    )


def triples(batches):
    """Images, labels and positions of batches of one view."""
    return [(each.inputs, each.labels, each.positions.numpy()) for each in batches]


def epoch(dataset, **values):
    return triples(epoch_iterator(dataset, **values))


def expected_with(dataset, config, random):
    squares = torch.from_numpy(dataset.pool.gather(np.arange(len(dataset.pool))))
    return Augment(config, 16, MEAN, STD).apply(squares, random)


def fail_on(batches):
    for _ in batches:
        raise RuntimeError("of the consumer")


def prefetching():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def test_an_epoch_sees_every_image_once(dataset):
    batches = epoch(dataset, drop_last=False)
    positions = np.concatenate([positions for _, _, positions in batches])
    np.testing.assert_array_equal(np.sort(positions), dataset.train_index)
    for images, labels, positions in batches:
        assert images.shape == (len(positions), 3, 16, 16)
        assert labels.dtype == torch.int64
        np.testing.assert_array_equal(labels.numpy(), dataset.pool.labels[positions])


def test_the_last_batch_is_dropped_unless_it_is_the_only_one(dataset):
    count = len(dataset.train_index)
    assert count % 8
    assert [len(labels) for _, labels, _ in epoch(dataset)] == [8] * (count // 8)
    assert [len(labels) for _, labels, _ in epoch(dataset, batch_size=1000)] == [count]


def test_seed_and_epoch_decide_order_and_augmentation(dataset):
    first, again = epoch(dataset), epoch(dataset)
    for (images, _, positions), (same, _, same_positions) in zip(first, again, strict=True):
        np.testing.assert_array_equal(positions, same_positions)
        torch.testing.assert_close(images, same, rtol=0, atol=0)
    for other in (epoch(dataset, number=2), epoch(dataset, seed=1)):
        assert any((a[2] != b[2]).any() for a, b in zip(first, other, strict=True))
        places = {int(p): (b, i) for b, batch in enumerate(other) for i, p in enumerate(batch[2])}
        position = next(int(p) for p in first[0][2] if int(p) in places)
        batch, place = places[position]
        mine = first[0][0][first[0][2].tolist().index(position)]
        assert not torch.equal(mine, other[batch][0][place])


@pytest.mark.parametrize("size", [2, 3])
def test_shares_of_a_batch_make_up_the_batch(dataset, size):
    views = Views(1, len(dataset.pool)).draw(0, PLAIN)
    for options in ({"color": 0.4}, {"random": views}):
        whole = epoch(dataset, **options)
        shares = [epoch(dataset, share=BatchShare(rank, size), **options) for rank in range(size)]
        for batch, *parts in zip(whole, *shares, strict=True):
            images, labels, positions = zip(*parts, strict=True)
            assert max(map(len, labels)) - min(map(len, labels)) <= 1
            assert torch.equal(torch.cat(images), batch[0])
            assert torch.equal(torch.cat(labels), batch[1])
            np.testing.assert_array_equal(np.concatenate(positions), batch[2])


def test_the_order_does_not_depend_on_global_random_state(dataset):
    torch.manual_seed(1)
    first = [positions for _, _, positions in epoch(dataset)]
    torch.manual_seed(2)
    np.random.seed(3)
    before = torch.random.get_rng_state()
    second = [positions for _, _, positions in epoch(dataset)]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_view_of_an_image_depends_on_its_row_alone(dataset):
    pool = dataset.pool
    augment = Augment(AugmentConfig(color=0.2), 16, MEAN, STD)
    random = Views(count=2, images=len(pool), seed=3).draw(1, augment)
    expected = expected_with(dataset, AugmentConfig(color=0.2), random)

    def views(index, batch_size):
        return view_batches(pool, index, batch_size, random=random, transform=augment, device="cpu")

    for index, batch_size in ((np.arange(len(pool)), 7), (dataset.train_index[::-1], 64)):
        batches = triples(views(index, batch_size))
        positions = np.concatenate([positions for _, _, positions in batches])
        np.testing.assert_array_equal(positions, index)
        got = torch.cat([images for images, _, _ in batches])
        torch.testing.assert_close(got, expected[torch.from_numpy(positions)], rtol=0, atol=0)
    for images, labels, positions in epoch(dataset, random=random):
        np.testing.assert_array_equal(labels.numpy(), pool.labels[positions])
        torch.testing.assert_close(
            images, expected_with(dataset, AugmentConfig(), random)[torch.from_numpy(positions)]
        )


def test_fixed_views_come_in_the_order_of_the_epoch(dataset):
    random = Views(count=1, images=len(dataset.pool)).draw(0, PLAIN)
    fixed = [positions for _, _, positions in epoch(dataset, random=random)]
    fresh = [positions for _, _, positions in epoch(dataset)]
    order = epoch_order(dataset.train_index, dataset.pool.labels, seed=0, epoch=1)
    for a, b in zip(fixed, fresh, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.concatenate(fixed), order[: 8 * len(fixed)])


def test_several_views_of_a_batch_are_changed_each_in_its_own_way(dataset):
    alone = epoch(dataset, color=0.4)
    for share in (BatchShare(0, 1), BatchShare(1, 2)):
        batches = list(epoch_iterator(dataset, color=0.4, views=3, share=share))
        for batch, (images, labels, positions) in zip(batches, alone, strict=True):
            own = share.of(len(labels))
            # One view more changes no other.
            assert torch.equal(batch.views[0], images[own])
            assert torch.equal(batch.labels, labels[own])
            np.testing.assert_array_equal(batch.positions.numpy(), positions[own])
            for one, other in itertools.combinations(batch.views, 2):
                assert not torch.equal(one, other)
    tables = torch.stack([Views(2, len(dataset.pool)).draw(view, PLAIN) for view in range(2)])
    for batch in epoch_iterator(dataset, random=tables):
        for view, table in zip(batch.views, tables, strict=True):
            expected = expected_with(dataset, AugmentConfig(), table)
            torch.testing.assert_close(view, expected[batch.positions])


def test_a_table_of_another_size_is_refused(dataset):
    with pytest.raises(ValueError, match=f"3 rows, there are {len(dataset.pool)} images"):
        epoch(dataset, random=torch.zeros((3, 8)))


def test_evaluation_keeps_the_order_and_leaves_nothing_out(dataset):
    batches = triples(
        eval_batches(
            dataset.pool,
            dataset.validation_index,
            5,
            transform=lambda images: center_crop(images, 16, MEAN, STD),
            device="cpu",
        )
    )
    positions = np.concatenate([positions for _, _, positions in batches])
    np.testing.assert_array_equal(positions, dataset.validation_index)
    expected = center_crop(torch.from_numpy(dataset.pool.gather(positions)), 16, MEAN, STD)
    torch.testing.assert_close(torch.cat([images for images, _, _ in batches]), expected)
    assert not batches[0][0].requires_grad


def test_errors_of_the_thread_reach_the_caller(dataset):
    third = epoch(dataset)[2][2]

    class Failing(Augment):
        def fill(self, out, squares, random):
            if any(np.array_equal(square, failing) for square in squares):
                raise FloatingPointError("in the thread")
            super().fill(out, squares, random)

    failing = dataset.pool.gather(third[-1:])[0]

    batches = epoch_batches(
        dataset.pool,
        dataset.train_index,
        8,
        seed=0,
        epoch=1,
        transform=Failing(AugmentConfig(), 16, MEAN, STD),
        device="cpu",
    )
    assert len(next(batches)) == 8
    assert len(next(batches)) == 8
    with pytest.raises(FloatingPointError, match="in the thread"):
        next(batches)
    assert not prefetching()


@pytest.mark.parametrize("way", ["close", "forget", "exhaust", "error"])
def test_the_threads_end_with_the_iterator(dataset, way):
    batches = epoch_batches(
        dataset.pool,
        dataset.train_index,
        4,
        seed=0,
        epoch=1,
        transform=Augment(AugmentConfig(), 16, MEAN, STD),
        device="cpu",
        threads=3,
    )
    assert not prefetching()
    next(batches)
    assert len(prefetching()) == 3
    if way == "close":
        batches.close()
    elif way == "forget":
        del batches
    elif way == "error":
        with pytest.raises(RuntimeError, match="of the consumer"):
            fail_on(batches)
        del batches
    else:
        assert list(batches)
    assert not prefetching()


def test_an_iterator_left_before_its_threads_have_begun_ends(dataset, caplog):
    # Threads that had not left their starting line yet took the word to end from the others.
    for _ in range(20):
        batches = epoch_batches(
            dataset.pool,
            dataset.train_index[:1],
            1,
            seed=0,
            epoch=1,
            transform=Augment(AugmentConfig(), 4, MEAN, STD),
            device="cpu",
            threads=16,
        )
        next(batches)
        batches.close()
    assert not prefetching()
    assert not caplog.records


def test_images_do_not_depend_on_the_number_of_threads(dataset):
    alone = epoch(dataset, color=0.2, threads=1)
    for threads in (2, 5):
        for (a, _, _), (b, _, _) in zip(
            alone, epoch(dataset, color=0.2, threads=threads), strict=True
        ):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_the_threads_leave_the_number_of_threads_of_torch_alone(dataset):
    def seen():
        numbers = []
        thread = threading.Thread(target=lambda: numbers.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        return numbers[0], torch.get_num_threads()

    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        batches = epoch_iterator(dataset)
        next(batches)
        assert len(prefetching()) == 3
        assert seen() == (3, 3)
        batches.close()
        assert seen() == (3, 3)
    finally:
        torch.set_num_threads(before)


def views(dataset):
    return (batch.inputs for batch in epoch_iterator(dataset, batch_size=4))


def test_a_batch_stays_what_it_was_while_any_part_of_it_is_in_use(dataset):
    whole = epoch(dataset, batch_size=4)
    copies = [images.clone() for images, _, _ in whole]
    kept = [images[1:2, :, 3:] for images in views(dataset)]
    for copy, (images, _, _), part in zip(copies, whole, kept, strict=True):
        assert torch.equal(copy, images)
        assert torch.equal(copy[1:2, :, 3:], part)


def test_the_memory_of_batches_is_used_again(dataset):
    # As a training loop holds them: the last batch, until the next one is there.
    places = [images.data_ptr() for images in views(dataset)]
    assert len(places) > 8
    assert len(set(places)) <= 5


def test_batches_made_in_inference_mode_can_be_trained_on(dataset):
    with torch.inference_mode():
        images = next(epoch_iterator(dataset, color=0.2)).inputs
    layer = torch.nn.Conv2d(3, 1, 3)
    layer(images).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


def test_only_a_few_batches_are_made_ahead():
    made = []

    def produce():
        for number in range(100):
            made.append(number)
            yield number

    items = prefetch(produce)
    assert next(items) == 0
    items.close()
    # One taken, two waiting, one in hand, and one put while the thread was told to stop.
    assert len(made) <= 5


def test_a_process_may_end_in_the_middle_of_an_epoch(folders):
    root, cache = folders
    script = textwrap.dedent(
        f"""
        from gsfl_tune.data import Augment, epoch_batches, prepare
        from gsfl_tune.data.prefetch import prefetch
        from gsfl_tune.experiment.data_config import AugmentConfig, DataConfig
        data = prepare(
            DataConfig(source="folder", path={str(root)!r}, image_size=16), cache_dir={str(cache)!r}
        )
        batches = epoch_batches(
            data.pool, data.train_index, 2, seed=0, epoch=0, device="cpu", threads=2,
            transform=Augment(AugmentConfig(), 16, (0, 0, 0), (1, 1, 1)),
        )
        items = prefetch(lambda: iter(range(1000)))
        print(len(next(batches)), next(items))
        """
    )
    done = warm.run([], code=script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 0\n", "")


@pytest.mark.gpu
def test_batches_on_a_gpu_equal_those_on_the_cpu(dataset):
    def batches(device):
        return epoch_batches(
            dataset.pool,
            dataset.train_index,
            8,
            seed=0,
            epoch=1,
            transform=Augment(AugmentConfig(color=0.2), 16, MEAN, STD),
            device=device,
        )

    for (images, labels, _), (same, same_labels, _) in zip(
        triples(batches("cpu")), triples(batches("cuda")), strict=True
    ):
        assert same.device.type == "cuda"
        torch.testing.assert_close(images, same.cpu(), atol=2.5 / 255 / min(STD), rtol=0)
        assert torch.equal(labels, same_labels.cpu())
