"""NVIDIA DALI with its own random operators: on the CPU, or on a GPU with nvJPEG."""

from collections.abc import Iterator
from typing import Any

from benchmarks.peers import Peer

TARGET = "benchmarks.peers.dali_cpu:epochs"
FACTS: dict[str, Any] = {
    "packages": ("nvidia.dali",),
    "leaves_out": ("normalise",),
    "remark": "contrast about mid-grey and after brightness; linear rotation",
}
PEERS = (
    Peer("DALI CPU operators", TARGET, **FACTS),
    Peer("DALI CPU operators (256)", TARGET, photos="small", **FACTS),
)


def epochs(
    data: str, image_size: int, batch_size: int, cores: int, cache: str = "", device: str = "cpu"
) -> Iterator[Any]:
    """Batches of uint8 (n, 3, S, S) and int64 labels on `device`; the last one of an epoch is filled up."""
    import torch
    from nvidia.dali import fn, pipeline_def, types

    cuda = device != "cpu"

    @pipeline_def(batch_size=batch_size, num_threads=cores, device_id=0 if cuda else None, seed=0)
    def graph() -> Any:
        encoded, labels = fn.readers.file(file_root=data, shuffle_after_epoch=True, name="files")
        images = fn.decoders.image_random_crop(
            encoded,
            device="mixed" if cuda else "cpu",
            random_area=[0.08, 1.0],
            random_aspect_ratio=[3 / 4, 4 / 3],
        )
        flip = fn.random.coin_flip()
        images = fn.resize(images, size=[image_size, image_size], interp_type=types.INTERP_LINEAR)
        images = fn.flip(images, horizontal=flip)
        images = fn.rotate(images, angle=fn.random.uniform(range=[-15.0, 15.0]), keep_size=True, fill_value=0)
        images = fn.brightness_contrast(
            images,
            brightness=fn.random.uniform(range=[0.8, 1.2]),
            contrast=fn.random.uniform(range=[0.8, 1.2]),
        )
        shift = fn.random.uniform(range=[-0.1 * image_size, 0.1 * image_size], shape=[2])
        images = fn.slice(
            images,
            start=fn.cast(shift, dtype=types.INT32),
            shape=[image_size, image_size],
            axis_names="HW",
            out_of_bounds_policy="pad",
        )
        labels = fn.squeeze(fn.cast(labels, dtype=types.INT64), axes=[0])
        return images, labels.gpu() if cuda else labels

    pipe = graph()
    pipe.build()
    batches = -(-pipe.reader_meta("files")["epoch_size"] // batch_size)

    def epoch() -> Iterator[Any]:
        for _ in range(batches):
            stream = torch.cuda.current_stream() if cuda else None
            images, labels = (torch.from_dlpack(part.as_tensor()) for part in pipe.run(stream))
            yield images.permute(0, 3, 1, 2), labels

    while True:
        yield epoch()
