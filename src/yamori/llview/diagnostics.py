"""Errors of the front end: file, line, caret, and what to write instead."""

from __future__ import annotations

import ast
import linecache

from yamori.errors import YamoriError


class CompileError(YamoriError):
    """A program that is not one of the language.

    Args:
        message: What is wrong.
        file: The source file.
        node: Where; its position is shown with a caret.
        hint: What to write instead.
    """

    def __init__(self, message: str, file: str, node: ast.AST, *, hint: str = "") -> None:
        self.file = file
        self.line: int = getattr(node, "lineno", 1)
        self.column: int = getattr(node, "col_offset", 0) + 1
        super().__init__(message, where=f"{file}:{self.line}:{self.column}", hint=hint)

    def picture(self) -> str:
        """Return the source line with a caret below the place."""
        text = linecache.getline(self.file, self.line).rstrip("\n")
        margin = f"{self.line:>5} | "
        indent = "".join("\t" if character == "\t" else " " for character in text[: self.column - 1])
        return f"{margin}{text}\n{' ' * (len(margin) - 2)}| {indent}^"
