"""Image files to pixels in TensorFlow's graphs, the same pixels as `preprocessing` has from Pillow.

JPEG, PNG, GIF, BMP and WebP files. TensorFlow has no decoder for TIFF, AVIF, PPM and others, nor for animated WebP and
compressed BMP files: these are errors, as damaged files are, and GIF files whose first image is not the whole picture.
"""
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

ORIENTATION = 0x0112  # a tag of EXIF
SHORT, LONG = (3, 8), (4, 9)  # types that its value may have, without and with a sign
SEGMENTS = 10_000  # that are looked through for EXIF data
ADOBE = b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\0"  # says that a JPEG of four channels holds CMYK, inverted
GREY = 19595, 38470, 7471  # Pillow's, of 65536
HEAD = 66  # bytes in which each format says how large its image is
FIVE_BITS, EIGHT_BITS = (0x7C00, 0x3E0, 0x1F), (0xFF0000, 0xFF00, 0xFF)  # BMP's masks where a file has none


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
    filled: bool = False  # before a segment may stand any number of bytes 0xff


class Format(NamedTuple):
    magic: bytes
    size: Callable  # of the file and its first bytes: (height, width)
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
            sides = tf.stack([tf.cast(side, "int64") for side in form.size(file, _head(file))])
            fits = tf.reduce_all((sides > 0) & (sides < 2**31)) & (tf.reduce_prod(sides) <= (most_pixels or 2**62))
            return form.read(_checked(file, fits, "no pixels, or too many")), orientation(file, form)

        return read

    kinds = [_cut(file, 0, len(form.magic)) == form.magic for form in FORMATS]
    image, turned = tf.switch_case(_first(kinds), [reader(form) for form in FORMATS])
    return upright(tf.ensure_shape(image, (None, None, 3)), turned)


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
    short, long = (tf.reduce_any([kind == one for one in kinds], 0) for kinds in (SHORT, LONG))
    value = tf.where(long, _value(entries[:, 8:12], big), _value(entries[:, 8:10], big))
    found = tf.boolean_mask(value, known & (tag == ORIENTATION) & (short | long))
    return tf.concat([found, [0]], 0)[0]


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
        if form.filled:
            return at + tf.where(_cut(file, at, 2) == b"\xff\xff", tf.constant(1, "int64"), form.beside + length)
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
    powers = tf.constant([256**i for i in range(digits.shape[-1])], "int64")
    return tf.reduce_sum(tf.cast(digits, "int64") * tf.where(big, powers[::-1], powers), -1)


def _head(file):
    return tf.io.decode_raw(_cut(file, 0, HEAD), "uint8", fixed_length=HEAD)


def _first(conditions):
    """Returns the index of the first condition that is true; of the last one if none is."""
    return tf.argmax(tf.stack([*conditions[:-1], True]), output_type="int32")


def _checked(file, condition, message):
    """Returns the file once `condition` is true; else it is an error."""
    # Other assertions of TensorFlow are graphs with branches of their own.
    with tf.control_dependencies([tf.raw_ops.Assert(condition=condition, data=[message])]):
        return tf.identity(file)


def _jpeg_size(file, head):
    return tf.unstack(tf.io.extract_jpeg_shape(file)[:2], 2)


def _png_size(file, head):
    return _value(head[20:24], big=True), _value(head[16:20], big=True)


def _png(file):
    return tf.io.decode_png(file, 3)


def _gif_size(file, head):
    """Of the first image; (0, 0) where that is not the whole picture, which Pillow would paint on a background."""
    colours = tf.cast(head[10], "int64")
    start = 13 + tf.where(colours >= 128, 3 * tf.bitwise.left_shift(tf.constant(2, "int64"), colours % 8), 0)

    def skip(at, inside):  # extensions: a name, and blocks of so many bytes, the last one of none
        count = _number(file, at, 1)
        return at + tf.where(inside, count + 1, 2), tf.where(inside, count > 0, True)

    at, _ = tf.while_loop(
        lambda at, inside: inside | (_cut(file, at, 1) == b"!"), skip, (start, False), maximum_iterations=SEGMENTS
    )
    left, top, width, height = (_number(file, at + place, 2) for place in (1, 3, 5, 7))
    whole = (left == 0) & (top == 0) & (width == _value(head[6:8])) & (height == _value(head[8:10]))
    return tf.where(whole, height, 0), tf.where(whole, width, 0)


def _gif(file):
    return tf.io.decode_image(file, 3, expand_animations=False)


