"""What all sections of settings are: checked, frozen, explained in one line where they are wrong."""

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from flowerfast.documents import first_problem, shown
from flowerfast.errors import UserError
from flowerfast.nearest import hint

Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Base of all sections: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UserError(explain(error, type(self).__name__, type(self))) from None

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse what pydantic would take for text or a number, and what no file or loop could hold."""
        if isinstance(value, bytes):
            raise ValueError("give text, not bytes")
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds the character U+0000")
        kind = cls.model_fields[info.field_name or ""].annotation
        kinds = {kind, *get_args(kind)}
        kinds |= {get_args(part)[0] for part in kinds if get_origin(part) is Annotated}
        if value == "" and str in kinds:
            raise ValueError("is empty; leave it out, or give a value")
        parts = [*value] if isinstance(value, list | tuple) else [value]
        if bool in map(type, parts) and {int, float} & kinds:
            raise ValueError("give a number, not true or false")
        if any(isinstance(part, int) and abs(part) >= 2**64 for part in parts):
            raise ValueError("that is too large a number")
        return value

    # For who calls the class: a section within a whole configuration is explained with its key (`validate`).
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]


def explain(error: ValidationError, origin: str, model: type[BaseModel]) -> str:
    """One line for the first problem of a `model`: its argument, the value, the rule."""
    key = first_problem(error)[0]
    if is_unknown(error):
        return f"{origin}: unknown argument {shown(key)}{hint(key, [*model.model_fields])}"
    name = key.split(".")[0]
    return broken_rule(error, origin, name, model.model_fields.get(name))


def is_unknown(error: ValidationError) -> bool:
    """Whether the first problem is a key that there is not."""
    return error.errors()[0]["type"] == "extra_forbidden"


def broken_rule(error: ValidationError, origin: str, name: str, info: FieldInfo | None) -> str:
    """One line for a first problem that is of a known field, called `name`."""
    cause = error.errors()[0].get("ctx", {}).get("error")
    if isinstance(cause, UserError):
        return f"{origin}: {cause}"
    _, value, rule = first_problem(error)
    about = description(info)
    return f"{origin}: {name}={value}: {rule}{f' ({about})' if about else ''}"


def description(info: FieldInfo | None) -> str:
    """What a field means, without a full stop."""
    return (info.description or "").rstrip(".") if info else ""
