from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile

from gsfl_tune.data import load_image, load_square, square, square_side
from gsfl_tune.data.image_file import Reading, deep_extremes, natural_range
from tests.data.conftest import picture


def encoded(image: Image.Image, file_format: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format=file_format, **options)
    return stream.getvalue()


def ramp(mode: str, dtype: str, top: int) -> Image.Image:
    """Grey values from 0 to ``top``, left to right."""
    return Image.fromarray(np.tile(np.linspace(0, top, 16).astype(dtype), (16, 1)))


@pytest.mark.parametrize("size", [16, 20, 96, 100, 224, 448, 1024])
def test_squares_are_a_seventh_larger_than_what_the_backbone_sees(size):
    side = square_side(size)
    assert side >= 1.15 * size - 1e-9
    assert side - 1 < 1.15 * size


def test_a_plain_image_keeps_its_pixels():
    image = picture(1)
    np.testing.assert_array_equal(np.asarray(load_image(encoded(image))), np.asarray(image))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_images_are_turned_as_their_camera_was_held(orientation, file_format):
    upright = Image.new("RGB", (40, 24), "black")
    upright.paste("red", (0, 0, 20, 12))
    # What the file must hold so that a viewer shows `upright`.
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    content = encoded(stored, file_format, exif=exif.tobytes(), quality=95)
    loaded = load_image(content)
    assert loaded.size == (40, 24)
    assert np.abs(np.asarray(loaded, int) - np.asarray(upright, int)).mean() < 6
    assert load_square(content, 8)[1] == (40, 24)


