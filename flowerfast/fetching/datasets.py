"""Which data sets can be fetched, and by what each is known."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DataSet:
    """An archive of photos in class folders.

    Attributes:
        url: where it is published.
        size, sha256: of the archive, in bytes and hexadecimal.
        top: folder in the archive that holds the class folders.
        photos: how many there are.
    """

    url: str
    size: int
    sha256: str
    top: str
    photos: int


DATASETS = {
    # Size and checksum as TensorFlow Datasets has them: github.com/tensorflow/datasets, in
    # tensorflow_datasets/url_checksums/tf_flowers.txt; photos: www.tensorflow.org/datasets/catalog/tf_flowers
    "flowers": DataSet(
        url="https://storage.googleapis.com/download.tensorflow.org/example_images/flower_photos.tgz",
        size=228_813_984,
        sha256="4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
        top="flower_photos",
        photos=3670,
    ),
}
