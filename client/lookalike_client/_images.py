"""Images as they are passed, turned into the bytes of an image file. Imports neither Pillow nor numpy."""

import os
import sys
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol, TypeAlias

# Annotations of this module and of _models are evaluated (no `from __future__ import annotations`): the public classes
# carry the package's name as their module, so `typing.get_type_hints` could not resolve text.


class PillowImage(Protocol):
    """A `PIL.Image.Image`."""

    @property
    def size(self) -> tuple[int, int]: ...

    def getexif(self) -> Any: ...


class NumpyArray(Protocol):
    """A `numpy.ndarray`: (height, width) grey, (height, width, 3) RGB or (height, width, 4) RGBA.

    uint8 in each shape; floats 0 to 1 in grey and RGB; bool, uint16, int16, int32 and floats of any range in grey,
    which the server stretches as it does those of files.
    """

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def __array_interface__(self) -> dict[str, Any]: ...


class BinaryFile(Protocol):
    """A file opened for reading bytes."""

    def read(self) -> bytes: ...


ImageInput: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryFile | PillowImage | NumpyArray
"""A path, the bytes of an image file, a binary file object, a `PIL.Image.Image`, or a numpy array of pixels."""

_PNG_MODES = frozenset(["1", "L", "LA", "I;16", "P", "RGB", "RGBA"])
_DEEP_MODES = frozenset(["I", "F", "I;16", "I;16B", "I;16L", "I;16N"])
"""Modes of more than 8 bits a pixel. PNG has only the third."""
_DEEP_ARRAYS = frozenset(["bool", "uint16", "int16", "int32", "float16", "float32", "float64"])
_WHITE_IS_ZERO, _PLANES_APART = 0, 2
_BITS, _PHOTOMETRIC, _PLANAR = 258, 262, 284
_RANGE_TAGS = (280, 281, 340, 341, 42113)
"""Tags of a TIFF: the lowest and highest samples, and the value that stands for none."""
_ORIENTATION = 0x0112  # Exif's tag
_UPRIGHT = 1


def is_image(value: object) -> bool:
    """Whether `image_bytes` takes this value; a sequence of images is none."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or (
        hasattr(value, "read") or _is_pillow(value) or _is_array(value)
    )


def image_bytes(image: ImageInput) -> bytes:
    """The bytes of an image file: read once, so that they can be sent again; pixels are encoded as PNG or TIFF.

    Raises OSError (FileNotFoundError, ...) where a path cannot be read, TypeError and ValueError for what is no image.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        try:
            return Path(image).read_bytes()
        except FileNotFoundError as error:
            error.add_note("This names a file. To look for words: search(text=...).")
            raise
    if _is_pillow(image):
        try:
            return _encoded(image)
        except (OSError, TypeError, ValueError):
            raise
        except Exception as error:  # nearly any type: Pillow reads the file only now, and it may be damaged
            raise ValueError(f"Pillow cannot read this image: {error}.") from error
    if _is_array(image):
        return _encoded(_picture_of(image))
    if hasattr(image, "read"):
        return _read(image)
    raise TypeError(
        "An image is a path, bytes, a binary file object, a PIL.Image.Image or a numpy array, "
        f"not {_name_of(type(image))}."
    )


def _read(file: Any) -> bytes:
    data = file.read()
    if not isinstance(data, bytes):
        raise TypeError(f"Reading the file gave {_name_of(type(data))}, not bytes. Open it with mode 'rb'.")
    if not data:
        raise ValueError("The file object has nothing left to read. Call its seek(0) first.")
    return data


# An object of a type can only exist once the type's module is loaded: no need to import it to ask.


def _is_pillow(value: object) -> bool:
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def _is_array(value: object) -> bool:
    module = sys.modules.get("numpy")
    return module is not None and isinstance(value, module.ndarray)


def _picture_of(array: Any) -> Any:
    """A Pillow image of an array of pixels."""
    kind, floats = str(array.dtype.newbyteorder("=")), array.dtype.kind == "f"
    grey, colour = array.ndim == 2, array.ndim == 3 and array.shape[2] == 3
    if not (
        (grey and (kind in _DEEP_ARRAYS or kind == "uint8"))
        or (colour and (floats or kind == "uint8"))
        or (array.ndim == 3 and array.shape[2] == 4 and kind == "uint8")
    ):
        raise ValueError(
            "An array of pixels is uint8 of shape (height, width), (height, width, 3) or (height, width, 4), "
            "floats 0 to 1 of the first two, or bool, uint16, int16, int32 or floats of the first, "
            f"not {array.dtype} of shape {array.shape}."
        )
    if array.size == 0:
        raise ValueError(f"The array has no pixels: its shape is {array.shape}.")
    if floats and colour:
        if not bool(((array >= 0) & (array <= 1)).all()):
            raise ValueError("An array of floats in colour has values from 0 to 1. Scale it, or send its file.")
        array = (array * 255).round().astype("uint8")
    elif kind == "float16":
        array = array.astype("float32")
    try:
        from PIL import Image
    except ImportError as error:
        raise TypeError(
            "A numpy array is sent as PNG, which needs Pillow: pip install pillow, or pass the bytes of an image file."
        ) from error
    return Image.fromarray(array)


def _encoded(picture: Any) -> bytes:
    """Encode a Pillow image without loss: as PNG at the lowest compression, which takes a fifth of the time, or as
    TIFF where PNG has no such pixels.

    Its Exif orientation travels along, so that the server turns it as it would have turned the file.
    """
    options: dict[str, Any] = {}
    picture.load()  # Pillow turns a TIFF by then, and forgets its orientation
    orientation = _orientation(picture)
    if orientation != _UPRIGHT:
        exif = sys.modules["PIL.Image"].Exif()
        exif[_ORIENTATION] = orientation
        options["exif"] = exif
    tags = getattr(picture, "tag_v2", None)
    if tags is not None:
        _refuse_misread(picture.mode, tags)
    if picture.mode in _DEEP_MODES and (tags is not None or picture.mode != "I;16"):
        return _tiff(picture, tags, options)
    if picture.mode not in _PNG_MODES:
        picture = picture.convert("RGBA" if picture.mode in ("PA", "La", "RGBa") else "RGB")
        options["icc_profile"] = None  # it describes the colours from before the conversion
    out = BytesIO()
    picture.save(out, "PNG", compress_level=1, **options)
    return out.getvalue()


def _tiff(picture: Any, tags: Any, options: dict[str, Any]) -> bytes:
    if picture.mode in ("I;16L", "I;16N"):  # Pillow cannot write the second
        picture = picture.convert("I")
    plain = picture.copy()  # without the tags of its file, some of which are private
    kept = {tag: tags[tag] for tag in _RANGE_TAGS if tags is not None and tag in tags}
    plain.info = {}
    out = BytesIO()
    plain.save(out, "TIFF", tiffinfo=kept, **options)
    return out.getvalue()


def _refuse_misread(mode: str, tags: Any) -> None:
    """Raise ValueError for an opened TIFF whose pixels Pillow has otherwise than the server reads them."""
    bits = tags.get(_BITS, (1,))
    if max(bits if isinstance(bits, tuple) else (bits,)) <= 8:
        return
    if mode not in _DEEP_MODES or tags.get(_PLANAR) == _PLANES_APART or tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        raise ValueError(
            "Pillow reads this TIFF of more than 8 bits a sample otherwise than the server does. "
            "Pass the path or the bytes of its file."
        )


def _orientation(picture: Any) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # nearly any type: Pillow parses a TIFF that may be damaged, and the server ignores it then too
        return _UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else _UPRIGHT


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
