"""What a file is by its first bytes, for the errors of whoever expects another."""
import re

HDF5, SAFETENSORS, TORCH7, LITERT = "an HDF5 file", "a safetensors file", "a Torch7 file", "a LiteRT file"
TORCH, PICKLE, NPZ, KERAS, ZIP = "a PyTorch file", "a pickle", "an .npz archive", "a .keras file", "a .zip archive"
BEGINNINGS = {
    rb"version https://git-lfs": "a Git LFS pointer in place of the file (git lfs pull)",
    rb"(?i)\s*(<!doctype html|<html)": "an HTML page, such as one about the file",
    rb"\x89PNG\r\n\x1a\n": "a PNG image",
    rb"\xff\xd8\xff": "a JPEG image",
    rb"GIF8[79]a": "a GIF image",
    rb"RIFF....WEBP": "a WebP image",
    rb"%PDF-": "a PDF file",
    rb"\x89HDF\r\n\x1a\n": HDF5,
    rb"\x93NUMPY": "an .npy array",
    # The names of the first members of archives follow their headers of 30 bytes.
    rb"PK\x03\x04.{26}[^/]+/data\.pkl": TORCH,
    rb"PK\x03\x04.{26}[^/]+\.npy": NPZ,
    rb"PK\x03\x04.{26}metadata\.json": KERAS,
    rb"PK\x03\x04": ZIP,
    rb"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19\.": TORCH,  # before its version 1.6: a number in a pickle
    rb"\x80[\x02-\x05]": PICKLE,
    rb"\x1f\x8b\x08": "a gzip archive",
    rb".{3}[\0-\x05]\0{4}\{\"": SAFETENSORS,  # the size of its header in JSON, and that
    rb"\x04\0\0\0....\x03\0\0\0V 1": TORCH7,
    rb"....TFL3": LITERT,
}


def kind_of(path):
    """Returns what a file is, such as "a PNG image"; None where its first bytes do not tell, or cannot be read."""
    try:
        with open(path, "rb") as file:
            start = file.read(200)
    except OSError:
        return None
    return next((kind for beginning, kind in BEGINNINGS.items() if re.match(beginning, start, re.DOTALL)), None)


def unread(path, wanted, own, error, remedy="Copy or download it again."):
    """Returns the ValueError of a file that cannot be read as what is `wanted`: it is another, or may be damaged.

    Args:
        path: of the file.
        wanted: what it should be, such as "Keras weights".
        own: the kinds that such files are of.
        error: what was raised.
        remedy: for a file that is damaged.
    """
    kind = kind_of(path)
    if kind in (None, *own):
        return ValueError(f"{path} cannot be read as {wanted}; it may be truncated or damaged: {error}. {remedy}")
    return ValueError(f"{path} cannot be read as {wanted}: it is {kind}. Give another file.")
