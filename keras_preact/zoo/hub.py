"""Fetching from the Hugging Face Hub: every file of a repository at one commit, none used before its sha256 is right.

Nothing that comes from there is executed: metadata is JSON of a fixed schema, weights are arrays.
"""
import contextlib
import dataclasses
import errno
import hashlib
import os
import re
from pathlib import Path

from keras_preact.zoo.metadata import Metadata, NewerFormat

PREFIX = "hf://"
METADATA, WEIGHTS = "keras_preact.json", "model.weights.h5"
MAX_METADATA = 1_000_000  # bytes
_ADDRESS = re.compile(r"(?P<repository>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w-][\w.-]*(/[\w-][\w.-]*)*))?")
NO_ROOM = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR,
)


class HubError(OSError):
    """What the Hub should give cannot be had, or is not what was published; says file, repository and remedy."""

    def __init__(self, repository, revision, file, reason, remedy):
        name = f"{file} of " if file else ""
        super().__init__(f"{name}{PREFIX}{repository}@{revision or 'main'}: {reason}. {remedy}")


class NotOurs(HubError):
    """A repository that does not have our metadata."""


class Damaged(HubError):
    """A file that is not what was published, also when it is downloaded again."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A repository at one commit.

    Args:
        repository: "owner/name".
        commit: 40 hexadecimal digits.
        metadata: a `Metadata`.
        cache: folder; default that of the Hub's client, which HF_HOME places.
    """

    repository: str
    commit: str
    metadata: Metadata
    cache: str | None = None

    def file(self, name):
        """Returns the path of one of its files, from the cache or the Hub, as `fetch`."""
        return fetch(self.repository, self.commit, name, self.metadata.files[name], self.cache)


def is_address(weights):
    return isinstance(weights, str) and weights.startswith(PREFIX)


def parse(address):
    """Returns (repository, revision or None) of "owner/name" or "owner/name@revision", with or without "hf://".

    Raises:
        ValueError: another text.
    """
    match = _ADDRESS.fullmatch(str(address).removeprefix(PREFIX))
    if not match or ".." in str(address):
        raise ValueError(
            "A repository of the Hub is named 'owner/name' or 'owner/name@revision', a branch, a tag or a commit. "
            f"Received: {address!r}"
        )
    return match["repository"], match["revision"]


def snapshot(address, cache=None):
    """Returns the `Snapshot` of a repository, at the commit that its revision names.

    Args:
        address: as `parse` takes it.
        cache: folder; default that of the Hub's client.

    Raises:
        ValueError: no such form of address.
        HubError: the repository cannot be had; `NotOurs` if it is not of our layout.
    """
    from huggingface_hub import errors, hf_hub_download

    repository, commit = resolve(address, cache)
    with explained(repository, commit, METADATA):
        try:
            size = hf_hub_download(repository, METADATA, revision=commit, cache_dir=cache, dry_run=True).file_size
        except Exception as error:
            # Without a network what was converted once tells that it is not ours.
            if isinstance(error, errors.RemoteEntryNotFoundError) or converted(repository, commit).exists():
                raise NotOurs(repository, commit, METADATA, *_reason(error, repository, commit)) from error
            raise
    if size and size > MAX_METADATA:
        remedy = f"keras_preact writes at most {MAX_METADATA}; another program made this repository."
        raise HubError(repository, commit, METADATA, f"it has {size} bytes", remedy)
    metadata = _checked(repository, commit, METADATA, cache, lambda path: Metadata.from_json(path.read_text("utf-8")))
    return Snapshot(repository, commit, metadata, cache)


def resolve(address, cache=None):
    """Returns (repository, commit) of an address; as `snapshot`."""
    from huggingface_hub import HfApi

    repository, revision = parse(address)
    with explained(repository, revision):
        return repository, HfApi().resolve_revision(repository, revision=revision, cache_dir=cache).resolved


def listed(repository, commit, files):
    """Returns the folder that holds `files` of another program's repository, compared with the Hub's own hashes.

    Raises:
        HubError: a file cannot be had, or is not what the Hub lists.
    """
    from huggingface_hub import HfApi

    with explained(repository, commit):
        infos = {info.path: info for info in HfApi().get_paths_info(repository, list(files), revision=commit)}
    paths = []
    for file in files:
        if file not in infos:
            remedy = "Only what keras_preact published, and timm's resnetv2 networks, can be loaded."
            raise HubError(repository, commit, file, "the repository has no such file", remedy)
        large = infos[file].lfs
        if large:
            paths.append(fetch(repository, commit, file, large.sha256))
        else:
            compare = _compared(_git_digest, "git hash", infos[file].blob_id)
            paths.append(_checked(repository, commit, file, None, compare))
    return paths[0].parent


def converted(repository, commit):
    """Returns the path in the cache of the weights of another program's repository, once they were converted."""
    return folder() / f"{repository.replace('/', '--')}--{commit}.weights.h5"


