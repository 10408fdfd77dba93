"""Pictures come out as their authors meant them: any depth and layout, the right page and frame, the right ground."""

from __future__ import annotations

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tiffs import Tags, file_of, packed, tags_of, tiff

from indexer.errors import ImageRejected
from indexer.pictures.animation import MAX_FRAMES
from indexer.pictures.decode import DecodeLimits, decode, open_upright
from search.recipe import Preprocessing

LIMITS = DecodeLimits()
CROP = Preprocessing(geometry="crop", resize=64, size=56, resample=3, mean=(0.5,) * 3, std=(0.5,) * 3)
Y, X = np.mgrid[0:48, 0:64]
GREY: NDArray[Any] = (X * 3 + Y * 5) % 256
GREY[0, :2] = 0, 255
RGB = np.stack([X * 4, Y * 5, GREY], axis=-1)


def pixels(data: bytes) -> NDArray[Any]:
    """(height, width, 3) of the upright picture."""
    return np.asarray(open_upright(data, limits=LIMITS, at_least=None)).astype(int)


def is_like(data: bytes, truth: NDArray[Any], *, within: int = 1) -> bool:
    truth = truth if truth.ndim == 3 else truth[..., None]
    return bool(np.abs(pixels(data) - truth).max() <= within)


def saved(image: Image.Image, format_: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, format_, **options)
    return out.getvalue()


# ---- levels


@pytest.mark.parametrize("bits", [10, 12, 14, 16])
@pytest.mark.parametrize("order", "<>")
def test_grey_that_uses_some_of_its_sixteen_bits_is_as_light_as_in_eight(bits: int, order: str) -> None:
    deep = (GREY << (bits - 8)).astype(np.uint16)
    assert is_like(tiff(deep, order=order), GREY, within=0)
    if order == "<":
        assert is_like(saved(Image.fromarray(deep)), GREY, within=0)


def test_a_hot_pixel_does_not_darken_the_others() -> None:
    deep = (GREY << 4).astype(np.uint16)
    deep[7, 5] = 65_535
    truth = GREY.copy()
    truth[7, 5] = 255
    assert is_like(tiff(deep), truth, within=0)


def test_a_narrow_band_far_from_black_is_stretched() -> None:
    assert is_like(tiff((29_000 + GREY * 4).astype(np.uint16)), GREY, within=2)


def test_declared_extremes_are_black_and_white() -> None:
    limits = {340: (3, (0,)), 341: (3, (4095,))}
    assert is_like(tiff((GREY * 8).astype(np.uint16), tags=limits), GREY // 2, within=0)
    limits = {280: (3, (1000,)), 281: (3, (2000,))}
    assert is_like(tiff((1000 + GREY * 2).astype(np.uint16), tags=limits), GREY * 510 / 1000)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_may_be_zero_at_any_depth(order: str, dtype: type) -> None:
    values = (255 - GREY) * 257 if dtype is np.uint16 else (255 - GREY) / 255
    assert is_like(tiff(values.astype(dtype), photometric=0, order=order), GREY)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint16, np.uint32])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize(("order", "zipped"), [("<", False), (">", False), ("<", True)])
def test_colours_of_any_depth_and_layout_are_read(dtype: type, planar: bool, order: str, zipped: bool) -> None:
    values = RGB / 255 if np.issubdtype(dtype, np.floating) else RGB.astype(np.uint32) * 257
    data = tiff(values.astype(dtype), photometric=2, planar=planar, order=order, zipped=zipped)
    assert is_like(data, RGB)
    facts = decode(data, (CROP,), limits=LIMITS).facts
    assert (facts.width, facts.height, facts.format) == (64, 48, "tiff")


@pytest.mark.parametrize("photometric", [1, 2])
def test_planes_of_eight_bits_are_read_apart(photometric: int) -> None:
    truth = RGB if photometric == 2 else RGB[..., :1]
    samples = RGB.astype(np.uint8)
    data = tiff(samples if photometric == 2 else samples[..., :2], photometric=photometric, planar=True)
    assert is_like(data, truth, within=0)


@pytest.mark.parametrize("bits", [4, 10, 12, 14])
def test_packed_samples_are_read(bits: int) -> None:
    colours = RGB << (bits - 8) if bits > 8 else RGB >> (8 - bits)
    assert is_like(tiff(colours.astype(np.uint16), photometric=2, bits=bits), RGB, within=1 if bits > 8 else 16)


