"""What can be passed as an image, and how it becomes the bytes of an image file. Imports neither Pillow nor numpy."""

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
    """A `numpy.ndarray`: uint8, (height, width) grey, (height, width, 3) RGB or (height, width, 4) RGBA."""

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
_ORIENTATION = 0x0112  # Exif's tag
_UPRIGHT = 1


def is_image(value: object) -> bool:
    """Whether `image_bytes` takes this value; a sequence of images is none."""
    return isinstance(value, str | os.PathLike | bytes | bytearray | memoryview) or (
        hasattr(value, "read") or _is_pillow(value) or _is_array(value)
    )


def image_bytes(image: ImageInput) -> bytes:
    """The bytes of an image file: read once, so that they can be sent again; pixels are encoded as PNG.

    Raises OSError (FileNotFoundError, ...) where a path cannot be read, TypeError and ValueError for what is no image.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    if _is_pillow(image):
        return _png(image)
    if _is_array(image):
        return _png(_picture_of(image))
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
    if str(array.dtype) != "uint8" or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            "An array of pixels is uint8 of shape (height, width), (height, width, 3) or (height, width, 4), "
            f"not {array.dtype} of shape {array.shape}."
        )
    if array.size == 0:
        raise ValueError(f"The array has no pixels: its shape is {array.shape}.")
    try:
        from PIL import Image
    except ImportError as error:
        raise TypeError(
            "A numpy array is sent as PNG, which needs Pillow: pip install pillow, or pass the bytes of an image file."
        ) from error
    return Image.fromarray(array)


def _png(picture: Any) -> bytes:
    """Encode a Pillow image as PNG: lossless, and at the lowest compression, which takes a fifth of the time.

    Its Exif orientation travels along, so that the server turns it as it would have turned the file.
    """
    options: dict[str, Any] = {"compress_level": 1}
    orientation = _orientation(picture)
    if orientation != _UPRIGHT:
        exif = sys.modules["PIL.Image"].Exif()
        exif[_ORIENTATION] = orientation
        options["exif"] = exif
    if picture.mode not in _PNG_MODES:
        picture = picture.convert("RGBA" if picture.mode in ("PA", "La", "RGBa") else "RGB")
        options["icc_profile"] = None  # it describes the colours from before the conversion
    out = BytesIO()
    picture.save(out, "PNG", **options)
    return out.getvalue()


def _orientation(picture: Any) -> int:
    try:
        value = picture.getexif().get(_ORIENTATION, _UPRIGHT)
    except Exception:  # nearly any type: Pillow parses a TIFF that may be damaged, and the server ignores it then too
        return _UPRIGHT
    return value if isinstance(value, int) and 1 <= value <= 8 else _UPRIGHT


def _name_of(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