def folder():
    """Returns the folder of the cache for what is converted, beside that of the Hub's client; HF_HOME places both."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME, "keras_preact")


def fetch(repository, commit, file, sha256, cache=None):
    """Returns the path of a file, from the cache or else the Hub, once its content has the sha256 that was published.

    A file that has not is downloaded once more; if it is wrong again, no copy of it stays in the cache.

    Raises:
        HubError: the file cannot be had, or is not the published one.
    """
    return _checked(repository, commit, file, cache, _compared(digest, "sha256", sha256))


def _compared(digest, name, expected):
    def compare(path):
        found = digest(path)
        if found != expected:
            raise ValueError(f"its {name} is {found} instead of {expected}")
        return path

    return compare


def _checked(repository, commit, file, cache, check):
    """Returns what `check` makes of a file, which raises ValueError where it is not the published one."""
    with explained(repository, commit, file):
        path = _download(repository, commit, file, cache)
    try:
        return check(path)
    except NewerFormat as error:
        raise HubError(repository, commit, file, error, "Upgrade: pip install -U keras_preact.") from error
    except ValueError:
        path = _again(repository, commit, file, path, cache)
    try:
        return check(path)
    except ValueError as error:
        _forget(path)
        raise Damaged(
            repository, commit, file, f"it was downloaded twice and is not what was published: {error}",
            "Try again later; if that stays so, a proxy changes the files, or its owner must publish it again.",
        ) from error


def cached(repository, commit, file):
    """Whether a file is in the cache of the Hub's client."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repository, file, revision=commit), str)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _git_digest(path):
    content = Path(path).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _download(repository, commit, file, cache, force=False):
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(repository, file, revision=commit, cache_dir=cache, force_download=force))


def _again(repository, commit, file, path, cache):
    """Downloads a damaged file again; where that fails the damaged one does not stay."""
    try:
        with explained(repository, commit, file, "the copy in the cache is damaged, and downloading it again failed: "):
            return _download(repository, commit, file, cache, force=True)
    except HubError:
        _forget(path)
        raise


def _forget(path):
    """Removes a file of the cache and all that its links lead over, so that no commit or repository uses it again."""
    while path.is_symlink():
        target = path.parent / os.readlink(path)
        path.unlink()
        path = target
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(repository, revision, file=None, before=""):
    """Turns whatever the Hub's client raises into a `HubError` that says what to do.

    The client's own messages are left out of it: they hold URLs, which may be signed, and what the server said.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:
        reason, remedy = _reason(error, repository, revision)
        raise HubError(repository, revision, file, before + reason, remedy) from error


def _reason(error, repository, revision):
    from huggingface_hub import constants, errors, get_token

    # The client wraps what happened. HTTPError is of the HTTP library it uses, and the Hub's answers are such, too.
    while not isinstance(error, errors.HTTPError) and error.__cause__ is not None:
        error = error.__cause__
    pull = f"keras-preact pull {repository}" + (f"@{revision}" if revision else "")
    log_in = "Log in with `hf auth login`, or set HF_TOKEN."
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        for kind, reason, remedy in (
            (errors.GatedRepoError, "the repository is gated, and this account has no access to it",
             f"Ask for it at {constants.ENDPOINT}/{repository}, then: {log_in}"),
            (errors.RepositoryNotFoundError,
             "there is no such repository, or it is private and this account has no access to it",
             f"Compare its name with {constants.ENDPOINT}/{repository}. If it is private: {log_in}"),
            (errors.RevisionNotFoundError, "the repository has no such branch, tag or commit",
             f"{constants.ENDPOINT}/{repository}/commits lists them."),
            (errors.EntryNotFoundError, "the repository has no such file",
             "Only repositories that keras_preact published can be loaded (`keras-preact push`)."),
        ):
            if isinstance(error, kind):
                return f"{reason} ({status})", remedy
        if status == 401:
            return "the Hub does not accept the token (401)", log_in
        if status == 403:
            return "the token does not permit this (403)", "Take a token with the permission that is needed. " + log_in
        if status == 412:
            return "somebody else changed the branch meanwhile (412)", "Try again."
        return f"the Hub answered {status}", "Try again later."
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE forbids to ask the Hub for it", f"Fetch it once, online: {pull}"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return (
            f"it cannot be written to the cache, {constants.HF_HUB_CACHE}: {error.strerror}",
            "Make room there, or set HF_HOME to another folder.",
        )
    if isinstance(error, (OSError, errors.HTTPError)):
        return (
            f"the connection to {constants.ENDPOINT} failed or broke off ({type(error).__name__})",
            f"Try again when there is a network; what `{pull}` fetched before needs none.",
        )
    text = " ".join(str(error).split()).replace(get_token() or "\n", "...")
    return f"the Hub's client failed ({type(error).__name__}: {text})", "Try again."