def test_floats_beyond_one_are_stretched_by_their_range() -> None:
    assert is_like(tiff((GREY / 255 * 1.02).astype(np.float32)), GREY)
    assert is_like(tiff((RGB / 255 * 8).astype(np.float32), photometric=2), RGB)
    bright = (GREY / 255 * 2 - 0.5).astype(np.float32)
    bright[3, 3] = 1e5
    truth = GREY.copy()
    truth[3, 3] = 255
    assert is_like(tiff(bright), truth, within=2)


@pytest.mark.parametrize("nothing", [np.nan, np.inf, -np.inf, -9999, -3.4028234e38, 3.4028234e38])
def test_unknown_heights_do_not_hide_the_known_ones(nothing: float) -> None:
    heights = (200 + GREY / 3).astype(np.float32)
    heights[:10] = nothing
    truth = GREY.copy()
    truth[:10] = 0
    assert is_like(tiff(heights), (truth - 0), within=4)


def test_a_declared_unknown_height_is_none() -> None:
    heights = (200 + GREY * 7).astype(np.int16)
    heights[:10] = 31_000
    truth = GREY.copy()
    truth[:10] = 0
    assert is_like(tiff(heights, tags={42113: (2, ("31000 ",))}), truth, within=4)
    heights[:10] = -32_768
    assert is_like(tiff(heights), truth, within=4)


def test_depth_with_opacity_keeps_both() -> None:
    colours = np.dstack([RGB, np.where(X < 32, 255, 0)]).astype(np.uint16) * 257
    data = tiff(colours, photometric=2, tags={338: (3, (2,))})
    assert is_like(data, np.where(X[..., None] < 32, RGB, 255))


def test_layouts_that_nothing_reads_right_are_refused_by_name() -> None:
    complex_ = tiff(GREY.astype(np.float32), tags={339: (3, (6,))})
    lab = tiff((RGB * 257).astype(np.uint16), photometric=8)
    planes = tags_of(np.zeros((16, 16, 3), np.uint16), photometric=2, planar=True, bits=None, zipped=False)
    cut = file_of([(planes | {273: (4, (1000, 2000, 8900)), 279: (4, (512,) * 3)}, [])]).ljust(9000, b"\0")
    for data in (complex_, lab):
        with pytest.raises(ImageRejected, match=r"^not supported: a TIFF "):
            decode(data, (CROP,), limits=LIMITS)
    with pytest.raises(ImageRejected, match=r"^truncated"):
        decode(cut, (CROP,), limits=LIMITS)


def test_strips_that_overlap_cannot_multiply_a_file() -> None:
    one = np.zeros((1, 60_000, 1), np.uint16)
    entries = tags_of(one, photometric=1, planar=False, bits=None, zipped=False) | {257: (4, (3000,)), 278: (4, (1,))}
    data = bytearray(file_of([(entries, [bytes(4)] * 3000)]))
    entries |= {273: (4, (8,) * 3000), 279: (4, (len(data),) * 3000)}
    with pytest.raises(ImageRejected, match="longer than the file"):
        decode(file_of([(entries, [])]), (CROP,), limits=LIMITS)


# ---- pages


def page(colours: NDArray[Any], *, kind: int, **more: Any) -> tuple[Any, list[bytes]]:
    entries = tags_of(colours, photometric=2, planar=False, bits=None, zipped=False)
    return entries | {254: (4, (kind,))} | more.get("tags", {}), [colours.tobytes()]


@pytest.mark.parametrize("below", [0, 1])
@pytest.mark.parametrize("deep", [False, True])
def test_a_reduced_page_before_the_picture_is_not_the_picture(below: int, deep: bool) -> None:
    small = np.zeros((12, 16, 3), np.uint8)
    large = (RGB * 257).astype(np.uint16) if deep else RGB.astype(np.uint8)
    camera = {271: (2, ("Maker",)), 272: (2, ("Cam 1",))}
    data = file_of([page(small, kind=1, tags=camera), page(large, kind=0)], below=below)
    assert is_like(data, RGB, within=0)
    facts = decode(data, (CROP,), limits=LIMITS).facts
    assert (facts.width, facts.height, facts.camera) == (64, 48, "Maker Cam 1")


