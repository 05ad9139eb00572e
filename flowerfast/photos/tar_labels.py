"""What is on the photos of tar files that others wrote: by a member of each sample, its JSON, or its folder.

https://github.com/webdataset/webdataset, `autodecode`: how its writers and readers name what they write
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from flowerfast.documents import DocumentError, parse_json, shown
from flowerfast.errors import UserError
from flowerfast.nearest import did_you_mean, nearest
from flowerfast.photos.label_cells import LONGEST
from flowerfast.photos.label_file import KNOWN, LABEL
from flowerfast.photos.layout import SPELLINGS, nfc
from flowerfast.photos.tar_members import Member
from flowerfast.photos.walk import some

SUFFIXES = ("cls", *KNOWN[LABEL])
"""Members that are labels without being told."""
JSON = "json"
MOST_LABEL = 1 << 20
"""Bytes of a member that a label is read of."""
_BINARY = ("pyd", "pickle", "pkl", "pth", "pt", "mp", "msg", "msgpack", "npy", "npz", "ten", "tb", "cbor")
"""Suffixes of labels that are no text; to unpickle is to run what somebody wrote."""

Read = Callable[[int, int], bytes]
"""Bytes of a tar: (size, offset)."""


@dataclass
class Fields:
    """What the samples of all tars have.

    Attributes:
        suffixes: members of each suffix.
        folders: those of the keys, "" for none.
        samples: how many there are.
        document: names of the fields in the first JSON; None: there is none, or `has_label`.
    """

    suffixes: Counter[str] = field(default_factory=Counter)
    folders: set[str] = field(default_factory=set)
    samples: int = 0
    document: list[str] | None = None

    @property
    def has_label(self) -> bool:
        """Whether there are members that are labels without being told."""
        return any(suffix in self.suffixes for suffix in SUFFIXES)


class Rule(NamedTuple):
    """Where the label of a sample is: in the member `suffix`, of JSON in the field `name`, else in the folder
    of its key at this `depth`.
    """

    suffix: str | None
    name: str = ""
    depth: int = 0

    def __str__(self) -> str:
        if self.suffix is None:
            return "the folders of their names"
        return f".{self.suffix}" + (f", field {shown(self.name)}" if self.suffix == JSON else "")


def choose(root: Path, fields: Fields, named: str | None) -> Rule:
    """The rule of a folder of tars; `named` is `data.label_column`. Raises UserError."""
    document = fields.document or []
    if named is not None:
        if named.casefold() in fields.suffixes and named.casefold() != JSON:
            return Rule(named.casefold())
        if named in document:
            return Rule(JSON, named)
        near = nearest(named, [*fields.suffixes, *document])
        raise UserError(
            f"{root}: no label {shown(named)} (data.label_column){did_you_mean(near) if near else ''}; "
            f"{_there(fields)}"
        )
    suffixes = [suffix for suffix in SUFFIXES if suffix in fields.suffixes]
    known = [name for name in document if name.casefold() in KNOWN[LABEL]]
    for found in (suffixes, known):
        if len(found) > 1:
            which = " and ".join(map(shown, found))
            raise UserError(f"{root}: {which} could each be the label; set data.label_column")
    if suffixes:
        return Rule(suffixes[0])
    if known:
        return Rule(JSON, known[0])
    depth = _depth(root, fields)
    if depth is not None:
        return Rule(None, depth=depth)
    binary = [suffix for suffix in fields.suffixes if suffix.rpartition(".")[2] in _BINARY]
    unread = f" ({some([f'.{suffix}' for suffix in binary])} is not: write it as text)" if binary else ""
    raise UserError(
        f"{root}: no label that is read in these tar files: KEY.cls, or a field such as 'label' of KEY.json"
        f"{unread}; {_there(fields)}; set data.label_column to what holds it, or write the label as KEY.cls"
    )


def _there(fields: Fields) -> str:
    document = [] if fields.document is None else [f"fields in the first JSON: {some(fields.document)}"]
    members = some([f".{suffix}" for suffix, _ in fields.suffixes.most_common()])
    return "; ".join([f"the samples have {members}", *document])


def _depth(root: Path, fields: Fields) -> int | None:
    """Which folder of the keys is the class: the first that is not the same for all. None: none is."""
    folders = [folder.split("/") if folder else [] for folder in fields.folders]
    deepest = min(map(len, folders), default=0)
    for depth in range(deepest):
        classes = {folder[depth] for folder in folders}
        if len(classes) > 1:
            if all(name.casefold() in SPELLINGS for name in classes):
                raise UserError(
                    f"{root}: the names in these tar files begin with the halves of a split "
                    f"({some(sorted(classes))}); unpack them (tar xf) and give that folder"
                )
            return depth if len(classes) < fields.samples else None
    return None


def label_of(rule: Rule, path: Path, key: str, members: Mapping[str, Member], read: Read) -> str:
    """The name of the class of a sample. Raises UserError, OSError."""
    if rule.suffix is None:
        return nfc(key.split("/")[rule.depth])
    member = members.get(rule.suffix)
    if member is None:
        raise UserError(
            f"{path}: {key} has no .{rule.suffix}, only {some([f'.{name}' for name in members])}; add its "
            "label, or take the sample out"
        )
    where = f"{path}: {key}.{rule.suffix}"
    if rule.suffix == JSON:
        value = document_of(where, member, read).get(rule.name)
        said = f"field {shown(rule.name)} is {shown(value)}"
    else:
        content = _content(where, member, read)
        value, said = _decoded(content), shown(content)
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not text or len(text) > LONGEST or not text.isprintable():
        raise UserError(
            f"{where}: {said}, which is no name or number of a class in UTF-8; set data.label_column, or "
            "write the labels anew (what is pickled is never read)"
        )
    return nfc(text)


def _content(where: str, member: Member, read: Read) -> bytes:
    if member.size > MOST_LABEL:
        raise UserError(f"{where}: {member.size} bytes are no label; set data.label_column")
    return read(member.size, member.offset)


def _decoded(content: bytes) -> str | None:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def document_of(where: str, member: Member, read: Read) -> dict[str, Any]:
    """The fields of a sample's JSON. Raises UserError, OSError."""
    try:
        value = parse_json(_content(where, member, read), most=MOST_LABEL)
    except DocumentError as error:
        raise UserError(f"{where}: {error}; mend it, or set data.label_column to another label") from None
    return value if isinstance(value, dict) else {}
