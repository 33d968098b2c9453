"""Paths that are written in an odd way: one place sends them to the path they mean, as Go's router does."""

from __future__ import annotations

from html import escape

from actors.front.types import NOT_FOUND, Request, Response


def redirect(request: Request) -> Response | None:
    """307 for a path with empty, `.` or `..` segments, 404 for one with an escaped slash; None for all others."""
    if "%2f" in request.raw_path.lower():
        return NOT_FOUND
    clean = cleaned(request.raw_path)
    if clean == request.raw_path:
        return None
    return moved(request, clean)


def moved(request: Request, path: str) -> Response:
    """307 to this path of ours."""
    location = f"{path}?{request.raw_query}" if request.raw_query else path
    headers = (("location", location),)
    if request.method not in ("GET", "HEAD"):
        return Response(307, headers=headers)
    body = f'<a href="{escape(location)}">Temporary Redirect</a>.\n\n'
    return Response(307, body.encode("latin-1", "replace"), "text/html; charset=utf-8", headers)


def cleaned(path: str) -> str:
    """Always begins with exactly one slash, so no redirect leads to another host."""
    kept: list[str] = []
    for segment in path.split("/"):
        match segment:
            case "" | ".":
                pass
            case "..":
                del kept[-1:]
            case _:
                kept.append(segment)
    end = "/" if kept and path.endswith("/") else ""
    return "/" + "/".join(kept) + end