def test_the_first_of_whole_pages_is_the_picture() -> None:
    data = file_of([page(RGB.astype(np.uint8), kind=2), page(np.zeros((96, 128, 3), np.uint8), kind=2)])
    assert is_like(data, RGB, within=0)


def raw(*previews: bytes, tags: Tags | None = None, values: bytes = b"") -> bytes:
    """A DNG: an uncompressed thumbnail, the sensor's values below it, and JPEG previews. values: as one JPEG."""
    sensor = tags_of(np.zeros((300, 400, 1), np.uint16), photometric=32803, planar=False, bits=None, zipped=False)
    sensor |= {259: (3, (34892,)), 262: (3, (34892,))} if values else {}
    first = page(
        np.zeros((12, 16, 3), np.uint8), kind=1, tags={50706: (1, (1, 4, 0, 0)), 274: (3, (6,))} | (tags or {})
    )
    pages = [(sensor | {254: (4, (0,))}, [values or bytes(240_000)])]
    for preview in previews:
        with Image.open(BytesIO(preview)) as image:
            shape = np.zeros((image.height, image.width, 3), np.uint8)
        entries = tags_of(shape, photometric=6, planar=False, bits=None, zipped=False)
        pages.append((entries | {254: (4, (1,)), 259: (3, (7,))}, [preview]))
    return file_of([first, *pages], below=len(pages))


def test_a_raw_file_is_its_largest_preview_of_the_size_of_the_whole() -> None:
    picture = Image.fromarray(RGB.astype(np.uint8))
    small, large = saved(picture.resize((16, 12)), "JPEG"), saved(picture.resize((200, 150)), "JPEG", quality=95)
    data = raw(small, large)
    facts = decode(data, (CROP,), limits=LIMITS).facts
    assert (facts.width, facts.height, facts.format) == (300, 400, "dng")  # upright
    shown = Image.fromarray(pixels(data).astype(np.uint8))
    assert shown.size == (150, 200)
    truth = np.asarray(Image.open(BytesIO(large)).transpose(Image.Transpose.ROTATE_270)).astype(int)
    assert np.abs(np.asarray(shown).astype(int) - truth).mean() < 1


@pytest.mark.parametrize("side", [0, 2**32 - 1])
def test_a_raw_file_whose_crop_cannot_be_has_the_size_of_its_largest_page(side: int) -> None:
    preview = saved(Image.fromarray(RGB.astype(np.uint8)), "JPEG")
    facts = decode(raw(preview, tags={50720: (4, (side, side))}), (CROP,), limits=LIMITS).facts
    assert (facts.width, facts.height) == (300, 400)


def test_the_values_of_a_sensor_are_no_preview() -> None:
    preview = Image.fromarray(RGB.astype(np.uint8))
    values = saved(Image.new("RGB", (400, 300), "red"), "JPEG")
    data = raw(saved(preview, "JPEG", quality=95), values=values)
    assert np.abs(pixels(data) - np.asarray(preview.transpose(Image.Transpose.ROTATE_270)).astype(int)).mean() < 5


def test_a_raw_file_without_a_preview_is_refused_by_its_kind() -> None:
    with pytest.raises(ImageRejected, match=r"^not supported: DNG without a JPEG preview"):
        decode(raw(), (CROP,), limits=LIMITS)


# ---- transparency


def drawing(number: int, colour: int) -> Image.Image:
    shape = Image.new("L", (64, 64))
    ImageDraw.Draw(shape).ellipse((number, 5, number + 30, 40), fill=255)
    grey = Image.new("L", shape.size, colour)
    return Image.merge("LA", (grey, shape))


def forms(drawn: Image.Image) -> list[bytes]:
    """The same drawing as grey and RGB with opacity, as a palette, and with one transparent colour."""
    keyed = np.where(np.asarray(drawn.getchannel("A")) > 0, np.asarray(drawn.getchannel("L")), 7).astype(np.uint8)
    flat = Image.fromarray(keyed)
    palette = flat.convert("P")
    place = palette.getpixel((0, 63))
    return [
        saved(drawn),
        saved(drawn.convert("RGBA")),
        saved(drawn.convert("RGBA"), "WEBP", lossless=True),
        saved(drawn.convert("RGBA"), "TIFF"),
        saved(palette, transparency=place),
        saved(palette, "GIF", transparency=place),
        saved(flat, transparency=7),
        saved(flat.convert("RGB"), transparency=(7, 7, 7)),
    ]


