"""JPEGs of every kind: by our own writer, by Pillow, and by cjpeg where codes are arithmetic."""

import shutil
import struct
import subprocess
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.torture.jpeg_grammar import segment
from tests.zoo.jpeg import END, JFIF, Form, adobe, write
from tests.zoo.kinds import Kind, Missing, picture, saved, turned_back
from tests.zoo.pictures import orientation

_ONE = (1, 1)
_FULL = (_ONE, _ONE, _ONE)
_XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"/>'
    b"</rdf:RDF></x:xmpmeta>"
)


def _ours(**form: Any) -> Callable[[], bytes]:
    return lambda: write(picture(), Form(**form))


def _pillow(mode: str = "RGB", **options: Any) -> Callable[[], bytes]:
    return lambda: saved("JPEG", picture().convert(mode), **options)


def _cjpeg(*switches: str) -> bytes:
    """By libjpeg-turbo's own program, which alone writes arithmetic codes."""
    program = shutil.which("cjpeg")
    if program is None:
        raise Missing("needs cjpeg: apt-get install libjpeg-turbo-progs")
    done = subprocess.run([program, *switches], input=saved("PPM"), capture_output=True, check=True)
    return done.stdout


def _turned(number: int) -> bytes:
    return saved("JPEG", turned_back(number), exif=orientation(number), quality=95, subsampling=0)


def _gain_map() -> bytes:
    """As phones store HDR: the picture, and behind it a small grey one that says how bright each part is."""
    small = picture().convert("L").resize((45, 60))
    return saved("MPO", save_all=True, append_images=[small.convert("RGB")], xmp=_XMP)


def _without_end() -> bytes:
    whole = _pillow()()
    assert whole.endswith(END)
    return whole[: -len(END)]


def _thumbnail() -> bytes:
    """EXIF with a JPEG of its own, which who looks for the first frame takes for the photo."""
    small = saved("JPEG", picture().resize((24, 32)))
    tiff = b"II*\0" + struct.pack("<IH", 8, 0) + struct.pack("<I", 14)
    entries = ((0x0103, 3, 1, 6), (0x0201, 4, 1, 56), (0x0202, 4, 1, len(small)))
    first = struct.pack("<H", 3) + b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return saved("JPEG", exif=b"Exif\0\0" + tiff + (first + bytes(4)).ljust(42, b"\0") + small)


def _kind(name: str, write_: Callable[[], bytes], shows: str = "the picture", about: str = "") -> Kind:
    return Kind(f"jpeg-{name}", ".jpg", write_, shows, about)