def _webp_size(file, head):
    sides = _value(head[21:25])
    by_kind = [
        [_value(head[27:30]) + 1, _value(head[24:27]) + 1],
        [sides // 2**14 % 2**14 + 1, sides % 2**14 + 1],
        [_value(head[28:30]) % 2**14, _value(head[26:28]) % 2**14],
    ]
    return tf.unstack(tf.gather(by_kind, _first([_cut(file, 12, 4) == kind for kind in (b"VP8X", b"VP8L", b"VP8 ")])))


def _webp(file):
    # Asked for whatever channels they have, TensorFlow writes beyond its memory where files are animated (2.21); asked
    # for three, it refuses those with an alpha channel.
    animated = (_cut(file, 12, 4) == b"VP8X") & (_head(file)[20] // 2 % 2 == 1)
    file = _checked(file, ~animated, "an animated WebP file")
    return tf.io.decode_image(file, 0, expand_animations=False)[..., :3]


def _bmp_size(file, head):
    height = _value(head[22:26])
    return tf.minimum(height, 2**32 - height), _value(head[18:22])  # a negative height: rows from above


def _bmp(file):
    """By hand, as TensorFlow's decoder knows neither palettes, nor masks, nor fewer than eight bits for a pixel."""
    head = _head(file)
    height, width = _bmp_size(file, head)
    start, length, bits, compression = (_value(head[a:b]) for a, b in ((10, 14), (14, 18), (28, 30), (30, 34)))
    depths = [(bits == 1) | (bits == 4) | (bits == 8), bits == 16, (bits == 24) | (bits == 32)]
    known = (length >= 40) & ((compression == 0) | (compression == 3)) & tf.reduce_any(depths)
    stride = (width * bits + 31) // 32 * 4
    rows = tf.io.decode_raw(_cut(_checked(file, known, "a compressed BMP file"), start, stride * height), "uint8")
    rows = tf.reshape(rows, (height, stride))[::tf.where(_value(head[22:26]) < 2**31, -1, 1)]
    masks = tf.stack([_value(head[place:place + 4]) for place in (54, 58, 62)])
    given = (compression == 3) & tf.reduce_any(masks > 0)

    def indexed():
        count = tf.bitwise.left_shift(tf.constant(1, "int64"), bits)
        indices = tf.bitwise.right_shift(tf.cast(rows, "int64")[..., None], tf.range(8 - bits, -1, -bits)) % count
        indices = tf.reshape(indices, (height, stride * 8 // bits))[:, :width]
        colours = _value(head[46:50])
        palette = _cut(file, 14 + length, 4 * tf.where(colours == 0, count, colours))
        palette = tf.io.decode_raw(palette, "uint8", fixed_length=4 * 256)
        return tf.gather(tf.reshape(palette, (-1, 4))[:, 2::-1], indices)

    def pixels():
        return tf.reshape(rows[:, :width * (bits // 8)], (height, width, bits // 8))

    def of_two_bytes():
        values, wanted = _value(tf.ensure_shape(pixels(), (None, None, 2))), tf.where(given, masks, FIVE_BITS)
        lowest = tf.bitwise.bitwise_and(wanted, -wanted)
        parts = tf.bitwise.bitwise_and(values[..., None], wanted) // lowest
        return tf.cast(parts * 255 // (wanted // lowest), "uint8")

    def of_bytes():
        bytes_ = tf.constant([255 * 256**i for i in range(4)], "int64")
        places = tf.where(tf.where(given, masks, EIGHT_BITS)[:, None] == bytes_)
        return tf.gather(pixels(), tf.ensure_shape(places, (3, 2))[:, 1], axis=2)

    return tf.switch_case(_first(depths), [indexed, of_two_bytes, of_bytes])


JPEG = Format(
    b"\xff\xd8\xff", _jpeg_size, decode_jpeg,
    Segments(2, 0, b"\xff\xe1", b"Exif\0\0", b"\xff\xda", length_at=2, digits=2, big=True, data_at=4, beside=2,
             filled=True),
)
FORMATS = (
    JPEG,
    Format(
        b"\x89PNG", _png_size, _png,
        Segments(8, 4, b"eXIf", b"", b"IEND", length_at=0, digits=4, big=True, data_at=8, beside=12),
    ),
    Format(
        b"RIFF", _webp_size, _webp,
        Segments(12, 0, b"EXIF", b"", b"", length_at=4, digits=4, big=False, data_at=8, beside=8, even=True),
    ),
    Format(b"GIF8", _gif_size, _gif),
    Format(b"BM", _bmp_size, _bmp),
    Format(b"", lambda file, head: (0, 0), lambda file: tf.zeros((1, 1, 3), "uint8")),  # any other: no pixels
)