def test_damaged_exif_does_not_lose_the_image():
    content = encoded(picture(2, (32, 32)), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert load_image(content).size == (32, 32)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_16_bit_grey_uses_the_full_range(file_format):
    loaded = np.asarray(load_image(encoded(ramp("I;16", "uint16", 65535), file_format)))
    assert loaded.shape == (16, 16, 3)
    np.testing.assert_array_equal(loaded[0, :, 0], np.rint(np.linspace(0, 65535, 16) // 1 / 257))


def test_16_bit_grey_that_is_dark_stays_dark():
    loaded = np.asarray(load_image(encoded(ramp("I;16", "uint16", 2570))))
    assert loaded.max() == 10


def test_a_dark_pgm_of_16_bits_stays_dark():
    """Its type says what white is, although Pillow opens it like an image of 32 bits."""
    values = np.array([[0, 257, 51400, 200]], dtype=">u2")
    for scale in (1, 257):
        content = b"P5\n4 1\n65535\n" + (values // scale).astype(">u2").tobytes()
        loaded = np.asarray(load_image(content, reading=Reading(float_range=(0.0, 1.0))))
        np.testing.assert_array_equal(loaded[0, :, 0], np.rint(values[0] // scale / 257))
        np.testing.assert_array_equal(np.asarray(load_image(content)), loaded)


def test_big_endian_16_bit_tiff():
    values = np.full((4, 4), 32896, dtype=">u2")
    image = Image.frombytes("I;16B", (4, 4), values.tobytes())
    np.testing.assert_array_equal(np.asarray(load_image(encoded(image, "TIFF"))), 128)


def test_float_tiff_from_0_to_1():
    image = Image.fromarray(np.array([[0.0, 0.5, 1.0, np.nan]], dtype=np.float32))
    loaded = np.asarray(load_image(encoded(image, "TIFF")))
    np.testing.assert_array_equal(loaded[0, :, 0], [0, 128, 255, 0])


def test_integer_tiff_of_32_bits():
    """Its type does not say which value is white: the least of 1, 255 and 65535 that suffices."""
    for values, expected in (([0, 128, 255], [0, 128, 255]), ([0, 257, 65535], [0, 1, 255])):
        image = Image.fromarray(np.array([values], dtype=np.int32))
        assert image.mode == "I"
        content = encoded(image, "TIFF")
        np.testing.assert_array_equal(np.asarray(load_image(content))[0, :, 0], expected)
        assert deep_extremes(content) == (0.0, float(values[-1]))
    given = Reading(value_range=(0.0, 4095.0))
    loaded = np.asarray(load_image(encoded(Image.new("I", (2, 2), 4095), "TIFF"), reading=given))
    np.testing.assert_array_equal(loaded, 255)


def test_one_bit_and_grey_become_rgb():
    bits = Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1")
    np.testing.assert_array_equal(
        np.asarray(load_image(encoded(bits)))[0], [[0, 0, 0], [255, 255, 255]]
    )
    grey = Image.fromarray(np.array([[0, 77, 255]], dtype=np.uint8))
    np.testing.assert_array_equal(np.asarray(load_image(encoded(grey)))[0, :, 2], [0, 77, 255])


def test_transparent_pixels_lie_on_white():
    rgba = Image.fromarray(
        np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], dtype=np.uint8)
    )
    np.testing.assert_array_equal(
        np.asarray(load_image(encoded(rgba)))[0], [[255, 0, 0], [255, 255, 255], [127, 127, 127]]
    )
    grey = Image.fromarray(np.array([[[9, 255], [9, 0]]], dtype=np.uint8))
    assert grey.mode == "LA"
    np.testing.assert_array_equal(np.asarray(load_image(encoded(grey)))[0, :, 0], [9, 255])


def test_palette_with_and_without_transparency():
    colours = Image.new("RGB", (3, 1))
    for x, colour in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        colours.putpixel((x, 0), colour)
    palette = colours.convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
    for file_format in ("PNG", "GIF"):
        np.testing.assert_array_equal(
            np.asarray(load_image(encoded(palette, file_format))), np.asarray(colours)
        )
    clear = palette.getpixel((1, 0))
    content = encoded(palette, "PNG", transparency=clear)
    np.testing.assert_array_equal(np.asarray(load_image(content))[0, 1], [255, 255, 255])
    np.testing.assert_array_equal(np.asarray(load_image(content))[0, 0], [255, 0, 0])


def test_rgb_with_a_transparent_colour():
    image = Image.new("RGB", (2, 1), (10, 20, 30))
    image.putpixel((1, 0), (1, 2, 3))
    loaded = np.asarray(load_image(encoded(image, transparency=(1, 2, 3))))
    np.testing.assert_array_equal(loaded[0], [[10, 20, 30], [255, 255, 255]])


def test_cmyk_jpeg():
    image = Image.new("RGB", (16, 16), (200, 30, 30)).convert("CMYK")
    loaded = np.asarray(load_image(encoded(image, "JPEG", quality=95)), dtype=int)
    assert np.abs(loaded - [200, 30, 30]).max() < 8


def test_the_first_frame_of_an_animation():
    red, blue = Image.new("RGB", (4, 4), (255, 0, 0)), Image.new("RGB", (4, 4), (0, 0, 255))
    content = encoded(red, "GIF", save_all=True, append_images=[blue])
    np.testing.assert_array_equal(np.asarray(load_image(content))[0, 0], [255, 0, 0])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
def test_truncated_files_are_refused(file_format):
    content = encoded(picture(3, (64, 64)), file_format)
    with pytest.raises(Exception):  # noqa: B017, whatever Pillow raises counts as broken
        load_image(content[: len(content) // 2])


def test_files_that_are_no_images_are_refused(tmp_path):
    for content in (b"", b"not an image", b"<svg/>"):
        with pytest.raises(OSError):
            load_image(content)
    with pytest.raises(FileNotFoundError):
        load_image(tmp_path / "nothing.png")


def test_the_limit_of_pixels_is_ours_and_pillows_stays_what_it_was(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_image(encoded(picture(4, (40, 30)))).size == (40, 30)
        assert load_image(encoded(picture(4, (80, 30)))).size == (80, 30)
        with pytest.raises(
            ValueError, match=r"40 x 30 pixels are more than data\.max_pixels, 1,199"
        ):
            load_image(encoded(picture(4, (40, 30))), reading=Reading(max_pixels=1199))
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_a_phone_of_108_megapixels():
    content = encoded(Image.new("RGB", (12000, 9000), (10, 200, 30)), "JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        square, size = load_square(content, 64)
    assert size == (12000, 9000)
    assert np.abs(square.astype(int) - [10, 200, 30]).max() <= 3


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
def test_files_whose_end_is_missing_may_be_accepted(file_format):
    whole = encoded(picture(3, (64, 64)), file_format)
    for content in (whole[:-2], whole[: len(whole) // 2]):
        if file_format == "JPEG" or content != whole[:-2]:
            with pytest.raises(OSError):
                load_image(content)
        image = load_image(content, reading=Reading(truncated=True))
        # What is there is read as it is.
        expected = np.asarray(load_image(whole))[:8]
        np.testing.assert_array_equal(np.asarray(image)[:8], expected)
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_one_range_for_all_deep_images():
    values = np.array([[0.0, 0.5, 2.0, 4.0]], dtype=np.float32)
    content = encoded(Image.fromarray(values), "TIFF")
    assert deep_extremes(content) == (0.0, 4.0)
    loaded = np.asarray(load_image(content, reading=Reading(float_range=(0.0, 4.0))))
    np.testing.assert_array_equal(loaded[0, :, 0], [0, 32, 128, 255])
    # Sixteen bits say what white is, unless somebody knows better.
    sixteen = encoded(ramp("I;16", "uint16", 4095))
    assert deep_extremes(sixteen) is None
    by_type = np.asarray(load_image(sixteen, reading=Reading(float_range=(0.0, 4.0))))
    assert by_type.max() == 16
    given = np.asarray(load_image(sixteen, reading=Reading(value_range=(0.0, 4095.0))))
    assert given.max() == 255


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 0.7, (0.0, 1.0)),
        (3.0, 200.0, (0.0, 255.0)),
        (0.0, 4000.0, (0.0, 65535.0)),
        (-5.0, 70000.0, (-5.0, 70000.0)),
    ],
)
def test_ranges_that_were_probably_meant(low, high, expected):
    assert natural_range(low, high) == expected


def cases():
    """Files that Pillow opens in modes of its own."""
    generator = np.random.default_rng(0)
    deep = generator.integers(0, 65536, (12, 16), dtype=np.uint16)
    deep[0, 0] = 777
    palette = picture(5, (16, 12)).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    rgba = picture(6, (16, 12)).convert("RGBA")
    rgba.putalpha(Image.fromarray(generator.integers(0, 256, (12, 16), dtype=np.uint8)))
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    return {
        "16-bit grey with a transparent value": encoded(Image.fromarray(deep), transparency=777),
        "palette with a transparent colour": encoded(
            palette, transparency=palette.getpixel((3, 3))
        ),
        "palette with alphas": encoded(palette, transparency=bytes(range(0, 256, 32))),
        "rgba": encoded(rgba),
        "float": encoded(Image.fromarray(deep.astype(np.float32) / 65535), "TIFF"),
        "cmyk": encoded(picture(7, (16, 12)).convert("CMYK"), "JPEG"),
        "turned": encoded(picture(8, (16, 12)), "JPEG", exif=turned),
    }


@pytest.mark.parametrize("name", cases())
def test_a_path_its_bytes_and_its_pillow_image_give_the_same_pixels(tmp_path, name):
    content = cases()[name]
    path = tmp_path / "x"
    path.write_bytes(content)
    by_bytes = load_square(content, 9)[0]
    np.testing.assert_array_equal(load_square(path, 9)[0], by_bytes)
    with Image.open(path) as opened:
        np.testing.assert_array_equal(load_square(opened, 9)[0], by_bytes)


def test_the_transparent_value_of_a_16_bit_image_is_white():
    loaded = np.asarray(load_image(cases()["16-bit grey with a transparent value"]))
    assert loaded[0, 0].tolist() == [255, 255, 255]
    assert loaded[0, 1].tolist() != [255, 255, 255]


def test_a_lower_edge_may_be_cut():
    image = Image.new("RGB", (40, 60), (0, 0, 255))
    image.paste((255, 255, 255), (0, 40, 40, 60))
    square, size = load_square(encoded(image), 20, reading=Reading(cut_bottom=20))
    assert size == (40, 40)
    np.testing.assert_array_equal(square, np.full((20, 20, 3), (0, 0, 255)))


def halves(width: int, height: int) -> Image.Image:
    """Black but for a white square in the centre."""
    image = Image.new("RGB", (width, height))
    edge = min(width, height) // 2
    left, top = (width - edge) // 2, (height - edge) // 2
    image.paste("white", (left, top, left + edge, top + edge))
    return image


@pytest.mark.parametrize("size", [(80, 40), (40, 80), (40, 40)])
def test_crop_keeps_the_centre_and_the_shape(size):
    pixels = square(halves(*size), 40, "crop")
    assert pixels.shape == (40, 40, 3)
    assert pixels.dtype == np.uint8
    assert (pixels[12:28, 12:28] > 250).all()
    assert (pixels[:8] < 5).all()
    assert (pixels[:, -8:] < 5).all()


def test_pad_keeps_everything():
    pixels = square(Image.new("RGB", (80, 40), "white"), 40, "pad")
    assert (pixels[11:29] > 250).all()
    assert (pixels[:10] == [124, 116, 104]).all()
    assert (pixels[30:] == [124, 116, 104]).all()


def test_squash_ignores_the_shape():
    pixels = square(halves(80, 40), 40, "squash").astype(int)
    assert (pixels[12:28, 17:23] > 200).all()
    assert (pixels[:, :12] < 5).all()


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (7, 5)])
def test_tiny_and_thin_images_become_squares(fit, size):
    assert square(Image.new("RGB", size, "red"), 32, fit).shape == (32, 32, 3)


@pytest.mark.parametrize("fit", ["crop", "pad", "squash"])
def test_reduced_decoding_of_large_jpegs_changes_next_to_nothing(fit):
    # Smooth content and edges, as photographs have.
    y, x = np.mgrid[0:600, 0:800]
    waves = np.stack([np.sin(x / 31), np.cos(y / 23), np.sin((x + y) / 47)], axis=-1)
    image = Image.fromarray(((waves + 1) * 127).astype(np.uint8))
    image.paste("white", (300, 200, 500, 420))
    content = encoded(image, "JPEG", quality=92)
    assert load_image(content, side=60, fit=fit).width < 800
    full = square(load_image(content), 60, fit).astype(int)
    reduced = load_square(content, 60, fit)[0].astype(int)
    assert np.abs(full - reduced).mean() < 1.0