KINDS = [
    _kind("baseline", _pillow(quality=90), about="4:2:0"),
    _kind("progressive", _pillow(progressive=True)),
    _kind("progressive-444", _pillow(progressive=True, subsampling=0, quality=95)),
    _kind("arithmetic", partial(_cjpeg, "-arithmetic"), about="arithmetic codes"),
    _kind("arithmetic-progressive", partial(_cjpeg, "-arithmetic", "-progressive")),
    _kind("lossless", _ours(frame="lossless", space="RGB", factors=_FULL, head=(adobe(0),)), about="SOF3"),
    _kind("lossless-grey", _ours(frame="lossless", space="L", factors=(_ONE,)), "it in grey", "SOF3"),
    _kind("12-bit", _ours(frame="extended", bits=12), "refused", "SOF1, 12 bits"),
    _kind("extended", _ours(frame="extended", wide=True), about="SOF1, steps of 16 bits"),
    _kind("height-behind", _ours(late_height=True), "refused", "height in a DNL segment"),
    _kind("two-components", _ours(factors=(_ONE, _ONE)), "refused"),
    _kind("444", _ours(factors=_FULL), about="4:4:4"),
    _kind("422", _pillow(subsampling=1, quality=90), about="4:2:2"),
    _kind("440", _ours(factors=((1, 2), _ONE, _ONE)), about="4:4:0"),
    _kind("411", _ours(factors=((4, 1), _ONE, _ONE)), about="4:1:1"),
    _kind("410", _ours(factors=((4, 2), _ONE, _ONE)), about="4:1:0"),
    _kind("441", _ours(factors=((1, 4), _ONE, _ONE)), about="4:4:1"),
    _kind("3x1", _ours(factors=((3, 1), _ONE, _ONE)), about="3×1"),
    _kind("mixed", _ours(factors=((2, 2), (2, 1), (1, 2))), about="2×2, 2×1, 1×2"),
    _kind("finer-chroma", _ours(factors=(_ONE, (2, 2), (2, 2))), about="1×1, 2×2, 2×2"),
    _kind("fractional", _ours(factors=((3, 1), (2, 1), _ONE)), "refused", "3×1, 2×1, 1×1"),
    _kind("grey", _pillow("L"), "it in grey"),
    _kind("grey-2x2", _ours(factors=((2, 2),), space="L"), "it in grey", "grey, 2×2"),
    _kind("rgb", _pillow(keep_rgb=True), about="RGB, Adobe's marker"),
    _kind(
        "rgb-by-names",
        _ours(space="RGB", factors=_FULL, head=(), names=b"RGB"),
        about="RGB, components R, G, B",
    ),
    _kind("rgb-unsaid", _ours(space="RGB", factors=_FULL, head=()), "false colours", "RGB, said nowhere"),
    _kind("ycbcr-unsaid", _ours(factors=_FULL, head=()), about="YCbCr, said nowhere"),
    _kind("cmyk", _pillow("CMYK"), about="CMYK, Adobe's marker"),
    _kind(
        "cmyk-unsaid",
        _ours(space="CMYK", factors=(*_FULL, _ONE), head=()),
        about="CMYK inverted, said nowhere",
    ),
    _kind("ycck", _ours(space="YCCK", factors=(*_FULL, _ONE), head=(adobe(2),)), about="YCCK"),
    _kind(
        "ycck-420",
        _ours(space="YCCK", factors=((2, 2), _ONE, _ONE, (2, 2)), head=(adobe(2),)),
        about="YCCK, 4:2:0",
    ),
    _kind("restart-mcu", _ours(interval=1), about="restart markers after every MCU"),
    _kind("restart-row", _pillow(restart_marker_rows=1), about="restart markers after every row"),
    _kind("fill-bytes", _ours(fill=3), about="three bytes before every marker"),
    _kind("scans-apart", _ours(scans="apart"), about="a scan for each component"),
    _kind("scans-190", _ours(frame="progressive", scans="single"), about="190 scans"),
    _kind("trailing", lambda: _pillow()() + bytes(500), about="500 bytes behind the end"),
    _kind("without-end", _without_end, "refused", "no EOI"),
    _kind("thumbnail", _thumbnail, about="a JPEG in its EXIF"),
    _kind("comments", lambda: _commented(), about="segments with markers in them"),
    _kind(
        "mpo",
        lambda: saved("MPO", save_all=True, append_images=[picture().rotate(180)]),
        about="two pictures",
    ),
    _kind("gain-map", _gain_map, about="as phones store HDR"),
    _kind("icc", lambda: _pillow(icc_profile=_profile())(), about="a colour profile that swaps red and blue"),
    *(_kind(f"orientation-{n}", partial(_turned, n), about=f"EXIF {n}") for n in range(1, 9)),
    Kind("jpeg-as-png", ".png", _pillow(), about="named .png"),
    Kind("jpeg-without-suffix", "", _pillow(), about="no suffix"),
]


def _commented() -> bytes:
    looks = segment(0xFE, b"\xff\xd8 looks like a photo \xff\xda\xff\xd9") + segment(0xE5, b"\xff\xc0" * 30)
    return write(picture(), Form(head=(JFIF, looks)))


def _profile() -> bytes:
    """Of which red is blue: who applies it shows."""
    from PIL import ImageCms

    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return plain.replace(b"rXYZ", b"....").replace(b"bXYZ", b"rXYZ").replace(b"....", b"bXYZ")
