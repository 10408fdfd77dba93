"""Kinds of picture files, known by their first bytes and names: those that are read, and those that are only named."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

HEADER_BYTES = 132
"""Enough for every signature here; DICOM's stands behind 128 bytes that mean nothing."""

NOT_SUPPORTED = "not supported: "
"""Begins the reason of a file whose kind is not read, which is known only from its content; the kind ends at `;`."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of picture files that is read: always, or with a plugin that an extra of the package brings.

    `name` is what reports say, `pillow` what Pillow says, `plugin` the module that teaches it to Pillow.
    """

    name: str
    pillow: str
    extensions: tuple[str, ...]
    plugin: str | None = None
    extra: str | None = None


FORMATS = (
    Format(name="JPEG", pillow="JPEG", extensions=("jpg", "jpeg", "jpe", "jfif")),
    Format(name="PNG", pillow="PNG", extensions=("png", "apng")),
    Format(name="WebP", pillow="WEBP", extensions=("webp",)),
    Format(name="GIF", pillow="GIF", extensions=("gif",)),
    Format(name="BMP", pillow="BMP", extensions=("bmp", "dib")),
    Format(name="TIFF", pillow="TIFF", extensions=("tif", "tiff")),
    Format(name="AVIF", pillow="AVIF", extensions=("avif",)),
    Format(name="HEIC", pillow="HEIF", extensions=("heic", "heif", "hif"), plugin="pillow_heif", extra="heif"),
    Format(name="JPEG XL", pillow="JXL", extensions=("jxl",), plugin="pillow_jxl", extra="jxl"),
)
"""Pillow itself can read forty more, most of them rarely used and rarely tested against hostile files."""

