"""What the string literal behind a field of a record says: the pages of keys are made from it."""

from __future__ import annotations

import ast
import inspect

_OURS = __name__.partition(".")[0]


def field_docs(kind: type) -> dict[str, str]:
    """Field -> its sentence on one line, of the class and of ours that it inherits from."""
    found: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        if one.__module__.partition(".")[0] == _OURS:
            (body,) = ast.parse(inspect.cleandoc("\n" + inspect.getsource(one))).body
            assert isinstance(body, ast.ClassDef)
            for field, text in zip(body.body, body.body[1:], strict=False):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(
                        value=ast.Constant(value=str(said))
                    ):
                        found[name] = " ".join(said.split())
    return found
