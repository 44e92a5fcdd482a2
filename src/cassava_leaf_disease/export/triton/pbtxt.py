"""Protobuf's text format, as Triton's `config.pbtxt` is written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Union


class Word(str):
    """A word of an enumeration, which stands without quotes."""

    __slots__ = ()


Value = Union[str, Word, int, float, bool, "Message", Sequence["Value"]]
Message = Mapping[str, Value]


def to_pbtxt(message: Message) -> str:
    """A message as text, one field a line; a sequence is a repeated field, a mapping a message within."""
    return "".join(f"{line}\n" for line in _lines(message))


def _lines(message: Message) -> Iterator[str]:
    for name, value in message.items():
        if isinstance(value, Mapping):
            yield f"{name} {{"
            yield from (f"  {line}" for line in _lines(value))
            yield "}"
        elif isinstance(value, Sequence) and not isinstance(value, str):
            if value and isinstance(value[0], Mapping):
                for each in value:
                    yield from _lines({name: each})
            else:
                yield f"{name}: [{', '.join(map(_scalar, value))}]"
        else:
            yield f"{name}: {_scalar(value)}"


def _scalar(value: Value) -> str:
    if isinstance(value, Word):
        return str(value)
    return json.dumps(value, ensure_ascii=False)  # its escapes are protobuf's too
