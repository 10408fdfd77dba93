"""A command whose argument may be a prompt that begins with `-`, such as `--no people red bicycle`."""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


class PromptCommand(TyperCommand):
    """Takes an argument that begins with `-` and has white space in it as a prompt, and not as options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put such arguments behind `--`, where nothing is an option. Called by Click."""
        flags = {name: option.is_flag for option in self.params for name in option.opts if hasattr(option, "is_flag")}
        end = args.index("--") if "--" in args else len(args)
        options: list[str] = []
        prompts: list[str] = []
        for one in args[:end]:
            is_value = bool(options) and flags.get(options[-1]) is False
            is_prompt = one.startswith("-") and len(one.split()) > 1 and one.split("=", 1)[0] not in flags
            (prompts if is_prompt and not is_value else options).append(one)
        behind = [*prompts, *args[end + 1 :]]
        return super().parse_args(ctx, [*options, *(["--", *behind] if behind else [])])
