"""Every decoder of image files against the pixels that the files were made of, and against each other.

Formats are written by hand where Pillow does not write them. What `load_image` gives is what in-memory data,
evaluation, calibration and `explain` see; `decoding.decode` is what streams train on and "serving_bytes" serves.
"""
import io
import resource
import struct
import zlib
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import slow
from PIL import Image, PngImagePlugin

import keras_preact as kp
from keras_preact.data import datasets
from keras_preact.data.preprocessing import load_image, load_views
from keras_preact.exporting import savedmodel
from keras_preact.training.recipes import Recipe

tf = pytest.importorskip("tensorflow")

from keras_preact.data import augmentation, decoding  # noqa: E402

SIDE = 16
WHOLE = kp.Preprocessing((0.5,) * 3, (0.5,) * 3, (SIDE, SIDE))
ONE = kp.Preprocessing((0.5,), (0.5,), (SIDE, SIDE))
RNG = np.random.default_rng(0)
SMOOTH = np.asarray(Image.fromarray(RNG.integers(20, 236, (2, 2, 3)).astype("uint8")).resize((SIDE, SIDE), 2))
NOISE = RNG.integers(0, 256, (SIDE, SIDE, 3)).astype("uint8")
GREY = NOISE[..., 0]
DEEP = RNG.integers(0, 65536, (SIDE, SIDE, 4)).astype("uint16")  # upper eight bits are DEEP >> 8
ALPHA = RNG.integers(1, 256, (SIDE, SIDE)).astype("uint8")
PALETTE = RNG.integers(0, 256, (256, 3)).astype("uint8")


def saved(image, form, **options):
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def of_palette(indices, colours):
    image = Image.fromarray(indices.astype("uint8"))
    image.putpalette(colours.tobytes())
    return image


def packed(indices, bits):
    """Rows of indices, so many bits for each, the first one highest."""
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits((indices[..., None] >> shifts & 1).reshape(len(indices), -1).astype("uint8"), axis=1)


def tiff(rows, bits, photometric=1):
    """One channel of so many bits, by hand; 1 is the photometric interpretation whose black is 0."""
    data = rows.tobytes()
    tags = {256: SIDE, 257: SIDE, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: SIDE, 279: len(data)}
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(data)) + data + struct.pack("<H", len(tags)) + directory + bytes(4)


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(rows, bits, colour, *chunks, width=SIDE):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, colour, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def bmp(rows, bits, palette=b"", masks=b"", from_above=False, compression=None, width=SIDE):
    """`rows` from above; each is padded to a multiple of four bytes."""
    start = 54 + len(masks) + len(palette)
    height, compression = len(rows), (3 if masks else 0) if compression is None else compression
    head = struct.pack(
        "<IiiHHIIiiII", 40, width, -height if from_above else height, 1, bits, compression, 0, 0, 0,
        len(palette) // 4, 0,
    )
    rows = [row.tobytes() + bytes(-row.nbytes % 4) for row in (rows if from_above else rows[::-1])]
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, start) + head + masks + palette + b"".join(rows)


def with_last(colours, last=0):
    """Colours as BMP has them: blue, green, red and a byte without meaning."""
    return np.concatenate([colours[..., ::-1], np.full((*colours.shape[:-1], 1), last, "uint8")], -1).astype("uint8")


def masks(*values):
    return struct.pack("<" + "I" * len(values), *values)


def without_adobe(jpeg):
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + struct.unpack(">H", jpeg[start + 2:start + 4])[0]:]


def ycck(pixels):
    """A JPEG whose marker says YCCK: luminance and chrominance of the negative of the inverted CMYK, and no black."""
    y, cb, cr = Image.fromarray(255 - pixels).convert("YCbCr").split()
    bands = [Image.fromarray(255 - np.asarray(band)) for band in (y, cb, cr)] + [Image.new("L", y.size, 0)]
    jpeg = bytearray(saved(Image.merge("CMYK", bands), "JPEG", quality=100))
    jpeg[jpeg.index(b"Adobe") + 11] = 2
    return bytes(jpeg)


def to_rgb(grey):
    return np.repeat(grey[..., None], 3, -1)


