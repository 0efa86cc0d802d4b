"""Image files to pixels in TensorFlow's graphs, the same pixels as `preprocessing` has from Pillow.

JPEG, PNG, GIF, BMP and WebP files. TensorFlow has no decoder for TIFF, AVIF, PPM and others, nor for animated WebP and
compressed BMP files: these are errors, as damaged files are.
"""
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import tensorflow as tf

ORIENTATION, SHORT, LONG = 0x0112, 3, 4  # a tag of EXIF and the types that its value may have
SEGMENTS = 10_000  # that are looked through for EXIF data
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # says that a JPEG of four channels holds CMYK, inverted
GREY = 19595, 38470, 7471  # Pillow's, of 65536
# BMP's masks of red, green and blue by bits of a pixel, where a file has none.
MASKS = {16: (0x7C00, 0x3E0, 0x1F), 24: (0xFF0000, 0xFF00, 0xFF), 32: (0xFF0000, 0xFF00, 0xFF)}


class Segments(NamedTuple):
    """How to find the EXIF data of a container: from `first` on it consists of segments with a name and a length."""

    first: int
    name_at: int
    exif: bytes  # the name of a segment of EXIF data
    mark: bytes  # what its data begin with
    last: bytes  # the name of a segment that no EXIF data follow
    length_at: int
    digits: int  # of the length
    big: bool
    data_at: int
    beside: int  # bytes of a segment that its length does not count
    even: bool = False  # a byte is added to an odd length


class Format(NamedTuple):
    magic: bytes
    size: Callable  # of the file: (height, width) from its header
    read: Callable  # of the file: uint8 (height, width, 3)
    segments: Segments | None = None


def decode(file, most_pixels=None):
    """Returns the upright image in `file`, of several the first: uint8 (height, width, 3).

    Args:
        file: scalar string tensor.
        most_pixels: an image that is larger is an error, before it takes memory.
    """
    def reader(form):
        def read():
            pixels = tf.reduce_prod(tf.cast(tf.stack(form.size(file)), "int64"))
            limits = [tf.debugging.assert_positive(pixels, "an image without pixels")]
            if most_pixels:
                limits.append(tf.debugging.assert_less_equal(pixels, tf.constant(most_pixels, "int64"), "too large"))
            with tf.control_dependencies(limits):
                image = tf.ensure_shape(form.read(tf.identity(file)), (None, None, 3))
            return upright(image, orientation(file, form))

        return read

    return tf.case([(_cut(file, 0, len(form.magic)) == form.magic, reader(form)) for form in FORMATS])


def grey(image):
    """Returns the grey values (height, width, 1) of an image (height, width, 3), rounded as Pillow does."""
    weighted = tf.cast(image, "int32") * GREY
    return tf.cast(tf.bitwise.right_shift(tf.reduce_sum(weighted, -1, keepdims=True) + 0x8000, 16), "uint8")


def decode_jpeg(file, box=None):
    """Returns a JPEG file's pixels, or those in `box`, (top, left, height, width), as they are stored."""
    # Where four channels have no marker, TensorFlow takes them for CMYK that is not inverted, and Pillow does not.
    four = tf.io.extract_jpeg_shape(file)[2] == 4
    file = tf.where(four, tf.strings.join([_cut(file, 0, 2), ADOBE, _cut(file, 2, _length(file))]), file)
    # The default method is faster, and other pixels than Pillow's.
    method = {"channels": 3, "dct_method": "INTEGER_ACCURATE"}
    return tf.io.decode_jpeg(file, **method) if box is None else tf.io.decode_and_crop_jpeg(file, box, **method)


