"""What `print` shows of a result, in notebooks, too."""

import html


class Shown:
    """A base class: a notebook shows the object as `print` does, not its fields.

    >>> from tfcompress import edge
    >>> edge.Report([])._repr_html_()[:5]
    '<pre>'
    """

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"
