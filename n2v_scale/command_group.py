"""A group of commands that says what was probably meant."""

from __future__ import annotations

from difflib import get_close_matches

import click


class Commands(click.Group):
    """As click's; older versions of it suggest nothing for a mistyped command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See :class:`click.Group`."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near or "Did you mean" in error.format_message():
                raise
            raise click.UsageError(
                f"{error.format_message()} Did you mean {near[0]!r}?", ctx
            ) from None