def orientation(file, form):
    """Returns the orientation in the EXIF data of a file of that format; 0 where there are none."""
    if not form.segments:
        return tf.constant(0, "int64")
    start = _find_exif(file, form.segments)
    start += tf.where(_cut(file, start, 6) == b"Exif\0\0", tf.constant(6, "int64"), 0)
    big = _cut(file, start, 4) == b"MM\0*"
    known = big | (_cut(file, start, 4) == b"II*\0")
    directory = start + _number(file, start + 4, 4, big)
    entries = tf.io.decode_raw(_cut(file, directory + 2, 12 * _number(file, directory, 2, big)), "uint8")
    entries = tf.reshape(entries[:tf.size(entries) // 12 * 12], (-1, 12))
    tag, kind = _value(entries[:, :2], big), _value(entries[:, 2:4], big)
    value = tf.where(kind == LONG, _value(entries[:, 8:12], big), _value(entries[:, 8:10], big))
    there = known & (tag == ORIENTATION) & ((kind == SHORT) | (kind == LONG))
    return tf.reduce_sum(tf.where(there, value, 0))


def upright(image, orientation):
    """Returns an image upright that is stored in this orientation."""
    rows, columns, swapped = _turns(orientation)
    image = tf.cond(swapped, lambda: tf.transpose(image, (1, 0, 2)), lambda: image)
    return image[::tf.where(rows, -1, 1), ::tf.where(columns, -1, 1)]


def upright_size(height, width, orientation):
    """Returns the (height, width) of an image once it is upright."""
    _, _, swapped = _turns(orientation)
    return tf.where(swapped, width, height), tf.where(swapped, height, width)


def stored_box(box, height, width, orientation):
    """Returns where a box (top, left, height, width) of the upright image of that size lies in the stored one."""
    top, left, rows, columns = box
    from_below, from_right, swapped = _turns(orientation)
    top = tf.where(from_below, height - rows - top, top)
    left = tf.where(from_right, width - columns - left, left)
    return tuple(tf.where(swapped, b, a) for a, b in ((top, left), (left, top), (rows, columns), (columns, rows)))


def _turns(orientation):
    """Returns whether rows and columns are to be reversed, and whether the two are to be swapped before."""
    turns = [3, 4, 7, 8], [2, 3, 6, 7], [5, 6, 7, 8]
    return [tf.reduce_any(orientation == tf.constant(which, "int64")) for which in turns]


def _find_exif(file, form):
    """Returns the place of the EXIF data in a file, or of its end."""
    def name(at):
        return _cut(file, at + form.name_at, len(form.exif))

    def found(at):
        return (name(at) == form.exif) & (_cut(file, at + form.data_at, len(form.mark)) == form.mark)

    def following(at):
        length = _number(file, at + form.length_at, form.digits, form.big)
        return at + form.beside + length + (length % 2 if form.even else 0)

    at, = tf.while_loop(
        lambda at: (at < _length(file)) & (name(at) != form.last) & ~found(at), lambda at: (following(at),),
        (tf.constant(form.first, "int64"),), maximum_iterations=SEGMENTS,
    )
    return tf.where(found(at), at + form.data_at, _length(file))


def _length(file):
    return tf.cast(tf.strings.length(file), "int64")


def _cut(file, start, length):
    """Returns so many bytes, or fewer at the end of the file."""
    start = tf.minimum(tf.cast(start, "int64"), _length(file))
    return tf.strings.substr(file, start, tf.cast(length, "int64"))


def _number(file, at, digits, big=False):
    """Returns the unsigned integer at that place; bytes beyond the end are zeros."""
    return _value(tf.io.decode_raw(_cut(file, at, digits), "uint8", fixed_length=digits), big)


def _value(digits, big=False):
    """Returns the unsigned integers whose bytes are on the last axis."""
    powers = 256 ** tf.range(digits.shape[-1], dtype="int64")
    return tf.reduce_sum(tf.cast(digits, "int64") * tf.where(big, powers[::-1], powers), -1)


def _numbers(*places, digits, big=False):
    """Returns a function of a file that gives the integers at these places."""
    return lambda file: tuple(_number(file, place, digits, big) for place in places)


def _png(file):
    return tf.io.decode_png(file, 3)


def _gif(file):
    return tf.io.decode_image(file, 3, expand_animations=False)


def _webp(file):
    # Asked for whatever channels they have, TensorFlow writes beyond its memory where files are animated (2.21); asked
    # for three, it refuses those with an alpha channel.
    animated = (_cut(file, 12, 4) == b"VP8X") & (_number(file, 20, 1) & 2 > 0)
    with tf.control_dependencies([tf.debugging.assert_equal(animated, False, "an animated WebP file")]):
        return tf.io.decode_image(tf.identity(file), 0, expand_animations=False)[..., :3]


def _webp_size(file):
    def lossless():
        sides = _number(file, 21, 4)
        return [sides // 2**14 % 2**14 + 1, sides % 2**14 + 1]

    return tf.case([
        (_cut(file, 12, 4) == b"VP8X", lambda: [_number(file, 27, 3) + 1, _number(file, 24, 3) + 1]),
        (_cut(file, 12, 4) == b"VP8L", lossless),
    ], lambda: [_number(file, 28, 2) % 2**14, _number(file, 26, 2) % 2**14])


def _bmp_size(file):
    height, width = _number(file, 22, 4), _number(file, 18, 4)
    return tf.minimum(height, 2**32 - height), width  # a negative height: rows from above


def _bmp(file):
    """By hand, as TensorFlow's decoder knows neither palettes, nor masks, nor fewer than eight bits for a pixel."""
    height, width = _bmp_size(file)
    head, bits, compression = _number(file, 14, 4), _number(file, 28, 2), _number(file, 30, 4)
    stride = (width * bits + 31) // 32 * 4
    known = (head >= 40) & ((compression == 0) | (compression == 3))
    with tf.control_dependencies([tf.debugging.assert_equal(known, True, "a compressed BMP file")]):
        rows = tf.io.decode_raw(_cut(file, _number(file, 10, 4), stride * height), "uint8")
    rows = tf.reshape(rows, (height, stride))
    rows = tf.cond(_number(file, 22, 4) < 2**31, lambda: rows[::-1], lambda: rows)

    def indexed(bits):
        shifts = tf.range(8 - bits, -1, -bits)
        indices = tf.bitwise.right_shift(tf.cast(rows, "int32")[..., None], shifts) % 2**bits
        indices = tf.reshape(indices, (height, stride * (8 // bits)))[:, :width]
        colours = _number(file, 46, 4)
        palette = _cut(file, 14 + head, 4 * tf.where(colours == 0, tf.constant(2**bits, "int64"), colours))
        palette = tf.io.decode_raw(palette, "uint8", fixed_length=4 * 2**bits)
        return tf.gather(tf.reshape(palette, (-1, 4))[:, 2::-1], indices)

    def coloured(bits):
        pixels = tf.reshape(rows[:, :width * (bits // 8)], (height, width, bits // 8))
        masks = tf.stack([_number(file, place, 4) for place in (54, 58, 62)])
        given = (compression == 3) & tf.reduce_any(masks > 0)
        masks = tf.where(given, masks, tf.constant(MASKS[bits], "int64"))
        if bits == 16:
            values, lowest = _value(pixels)[..., None], tf.bitwise.bitwise_and(masks, -masks)
            return tf.cast(tf.bitwise.bitwise_and(values, masks) // lowest * 255 // (masks // lowest), "uint8")
        places = tf.where(masks[:, None] == [255 * 256**i for i in range(bits // 8)])
        return tf.gather(pixels, tf.ensure_shape(places, (3, 2))[:, 1], axis=2)

    readers = dict.fromkeys((1, 4, 8), indexed) | dict.fromkeys(MASKS, coloured)
    return tf.case([(bits == depth, partial(reader, depth)) for depth, reader in readers.items()])


JPEG = Format(
    b"\xff\xd8\xff", lambda file: tuple(tf.unstack(tf.io.extract_jpeg_shape(file)[:2], 2)), decode_jpeg,
    Segments(2, 0, b"\xff\xe1", b"Exif\0\0", b"\xff\xda", length_at=2, digits=2, big=True, data_at=4, beside=2),
)
FORMATS = (
    JPEG,
    Format(
        b"\x89PNG", _numbers(20, 16, digits=4, big=True), _png,
        Segments(8, 4, b"eXIf", b"", b"IEND", length_at=0, digits=4, big=True, data_at=8, beside=12),
    ),
    Format(
        b"RIFF", _webp_size, _webp,
        Segments(12, 0, b"EXIF", b"", b"", length_at=4, digits=4, big=False, data_at=8, beside=8, even=True),
    ),
    Format(b"GIF8", _numbers(8, 6, digits=2), _gif),
    Format(b"BM", _bmp_size, _bmp),
)