TRANSPARENT = np.dstack([NOISE, ALPHA])
CMYK = Image.fromarray(255 - np.dstack([SMOOTH, np.full((SIDE, SIDE), 255, "uint8")]), "CMYK")
FIVE = NOISE >> 3
FIVE_SIX_FIVE = NOISE >> (3, 2, 3)
LITTLE = {bits: GREY % 2**bits for bits in (1, 2, 4)}
BE = DEEP.astype(">u2")
# name: (file, the pixels it was made of, by how much a lossy one may differ)
FILES = {
    **{f"png grey {bits}": (png(packed(v, bits), bits, 0), to_rgb(v * (255 // (2**bits - 1))), 0)
       for bits, v in LITTLE.items()},
    **{f"png palette {bits}": (
        png(packed(v, bits), bits, 3, chunk(b"PLTE", PALETTE[:2**bits].tobytes())), PALETTE[v], 0
    ) for bits, v in LITTLE.items()},
    "png palette 8, tRNS": (saved(of_palette(GREY, PALETTE), "PNG", transparency=bytes(range(256))), PALETTE[GREY], 0),
    "png grey 8": (saved(GREY, "PNG"), to_rgb(GREY), 0),
    "png grey 8, tRNS": (png(GREY, 8, 0, chunk(b"tRNS", struct.pack(">H", int(GREY[0, 0])))), to_rgb(GREY), 0),
    "png grey 16": (png(BE[..., 0], 16, 0), to_rgb(DEEP[..., 0] >> 8), 0),
    "png grey 16, tRNS": (png(BE[..., 0], 16, 0, chunk(b"tRNS", BE[0, 0, 0].tobytes())), to_rgb(DEEP[..., 0] >> 8), 0),
    "png grey 16, alpha": (png(BE[..., :2], 16, 4), to_rgb(DEEP[..., 0] >> 8), 0),
    "png grey 8, alpha": (png(np.dstack([GREY, ALPHA]), 8, 4), to_rgb(GREY), 0),
    "png 8": (saved(NOISE, "PNG"), NOISE, 0),
    "png 8, tRNS": (png(NOISE, 8, 2, chunk(b"tRNS", NOISE[0, 0].astype(">u2").tobytes())), NOISE, 0),
    "png 8, gamma": (png(NOISE, 8, 2, chunk(b"gAMA", struct.pack(">I", 100_000))), NOISE, 0),
    "png 8, alpha": (saved(TRANSPARENT, "PNG"), NOISE, 0),
    "png 16": (png(BE[..., :3], 16, 2), DEEP[..., :3] >> 8, 0),
    "png 16, alpha": (png(BE, 16, 6), DEEP[..., :3] >> 8, 0),
    "jpeg": (saved(SMOOTH, "JPEG", quality=100, subsampling=0), SMOOTH, 4),
    "jpeg 4:2:0, progressive": (saved(SMOOTH, "JPEG", quality=95, progressive=True), SMOOTH, 20),
    "jpeg grey": (saved(SMOOTH[..., 0], "JPEG", quality=100), to_rgb(SMOOTH[..., 0]), 4),
    "jpeg rgb": (saved(SMOOTH, "JPEG", quality=100, keep_rgb=True), SMOOTH, 4),
    "jpeg cmyk": (saved(CMYK, "JPEG", quality=100), SMOOTH, 4),
    "jpeg cmyk, no marker": (without_adobe(saved(CMYK, "JPEG", quality=100)), SMOOTH, 4),
    "jpeg ycck": (ycck(SMOOTH), SMOOTH, 4),
    "webp": (saved(SMOOTH, "WEBP", quality=100), SMOOTH, 20),
    "webp, alpha": (saved(np.dstack([SMOOTH, ALPHA | 128]), "WEBP", quality=100, exact=True), SMOOTH, 20),
    "webp lossless": (saved(NOISE, "WEBP", lossless=True), NOISE, 0),
    "webp lossless, alpha": (saved(TRANSPARENT, "WEBP", lossless=True, exact=True), NOISE, 0),
    "gif": (saved(of_palette(GREY, PALETTE), "GIF"), PALETTE[GREY], 0),
    "gif, transparent": (saved(of_palette(GREY, PALETTE), "GIF", transparency=5), PALETTE[GREY], 0),
    "gif, animated": (saved(of_palette(GREY, PALETTE), "GIF", save_all=True,
                            append_images=[of_palette(255 - GREY, PALETTE)]), PALETTE[GREY], 0),
    **{f"bmp {bits}": (bmp(packed(v, bits), bits, with_last(PALETTE[:2**bits]).tobytes()), PALETTE[v], 0)
       for bits, v in ((1, LITTLE[1]), (4, LITTLE[4]), (8, GREY))},
    "bmp 1, black and white": (saved(Image.fromarray(LITTLE[1] * 255).convert("1"), "BMP"), to_rgb(LITTLE[1] * 255), 0),
    "bmp 8, few colours": (bmp(LITTLE[2], 8, with_last(PALETTE[:4]).tobytes()), PALETTE[LITTLE[2]], 0),
    "bmp 8, grey": (saved(GREY, "BMP"), to_rgb(GREY), 0),
    "bmp 16": (bmp(FIVE @ np.uint16([1024, 32, 1]), 16), FIVE.astype(int) * 255 // 31, 0),
    "bmp 16, bit fields": (
        bmp(FIVE_SIX_FIVE.astype("uint16") @ np.uint16([2048, 32, 1]), 16, masks=masks(0xF800, 0x7E0, 0x1F)),
        FIVE_SIX_FIVE.astype(int) * 255 // (31, 63, 31), 0),
    "bmp 24": (saved(NOISE, "BMP"), NOISE, 0),
    "bmp 24, from above": (bmp(NOISE[..., ::-1], 24, from_above=True), NOISE, 0),
    "bmp 24, padded rows": (bmp(NOISE[:, :13, ::-1], 24, width=13), NOISE[:, :13], 0),
    "bmp 32": (bmp(with_last(NOISE, 7), 32), NOISE, 0),
    "bmp 32, bit fields bgr": (bmp(with_last(NOISE), 32, masks=masks(0xFF0000, 0xFF00, 0xFF)), NOISE, 0),
    "bmp 32, bit fields xbgr": (
        bmp(with_last(NOISE)[..., [3, 0, 1, 2]], 32, masks=masks(0xFF000000, 0xFF0000, 0xFF00)), NOISE, 0),
}
# What only Pillow reads.
PILLOW = {
    "tiff": (saved(NOISE, "TIFF"), NOISE, 0),
    "tiff grey 16": (saved(DEEP[..., 0], "TIFF"), to_rgb(DEEP[..., 0] >> 8), 0),
    "tiff grey 12": (tiff(packed(DEEP[..., 0] >> 4, 12), 12), to_rgb(DEEP[..., 0] >> 8), 0),
    "tiff grey 16, white is zero": (tiff(DEEP[..., 0], 16, 0), to_rgb(255 - (DEEP[..., 0] >> 8)), 0),
    "tiff float": (saved(np.float32(GREY / 255), "TIFF"), to_rgb(GREY), 0),
    "tiff cmyk": (saved(CMYK, "TIFF"), SMOOTH, 0),
    "ppm": (saved(NOISE, "PPM"), NOISE, 0),
    "pgm 16": (b"P5 16 16 65535\n" + BE[..., 0].tobytes(), to_rgb(DEEP[..., 0] >> 8), 0),
    "avif": (saved(SMOOTH, "AVIF", quality=100), SMOOTH, 8),
    "webp, animated": (saved(NOISE, "WEBP", save_all=True, append_images=[Image.fromarray(255 - NOISE)], lossless=True),
                       NOISE, 0),
    "bmp 8, run lengths": (
        bmp([np.uint8([SIDE, i, 0, 0]) for i in range(SIDE)], 8, with_last(PALETTE).tobytes(), compression=1),
        np.repeat(PALETTE[:SIDE, None], SIDE, 1), 0),
}


def rows(*tables):
    return pytest.mark.parametrize(
        "file, pixels, tolerance", [row for table in tables for row in table.values()],
        ids=[name for table in tables for name in table],
    )


def whole(file, channels=3):
    """What `load_image` gives of the whole image."""
    with Image.open(io.BytesIO(file)) as image:
        size = image.size[::-1]
    return load_image(io.BytesIO(file), kp.Preprocessing((0.5,) * channels, (0.5,) * channels, size))


def luma(pixels):
    """ITU-R 601-2, as Pillow's documentation gives it for mode L."""
    return pixels @ np.array([0.299, 0.587, 0.114])


decode = tf.function(decoding.decode, input_signature=[tf.TensorSpec((), "string")])


@tf.function(input_signature=[tf.TensorSpec((), "string"), tf.TensorSpec((4,), "int32")])
def cut_out(file, box):
    """The window that training cuts out, flipped or not."""
    return augmentation.crop_encoded(file, lambda shape, seed: box, SIDE, tf.constant([0, 0]))


def flipped_or_not(found, expected):
    return min(np.abs(found - view).max() for view in (expected.astype(int), expected[:, ::-1].astype(int)))


@rows(FILES, PILLOW)
def test_pillow_gives_the_pixels_that_the_file_was_made_of(file, pixels, tolerance):
    found = whole(file).astype(int)
    assert found.shape == pixels.shape and np.abs(found - pixels).max() <= tolerance
    assert np.abs(whole(file, 1)[..., 0] - luma(found)).max() <= 0.51


@rows(FILES)
def test_tensorflow_gives_the_same_pixels(file, pixels, tolerance):
    found = decode(file)
    assert np.abs(found.numpy().astype(int) - pixels).max() <= tolerance
    np.testing.assert_array_equal(found, whole(file))
    np.testing.assert_array_equal(decoding.grey(found), whole(file, 1))


@rows(FILES)
def test_streams_train_on_the_same_pixels(file, pixels, tolerance):
    if pixels.shape == NOISE.shape:
        assert flipped_or_not(cut_out(file, [0, 0, SIDE, SIDE]).numpy(), whole(file)) < 1e-3


@rows(PILLOW)
def test_what_tensorflow_does_not_read_is_an_error(file, pixels, tolerance):
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(file)


@pytest.mark.parametrize("sides", [(SIDE, SIDE + 1), (1, 1)])
def test_a_gif_whose_first_image_is_not_the_whole_picture_is_an_error(sides):
    gif = FILES["gif"][0]
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode(gif[:6] + struct.pack("<HH", *sides) + gif[10:])


@pytest.mark.parametrize("preprocessing", [WHOLE, ONE], ids=["three channels", "one"])
def test_serving_gives_the_same_pixels_and_marks_what_it_cannot_read(preprocessing, tmp_path):
    readable = [file for file, pixels, _ in FILES.values() if pixels.shape == NOISE.shape]
    files = readable + [file for file, _, _ in PILLOW.values()]
    inputs = keras.Input(preprocessing.input_shape)
    x = keras.layers.Dense(5, activation="softmax")(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, x)
    path = kp.export_savedmodel(model, tmp_path / "linear", preprocessing=preprocessing, labels=list("abcde")).path
    outputs = tf.saved_model.load(str(path)).signatures["serving_bytes"](image_bytes=tf.constant(files))
    assert outputs["valid"].numpy().tolist() == [True] * len(readable) + [False] * len(PILLOW)
    images = np.stack([load_image(io.BytesIO(file), preprocessing) for file in readable])
    expected = model.predict_on_batch(kp.preprocess_input(images, preprocessing))
    np.testing.assert_allclose(outputs["probabilities"][:len(readable)], expected, atol=1e-4)
    assert np.ptp(expected, axis=0).min() > 0.01


def test_in_memory_data_and_test_images_are_the_same_pixels(tmp_path):
    table = {name: row for name, row in (FILES | PILLOW).items() if row[1].shape == (SIDE, SIDE, 3)}
    for part in ("train/a", "test/a"):
        (tmp_path / part).mkdir(parents=True)
        for i, (file, _, _) in enumerate(table.values()):
            (tmp_path / part / f"{i:03d}").write_bytes(file)
    expected = np.stack([whole(file) for file, _, _ in table.values()])
    data = datasets.load(tmp_path, size=(SIDE, SIDE))
    for part in (data.x_train, data.x_test):
        np.testing.assert_array_equal(part, expected)
    (views, _), = datasets.load(tmp_path).test_views("flip", WHOLE, len(table))
    np.testing.assert_array_equal(views, np.stack([expected, expected[:, :, ::-1]], 1))


@pytest.mark.parametrize("image, message", [
    (Image.fromarray(np.full((4, 4), 70_000, "int32")), "16-bit values must lie between 0 and 65535"),
    (Image.fromarray(np.full((4, 4), 200, "int32")), "save it with 8 bits"),  # 32 bits: nobody knows what is white
    (Image.fromarray(np.full((4, 4), 200, "float32")), "Floats must lie between 0 and 1, its white. .* 200.0 to 200.0"),
    (Image.fromarray(np.full((4, 4), np.nan, "float32")), "from nan to nan"),
])
def test_values_whose_white_is_unknown_are_refused(image, message):
    with pytest.raises(OSError, match=message):
        load_image(io.BytesIO(saved(image, "TIFF")), WHOLE)


@pytest.mark.filterwarnings("ignore:IM image format:DeprecationWarning")
def test_integers_of_32_bits_are_refused_in_other_formats_too():
    file = saved(Image.fromarray(np.full((4, 4), 200, "int32")), "IM")
    with pytest.raises(OSError, match="Received: int32 from 200 to 200; save it with 8 bits"):
        load_image(io.BytesIO(file), WHOLE)


def test_a_file_that_no_decoder_reads_is_named(tmp_path, monkeypatch):
    whole, *damaged = (tmp_path / name for name in ("whole.png", "cut.png", "text.jpg"))
    whole.write_bytes(saved(NOISE, "PNG"))
    damaged[0].write_bytes(saved(NOISE, "PNG")[:100])
    damaged[1].write_text("no image")
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("~/whole.png", Path("~/whole.png")):
        np.testing.assert_array_equal(load_image(path, WHOLE), NOISE)
    for path in damaged:
        with pytest.raises(OSError, match=path.name):
            load_image(path, WHOLE)
        with pytest.raises(OSError, match=path.name), open(path, "rb") as opened:
            load_image(opened, WHOLE)

    def fail(image):
        raise RuntimeError("Conversion from YUV failed")  # as Pillow's decoder of AVIF does

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(OSError, match="whole.png: Pillow cannot decode it: Conversion from YUV failed"):
        load_image(whole, WHOLE)


# EXIF's definition: where the first row and the first column of the stored image are seen.
STORED = {
    1: lambda seen: seen, 2: lambda seen: seen[:, ::-1], 3: lambda seen: seen[::-1, ::-1], 4: lambda seen: seen[::-1],
    5: lambda seen: seen.transpose(1, 0, 2), 6: lambda seen: np.rot90(seen),
    7: lambda seen: seen[::-1, ::-1].transpose(1, 0, 2), 8: lambda seen: np.rot90(seen, -1),
}
UPRIGHT = np.asarray(Image.fromarray(RNG.integers(0, 256, (3, 2, 3)).astype("uint8")).resize((24, 40), 0))


def exif(orientation, order="<", kind="H"):
    """A TIFF header and a directory of three entries, by hand."""
    value = struct.pack(order + kind, orientation).ljust(4, b"\0")
    told = {"H": 3, "I": 4, "h": 8, "i": 9}[kind], 1, value
    entries = [(0x010E, 2, 4, b"cat\0"), (0x0112, *told), (0x0131, 2, 4, b"dog\0")]
    directory = b"".join(struct.pack(order + "HHI", *entry[:3]) + entry[3] for entry in entries)
    magic = {"<": b"II*\0", ">": b"MM\0*"}[order]
    return magic + struct.pack(order + "I", 12) + bytes(4) + struct.pack(order + "H", 3) + directory + bytes(4)


def jpeg_with(stored, data, *before):
    """A JPEG with segments, (marker, content) each, before its EXIF data."""
    file = saved(stored, "JPEG", quality=100, subsampling=0)
    segments = [*before, (0xE1, b"Exif\0\0" + data)]
    return file[:2] + b"".join(
        struct.pack(">BBH", 255, marker, len(content) + 2) + content for marker, content in segments
    ) + file[2:]


def filled(jpeg):
    """With bytes 0xff before each segment, which T.81, B.1.1.2, allows."""
    return jpeg[:2] + b"\xff" + jpeg[2:].replace(b"\xff\xe1", b"\xff\xff\xff\xe1", 1)


def png_with(stored, data, first=True):
    file = saved(stored, "PNG")
    place = file.index(b"IDAT" if first else b"IEND") - 4
    return file[:place] + chunk(b"eXIf", data) + file[place:]


def webp_with(stored, data):
    """The extended layout by hand: VP8X, a chunk of odd length, the image, EXIF data."""
    image = saved(stored, "WEBP", lossless=True)[12:]
    sides = b"".join((side - 1).to_bytes(3, "little") for side in stored.shape[1::-1])
    chunks = b"VP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + sides + b"ODD " + struct.pack("<I", 3) + b"123\0" + image
    chunks += b"EXIF" + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WEBP" + chunks


XMP = (0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"Exif\0\0" * 10_000)
CONTAINERS = {
    "jpeg": jpeg_with,
    "jpeg, behind others": lambda stored, data: jpeg_with(stored, data, XMP, (0xE2, bytes(3000)), (0xFE, b"word")),
    "jpeg, filled": lambda stored, data: filled(jpeg_with(stored, data, (0xFE, b"word"))),
    "png": png_with, "png, at the end": lambda stored, data: png_with(stored, data, first=False),
    "webp": webp_with, "webp, with a prefix": lambda stored, data: webp_with(stored, b"Exif\0\0" + data),
}


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
@pytest.mark.parametrize("order, kind", ["<H", ">H", "<I", ">I", slow("<", "h"), slow(">", "i")])
def test_images_are_turned_upright(container, order, kind):
    shape = kp.Preprocessing(WHOLE.mean, WHOLE.std, UPRIGHT.shape[:2])
    for orientation, stored in STORED.items():
        file = container(np.ascontiguousarray(stored(UPRIGHT)), exif(orientation, order, kind))
        found = decode(file).numpy().astype(int)
        assert found.shape == UPRIGHT.shape
        assert np.abs(found - UPRIGHT).max() < 30 and np.abs(found - UPRIGHT).mean() < 2
        np.testing.assert_array_equal(load_image(io.BytesIO(file), shape), found)
        # A window of the upright image is what training cuts out, also of a JPEG whose window alone is decoded.
        assert flipped_or_not(cut_out(file, [16, 0, SIDE, SIDE]).numpy(), found[16:16 + SIDE, :SIDE]) < 1


def test_tiff_files_are_turned_upright():
    for orientation, stored in STORED.items():
        file = saved(np.ascontiguousarray(stored(UPRIGHT)), "TIFF", tiffinfo={0x0112: orientation})
        shape = kp.Preprocessing(WHOLE.mean, WHOLE.std, UPRIGHT.shape[:2])
        np.testing.assert_array_equal(load_image(io.BytesIO(file), shape), UPRIGHT)


def test_of_two_orientations_the_first_one_counts():
    data = exif(6).replace(struct.pack("<H", 0x010E), struct.pack("<H", 0x0112), 1)
    data = data.replace(struct.pack("<HI", 2, 4) + b"cat\0", struct.pack("<HI", 3, 1) + b"\3\0\0\0", 1)
    file = jpeg_with(np.ascontiguousarray(STORED[3](UPRIGHT)), data)
    np.testing.assert_array_equal(decode(file), whole(file))


DAMAGED = {
    "empty": b"", "no tag": exif(6).replace(b"\x12\x01", b"\xff\xff"), "no orientation": exif(9),
    "no header": b"XX" + exif(6)[2:], "no directory": exif(6)[:4] + b"\xff\xff\xff\xff", "zero": exif(0),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED)
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_damaged_exif_data_are_passed_over(container, data):
    file = container(UPRIGHT, data)
    assert decode(file).shape == UPRIGHT.shape and np.abs(decode(file).numpy().astype(int) - UPRIGHT).mean() < 2


def test_other_metadata_do_not_turn_an_image():
    # Pillow's own exif_transpose looks into XMP, and TensorFlow's decoders of EXIF data do not.
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    file = saved(UPRIGHT, "JPEG", xmp=xmp)
    assert b'tiff:Orientation="6"' in file
    np.testing.assert_array_equal(whole(file), decode(file))


@pytest.mark.parametrize("views", ["single", "ten_crop"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos", "nearest"])
@pytest.mark.parametrize("size, crop", [((20, 20), 1.0), ((12, 28), 0.8)])
@pytest.mark.parametrize("shape", [(61, 43), (9, 200), (20, 20), (5, 7)])
def test_the_crop_is_that_of_the_whole_image_resized(views, interpolation, size, crop, shape):
    photo = Image.fromarray(RNG.integers(0, 256, (*shape, 3)).astype("uint8"))
    scale = max(size[0] / shape[0], size[1] / shape[1]) / crop
    height, width = max(size[0], round(shape[0] * scale)), max(size[1], round(shape[1] * scale))
    kernel = Image.Resampling[interpolation.upper()]
    resized = np.asarray(photo.resize((width, shape[0]), kernel).resize((width, height), kernel)).astype(int)
    below, right = height - size[0], width - size[1]
    places = [(below // 2, right // 2), (0, 0), (0, right), (below, 0), (below, right)]
    expected = [resized[top:top + size[0], left:left + size[1]] for top, left in places]
    expected = expected[:1] if views == "single" else [v for view in expected for v in (view, view[:, ::-1])]
    preprocessing = kp.Preprocessing(WHOLE.mean, WHOLE.std, size, crop, interpolation)
    found = load_views(io.BytesIO(saved(photo, "PNG")), views, preprocessing)
    if interpolation == "nearest":  # where two pixels are equally near either may be taken
        assert (found == np.stack(expected)).mean() > 0.85
    else:  # where a value lies between two integers it may be rounded to either, once along each side
        assert np.abs(found - np.stack(expected)).max() <= 2 and (found == np.stack(expected)).mean() > 0.85


def served(file, preprocessing, most_pixels):
    """(images, valid) of what "serving_bytes" decodes."""
    return tf.function(lambda: savedmodel._decode(tf.constant([file]), preprocessing, most_pixels))()


def grown(call):
    """Returns the result of a call and the megabytes by which it raised the most that the process ever had."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return call(), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


@pytest.mark.parametrize("turned", [False, True])
def test_a_very_long_image_costs_little(turned):
    stripe = np.zeros((900_000, 1), "uint8")
    stripe[449_990:450_010] = 200
    file = saved(stripe.T if turned else stripe, "PNG")
    preprocessing = kp.Preprocessing(WHOLE.mean, WHOLE.std, (224, 224), 0.875, "bicubic")
    # Resized as a whole it would have 256 x 230,400,000 pixels.
    image, more = grown(lambda: load_image(io.BytesIO(file), preprocessing))
    assert (image == 200).all() and more < 100
    (images, valid), more = grown(lambda: served(file, preprocessing, 1_000_000))
    assert valid.numpy().all() and (images.numpy() == 200).all() and more < 300


@pytest.mark.parametrize("name", ["png 8", "jpeg", *map(slow, (
    "gif", "bmp 24, from above", "webp", "webp, alpha", "webp lossless", "webp lossless, alpha"))])
def test_an_image_may_have_so_many_pixels(name):
    file, *_ = FILES[name]
    _, valid = served(file, WHOLE, SIDE * SIDE)
    assert valid.numpy().all()
    _, valid = served(file, WHOLE, SIDE * SIDE - 1)
    assert not valid.numpy().any()


def black(side):
    """A square PNG of one bit a pixel."""
    return png([np.zeros(side // 8, "uint8")] * side, 1, 0, width=side)


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded():
    file = black(30_000)
    assert len(file) < 200_000
    (_, valid), more = grown(lambda: served(file, WHOLE, savedmodel.MOST_PIXELS))
    assert not valid.numpy().any() and more < 100


def damaged(file, rng):
    """A file with some bytes changed, or cut."""
    file = np.frombuffer(file, "uint8").copy()
    places = rng.integers(0, min(len(file), int(rng.choice((40, 400, len(file))))), rng.integers(1, 4))
    file[places] = rng.integers(0, 256, len(places))
    return file[:rng.integers(1, len(file))].tobytes() if rng.random() < 0.3 else file.tobytes()


@pytest.mark.slow
def test_damaged_files_leave_no_memory_behind():
    """Of 2,000, in batches of 20, with at most a million pixels each; whole ones of 36 million are among them."""
    rng, kinds = np.random.default_rng(0), [FILES[name][0] for name in sorted(FILES)]
    decode = tf.function(
        lambda files: savedmodel._decode(files, WHOLE, 1_000_000), input_signature=[tf.TensorSpec([None], "string")]
    )

    def serve(batches, *whole):
        for _ in range(batches):
            files = [damaged(kinds[rng.integers(len(kinds))], rng) for _ in range(20)]
            yield decode(tf.constant([*files, *whole]))[1].numpy().mean()

    list(serve(10))
    valid, more = grown(lambda: list(serve(100, black(6_000))))
    assert 0.2 < np.mean(valid) < 0.8 and more < 50


def test_training_reads_what_tensorflow_does_not(tmp_path):
    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(10):
            (tmp_path / label / f"{i}.png").write_bytes(FILES["png 8"][0])
    for name, file in (("a/1.tif", "tiff"), ("b/6.webp", "webp, animated"), ("b/4.ppm", "ppm")):
        (tmp_path / name).write_bytes(PILLOW[file][0])
    stream = datasets.load(tmp_path)
    recipe = Recipe("tiny", "a test", epochs=1, batch_size=4, schedule="cosine", augmentation="scale_aspect")
    batches = [images.numpy() for images, _ in stream.training(recipe, 0)["x"]]
    assert [images.shape for images in batches] == [(4, 224, 224, 3)] * 4 and np.isfinite(batches).all()
