"""Photos on the device: decoded, kept, handed out in batches."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from cassava_leaf_disease.config.load import load_config
from cassava_leaf_disease.data.datasets import DecodedPhotos, EvalDataset
from cassava_leaf_disease.data.device import photos as keeping
from cassava_leaf_disease.data.device.augment import BatchAugmentation
from cassava_leaf_disease.data.device.decode import decode_photos
from cassava_leaf_disease.data.device.loader import DeviceEvalLoader, DeviceTrainLoader
from cassava_leaf_disease.data.device.photos import DevicePhotos, HostPhotos, keep_photos
from cassava_leaf_disease.data.sampling import EpochSampler
from cassava_leaf_disease.data.synthetic import draw_leaf
from cassava_leaf_disease.data.table import LabeledPhoto
from cassava_leaf_disease.errors import DataError
from cassava_leaf_disease.imaging.preprocess import Preprocessing, resize_shorter_side

CPU = torch.device("cpu")


def write_photo(path: Path, index: int, size: tuple[int, int], **options: object) -> LabeledPhoto:
    image = Image.fromarray(draw_leaf(index, index % 5, max(size))).resize(size)
    image.save(path, **options)  # type: ignore[arg-type]
    return LabeledPhoto(path.name, index % 5, path)


@pytest.fixture
def photos(tmp_path: Path) -> list[LabeledPhoto]:
    shapes = [(96, 72), (72, 96), (96, 72), (60, 50)]
    return [write_photo(tmp_path / f"{index}.jpg", index, size, quality=95) for index, size in enumerate(shapes)]


class PillowAsGpu:
    """Decodes as nvJPEG does, on the CPU; refuses whole batches that hold a marked photo."""

    def __init__(self, *refused: bytes) -> None:
        self.refused = refused
        self.batches: list[int] = []

    def __call__(self, coded: Sequence[Tensor]) -> list[Tensor]:
        self.batches.append(len(coded))
        data = [bytes(buffer.numpy()) for buffer in coded]
        if any(item in self.refused for item in data):
            raise RuntimeError("nvjpegDecode failed: 4")
        return [torch.from_numpy(np.array(Image.open(io.BytesIO(item)))).permute(2, 0, 1) for item in data]


class TestDecodePhotos:
    def test_each_photo_is_what_the_cpu_keeps(self, photos: list[LabeledPhoto]) -> None:
        store = decode_photos(photos, 64, CPU, decoder=PillowAsGpu())
        assert store is not None
        expected = DecodedPhotos(photos, 64, enlarge=False)
        pixels, rows = store.batch(range(len(photos)))
        for index, (height, width) in enumerate(store.sizes.tolist()):
            image = pixels[rows[index], :, :height, :width].permute(1, 2, 0).numpy().astype(int)
            assert np.abs(image - expected.image(index)).max() <= 2

    def test_what_the_gpu_refuses_pillow_decodes(self, photos: list[LabeledPhoto]) -> None:
        gpu = PillowAsGpu()
        whole = decode_photos(photos, 64, CPU, decoder=gpu)
        coded = photos[1].path.read_bytes()
        gpu = PillowAsGpu(coded)
        mended = decode_photos(photos, 64, CPU, decoder=gpu)
        assert gpu.batches == [4, 1, 1, 1, 1]
        assert whole is not None
        assert mended is not None
        assert torch.equal(whole.batch([0])[0], mended.batch([0])[0])

    def test_png_and_turned_photos_among_them_are_right_too(self, tmp_path: Path, photos: list[LabeledPhoto]) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        photos += [
            write_photo(tmp_path / "a.png", 7, (90, 60)),
            write_photo(tmp_path / "turned.jpg", 8, (90, 60), exif=exif),
        ]
        gpu = PillowAsGpu()
        store = decode_photos(photos, 40, CPU, decoder=gpu)
        assert store is not None
        assert gpu.batches == [4]
        assert store.sizes[4:].tolist() == [[40, 60], [60, 40]]

    def test_progressive_photos_are_left_to_the_cpu(self, tmp_path: Path) -> None:
        photos = [write_photo(tmp_path / f"{index}.jpg", index, (60, 60), progressive=True) for index in range(3)]
        assert decode_photos(photos, 40, CPU, decoder=PillowAsGpu()) is None

    def test_too_many_for_the_memory_are_left_to_the_host(
        self, photos: list[LabeledPhoto], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100_000, 200_000))
        monkeypatch.setattr(keeping, "_is_cuda", lambda device: True)
        assert decode_photos(photos, 64, CPU, decoder=PillowAsGpu()) is None

    def test_broken_photos_are_named(self, photos: list[LabeledPhoto]) -> None:
        photos[0].path.write_bytes(b"no photo")
        photos[2].path.write_bytes(photos[2].path.read_bytes()[:-200])
        with pytest.raises(DataError, match=r"2 of 4 photos cannot be used: 0.jpg: .* 2.jpg: "):
            decode_photos(photos, 64, CPU, decoder=PillowAsGpu())

    @pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
    def test_nvjpeg_gives_about_what_pillow_gives(self, photos: list[LabeledPhoto]) -> None:
        store = decode_photos(photos, 64, torch.device("cuda"))
        assert store is not None
        image = store.batch([0])[0][0, :, :64].permute(1, 2, 0).cpu().numpy()
        expected = resize_shorter_side(np.array(Image.open(photos[0].path)), 64)
        assert np.abs(image[:, : expected.shape[1]].astype(int) - expected).mean() < 2


class TestKeeping:
    def test_host_and_device_hand_out_the_same(self, photos: list[LabeledPhoto]) -> None:
        source = DecodedPhotos(photos, 64, enlarge=False)
        host, device = HostPhotos(source, CPU), keep_photos(source, CPU)
        assert isinstance(device, DevicePhotos)
        assert host.sizes.tolist() == device.sizes.tolist()
        for index in range(len(photos)):
            (one, [row_of_one]), (other, [row_of_other]) = host.batch([index]), device.batch([index])
            height, width = host.sizes[index]
            assert torch.equal(one[row_of_one, :, :height, :width], other[row_of_other, :, :height, :width])

    def test_photos_that_do_not_fit_stay_in_the_host(
        self, photos: list[LabeledPhoto], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(keeping, "fits", lambda needed, device: False)
        assert isinstance(keep_photos(DecodedPhotos(photos, 64, enlarge=False), CPU), HostPhotos)


class TestLoaders:
    def test_an_epoch_gives_every_photo_once_with_its_label(self, photos: list[LabeledPhoto]) -> None:
        labels = [photo.label for photo in photos]
        loader = self.train_loader(photos, labels, batch_size=3)
        batches = list(loader)
        assert [images.shape for images, _ in batches] == [(3, 3, 32, 32), (1, 3, 32, 32)]
        assert sorted(torch.cat([drawn for _, drawn in batches]).tolist()) == labels

    def test_epochs_differ_and_each_can_be_had_again(self, photos: list[LabeledPhoto]) -> None:
        loader = self.train_loader(photos, [photo.label for photo in photos], batch_size=4)
        pictures = []
        for epoch in (0, 1, 0):
            loader.sampler.set_epoch(epoch)
            pictures.append(next(iter(loader))[0])
        assert torch.equal(pictures[0], pictures[2])
        assert not torch.equal(pictures[0], pictures[1])

    def test_the_last_batch_can_be_dropped(self, photos: list[LabeledPhoto]) -> None:
        loader = self.train_loader(photos, [0, 1, 2, 3], batch_size=3, drop_last=True)
        assert len(loader) == len(list(loader)) == 1

    def test_evaluation_sees_what_the_preprocessing_defines(self, photos: list[LabeledPhoto]) -> None:
        spec = Preprocessing(image_size_px=48, crop_ratio=0.9)
        dataset = EvalDataset(DecodedPhotos(photos, spec.resize_side_px, enlarge=True), [0, 1, 2, 3], spec)
        loader = DeviceEvalLoader(dataset, CPU, batch_size=3)
        batches = list(loader)
        assert len(loader) == len(batches) == 2
        assert torch.equal(torch.cat([images for images, _ in batches]), torch.stack([dataset[i][0] for i in range(4)]))
        assert torch.cat([labels for _, labels in batches]).tolist() == [0, 1, 2, 3]

    def train_loader(
        self, photos: list[LabeledPhoto], labels: list[int], batch_size: int, *, drop_last: bool = False
    ) -> DeviceTrainLoader:
        config = load_config(["augment.image_size=32"])
        store = keep_photos(DecodedPhotos(photos, 40, enlarge=False), CPU)
        sampler = EpochSampler(labels, "none", seed=5)
        augmentation = BatchAugmentation(config.augment, CPU)
        return DeviceTrainLoader(store, labels, sampler, augmentation, batch_size, drop_last=drop_last)