_UNREAD = {
    "JPEG 2000": ("jp2", "j2k", "j2c", "jpc", "jpf", "jpx", "jph"),
    "JPEG XR": ("jxr", "wdp", "hdp"),
    "JPEG-LS": ("jls",),
    "PSD": ("psd", "psb"),
    "SVG": ("svg", "svgz"),
    "EPS": ("eps", "epsf"),
    "AI": ("ai",),
    "CDR": ("cdr",),
    "XCF": ("xcf",),
    "KRA": ("kra",),
    "ORA": ("ora",),
    "AFPHOTO": ("afphoto",),
    "PSP": ("psp", "pspimage"),
    "PDN": ("pdn",),
    "ICO": ("ico", "cur"),
    "ICNS": ("icns",),
    "TGA": ("tga",),
    "PCX": ("pcx",),
    "PNM": ("pnm", "ppm", "pgm", "pbm", "pam", "pfm"),
    "DDS": ("dds",),
    "OpenEXR": ("exr",),
    "Radiance HDR": ("hdr",),
    "QOI": ("qoi",),
    "BPG": ("bpg",),
    "FLIF": ("flif",),
    "SGI": ("sgi",),
    "XPM": ("xpm",),
    "XBM": ("xbm",),
    "PICT": ("pict", "pct"),
    "IFF": ("iff", "lbm", "ilbm"),
    "WMF": ("wmf", "emf"),
    "DPX": ("dpx", "cin"),
    "MNG": ("mng", "jng"),
    "FITS": ("fits", "fts"),
    "DICOM": ("dcm", "dicom"),
    **{
        raw.upper(): (raw,)
        for raw in (
            *("3fr", "arw", "bay", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "gpr", "iiq", "k25", "kdc", "mef"),
            *("mos", "mrw", "nef", "nrw", "orf", "pef", "raf", "rw2", "rwl", "sr2", "srf", "srw", "x3f"),
        )
    },
}
"""Kinds that are not read, and the ends of their names; the last are cameras' raw files. A raw file that is a TIFF
inside is known by its first bytes as one, and read or rejected as one."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\xff\xd8\xff\xf7", "JPEG-LS"),
    (b"II\xbc\x01", "JPEG XR"),
    (b"8BPS\0", "PSD"),
    (b"<svg", "SVG"),
    (b"\xc5\xd0\xd3\xc6", "EPS"),
    (b"gimp xcf ", "XCF"),
    (b"Paint Shop Pro Image File", "PSP"),
    (b"icns", "ICNS"),
    (b"DDS ", "DDS"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"qoif", "QOI"),
    (b"BPG\xfb", "BPG"),
    (b"FLIF", "FLIF"),
    (b"/* XPM */", "XPM"),
    (b"SDPX", "DPX"),
    (b"XPDS", "DPX"),
    (b"\x8aMNG\r\n\x1a\n", "MNG"),
    (b"\x8bJNG\r\n\x1a\n", "MNG"),
    (b"SIMPLE  =", "FITS"),
    (b"FUJIFILMCCD-RAW", "RAF"),
    (b"FOVb", "X3F"),
    (b"\0MRM", "MRW"),
    (b"IIRO", "ORF"),
    (b"IIRS", "ORF"),
    (b"MMOR", "ORF"),
    (b"IIU\0", "RW2"),
    (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
)
_BRANDS = {
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIC"),
    b"crx ": "CR3",
}
"""Kinds of files of boxes, by the major brand or one of the first compatible ones."""

_BY_SIGNATURE = tuple(sorted(_SIGNATURES, key=lambda signature: -len(signature[0])))
_BY_NAME = {format_.name: format_ for format_ in FORMATS}
_BY_EXTENSION = {
    **{f".{end}": format_.name for format_ in FORMATS for end in format_.extensions},
    **{f".{end}": kind for kind, ends in _UNREAD.items() for end in ends},
}

EXTENSIONS = frozenset(f".{end}" for format_ in FORMATS if format_.plugin is None for end in format_.extensions)
"""Suffixes in lower case that claim a kind of file that is always read."""


def kind_of(header: bytes) -> str | None:
    """The kind of picture that a file of these first HEADER_BYTES is; None: of no kind that is known here."""
    if header[4:8] == b"ftyp":
        brands = [header[at : at + 4] for at in (8, 16, 20, 24, 28)]
        found = (_BRANDS[brand] for brand in brands if brand in _BRANDS)
        return next(found, "HEIC" if brands[0] in (b"mif1", b"msf1") else None)
    if header[:2] == b"BM":  # two letters are too little: the size of the header that follows says more
        return "BMP" if int.from_bytes(header[14:18], "little") in (12, 40, 52, 56, 64, 108, 124) else None
    if header[:4] == b"RIFF":
        return "WebP" if header[8:12] == b"WEBP" else "CDR" if header[8:11] in (b"CDR", b"cdr") else None
    if header[128:132] == b"DICM":
        return "DICOM"
    return next((kind for signature, kind in _BY_SIGNATURE if header.startswith(signature)), None)


def kind_named(suffix: str) -> str | None:
    """The kind that a file's suffix (`.heic`, in lower case) claims; None: of no kind that is known here."""
    return _BY_EXTENSION.get(suffix)


def is_read(kind: str | None) -> bool:
    """Whether pictures of this kind are read here: always, or since the plugin for it is installed."""
    format_ = _BY_NAME.get(kind or "")
    return format_ is not None and (format_.plugin is None or _installed(format_.plugin))


def sniff(header: bytes) -> bool:
    """Whether a file with these first bytes (HEADER_BYTES, or 32 for most) is a picture that is read here."""
    return is_read(kind_of(header))


def how_to_read(kind: str) -> str | None:
    """Advice for pictures of this kind to be read; None: there is none."""
    format_ = _BY_NAME.get(kind)
    return f"pip install 'lookalike[{format_.extra}]'" if format_ is not None and format_.extra else None


def plugin_of(kind: str | None) -> Format | None:
    """The format behind a kind that an installed plugin reads; None: Pillow reads it by itself, or nobody does."""
    format_ = _BY_NAME.get(kind or "")
    return format_ if format_ is not None and format_.plugin is not None and _installed(format_.plugin) else None


@cache
def _installed(plugin: str) -> bool:
    return find_spec(plugin) is not None