def test_white_drawings_lie_on_dark_and_dark_ones_on_white() -> None:
    for data in forms(drawing(3, 255)):
        found = pixels(data)
        assert tuple(found[63, 0]) == (64, 64, 64)
        assert found[20, 15].min() >= 254
    for data in forms(drawing(3, 30)):
        assert tuple(pixels(data)[63, 0]) == (255, 255, 255)


def test_different_white_drawings_differ() -> None:
    assert len({pixels(saved(drawing(number, 250))).tobytes() for number in range(10)}) == 10


def test_a_white_page_with_round_corners_stays_on_white() -> None:
    page_ = Image.new("RGBA", (200, 200), (255, 255, 255, 255))
    ImageDraw.Draw(page_).rectangle((0, 0, 8, 8), fill=(0, 0, 0, 0))
    assert pixels(saved(page_)).min() == 255


def test_opacity_of_zero_everywhere_means_opaque() -> None:
    fields = struct.pack("<IiiHHIIiiII", 56, 64, -48, 1, 32, 3, 0, 0, 0, 0, 0)
    fields += struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    body = np.dstack([RGB[..., ::-1], np.zeros_like(GREY)]).astype(np.uint8).tobytes()
    bmp = struct.pack("<2sIII", b"BM", 14 + len(fields) + len(body), 0, 14 + len(fields)) + fields + body
    with Image.open(BytesIO(bmp)) as image:
        assert image.mode == "RGBA"
    clear = Image.fromarray(RGB.astype(np.uint8))
    clear.putalpha(0)
    for data in (bmp, saved(clear, "BMP"), saved(clear), saved(clear, "TIFF")):
        assert is_like(data, RGB, within=0)
    blank = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert pixels(saved(blank)).min() == 255


# ---- animations


def animation(format_: str, frames: list[Image.Image]) -> bytes:
    options = {"lossless": True} if format_ == "WEBP" else {}
    return saved(frames[0], format_, save_all=True, append_images=frames[1:], duration=40, **options)


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_an_animation_that_fades_in_is_its_first_clear_frame(format_: str) -> None:
    picture = Image.fromarray(RGB.astype(np.uint8))
    black = Image.new("RGB", picture.size)
    frames = [Image.blend(black, picture, share) for share in (0, 0.05, 0.1, 0.3, 0.6, 1)]
    data = animation(format_, [*frames, picture.rotate(90)])
    assert np.corrcoef(pixels(data).ravel(), RGB.ravel())[0, 1] > 0.95
    assert pixels(data).max() > 120
    facts = decode(data, (CROP,), limits=LIMITS).facts
    assert (facts.width, facts.height, facts.format) == (64, 48, format_.lower())


@pytest.mark.parametrize("format_", ["GIF", "WEBP", "PNG"])
def test_a_bounded_number_of_frames_is_looked_at(format_: str) -> None:
    picture = Image.fromarray(RGB.astype(np.uint8))
    blanks = [Image.new("RGB", picture.size, (number % 3, 0, 0)) for number in range(MAX_FRAMES)]
    assert pixels(animation(format_, [*blanks, picture])).max() <= 4


def test_a_frame_smaller_than_its_canvas_leaves_the_rest_clear() -> None:
    data = bytearray(saved(Image.new("P", (10, 10), 1), "GIF"))
    with Image.open(BytesIO(data)) as image:
        assert image.size == (10, 10)
    data[6:10] = (40).to_bytes(2, "little") + (30).to_bytes(2, "little")
    at = data.index(b",")
    data[at + 1 : at + 5] = (5).to_bytes(2, "little") + (5).to_bytes(2, "little")
    found = pixels(bytes(data))
    assert found.shape == (30, 40, 3)
    assert tuple(found[0, 0]) == (255, 255, 255)
    assert tuple(found[29, 39]) == (255, 255, 255)
    assert tuple(found[10, 10]) != (255, 255, 255)


def test_packing_for_these_tests_is_by_rows() -> None:
    assert packed(np.array([[0xABC, 0xDEF]]), 12) == b"\xab\xcd\xef"
